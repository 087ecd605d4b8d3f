"""No operator for a while, under load: nobody is failed, no pod is touched, and what others decided is done afterwards.

`MOORAGE_AWAY_SECONDS` is how long that is (60); half an hour is worth a try now and then.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from e2e.stack import GATEWAY_SERVICE, SYSTEM_NAMESPACE, CommandError
from e2e.waiting import each_second

AWAY = float(os.environ.get("MOORAGE_AWAY_SECONDS", "60"))
MOST = 3  # replicas of `chat`, as the manifest has it
SYSTEM = f"--namespace={SYSTEM_NAMESPACE}"
FIGURE = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/llmdeployments.moorage.dev/chat/RequestsInFlight"


@dataclass(frozen=True)
class Absence:
    began: float
    pods: dict[str, list[int]]
    """Those that were there then."""
    end: Callable[[], None]
    """The operators return."""


@pytest.fixture(scope="module")
def models(kit):
    """`chat`, which an autoscaler scales, and `plain`, which people do."""
    kit.apply("models.yaml")
    kit.wait_ready("chat")
    kit.wait_ready("plain")
    kit.eventually(lambda: kit.condition("chat", "ScalingActive").get("reason"), lambda why: why == "MetricsFound", 90)


@pytest.fixture(scope="module")
def loads(kit, models):
    """Clients of both, all the while."""
    with ExitStack() as going:
        yield [
            going.enter_context(kit.load(f"{kit.namespace}/{name}", workers=1, pause=0.5, seconds=AWAY + 900))
            for name in ("chat", "plain")
        ]


@pytest.fixture(scope="module")
def figures(kit, loads):
    """Each second, whether the API server has a figure from the gateways."""
    with each_second(lambda: is_told(kit)) as seen:
        yield seen


@pytest.fixture(scope="module")
def away(kit, loads, figures):
    """No operator."""
    with ExitStack() as going:
        going.enter_context(kit.without_operators())
        yield Absence(time.monotonic(), pods(kit), going.close)


@pytest.mark.usefixtures("away")
def test_an_autoscaler_and_a_person_go_on_writing_what_they_want(kit):
    with kit.load(f"{kit.namespace}/chat", workers=8, tokens=100) as rush:
        kit.eventually(lambda: wanted(kit, "chat"), lambda number: number == MOST, 120)
    assert rush.failures() == []
    kit.kubectl("scale", "llmdep/plain", "--replicas=2")
    assert (run(kit, "chat"), run(kit, "plain")) == (1, 1), "nobody is there to act on it"


@pytest.mark.usefixtures("away")
def test_a_gateway_that_restarts_meanwhile_serves(kit, figures, loads):
    assert all(figures), "any gateway told the figure"
    old, *_ = gateways(kit)
    kit.stack.kubectl("delete", "pod", old, SYSTEM)
    kit.stack.kubectl("rollout", "status", f"deployment/{GATEWAY_SERVICE}", SYSTEM)
    new = kit.eventually(lambda: gateways(kit), lambda found: old not in found and len(found) > 1)
    for address in new.values():
        for name in ("chat", "plain"):
            answer = kit.ask(f"{kit.namespace}/{name}", stream=True, at=f"http://{address}:8080/v1")
            assert "harbour" in "".join(answer["pieces"])
    for load in loads:
        load.goes_on()


def test_nobody_is_failed_and_no_pod_is_touched(kit, away, loads, figures, bar):
    kit.eventually(lambda: time.monotonic() - away.began, lambda seconds: seconds > AWAY, AWAY + 60)
    assert pods(kit) == away.pods
    assert (run(kit, "chat"), run(kit, "plain")) == (1, 1)
    told = {"figures": len(figures), "without": figures.count(False)}
    requests = {
        "requests": sum(len(load.records) for load in loads),
        "failed": sum(len(load.failures()) for load in loads),
    }
    bar("R16", seconds=time.monotonic() - away.began, **requests, restarts=0, **told)
    assert [load.failures() for load in loads] == [[], []]


def test_what_was_decided_meanwhile_is_done_on_their_return(kit, away, loads, bar):
    away.end()
    returned, acted = time.monotonic(), {}
    for name, number in (("plain", 2), ("chat", MOST)):
        kit.eventually(lambda name=name: run(kit, name), lambda found, number=number: found == number)
        acted[name] = time.monotonic() - returned
    bar("R16 return", **acted)
    for name, number in (("plain", 2), ("chat", MOST)):
        kit.eventually(lambda name=name: kit.row(name)["READY"], lambda told, n=number: told == f"{n}/{n}", 240)
    after = pods(kit)
    assert {name: after.get(name) for name in away.pods} == away.pods, "what served all the while still does"
    told = [one["reason"] for one in kit.status("chat")["decisions"] if one["kind"] == "Scale"]
    assert "HPA: " in told[-1]
    kit.eventually(lambda: kit.condition("chat", "ScalingActive").get("reason"), lambda why: why == "MetricsFound", 90)
    for load in loads:
        load.goes_on()
    assert [load.failures() for load in loads] == [[], []]


def wanted(kit, name):
    return kit.get("llmdeployment", name)["spec"]["replicas"]


def run(kit, name):
    """The replicas that its workload asks for."""
    return kit.get("deployment", f"{name}-r1")["spec"]["replicas"]


def pods(kit):
    """Of both models, each with how often it was restarted."""
    return {
        pod["metadata"]["uid"]: [one["restartCount"] for one in pod["status"]["containerStatuses"]]
        for pod in kit.get("pods")["items"]
    }


def gateways(kit):
    """Their pods that are there to stay, with their addresses."""
    found = kit.stack.get("pods", f"--selector=app.kubernetes.io/name={GATEWAY_SERVICE}", SYSTEM)["items"]
    staying = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return {pod["metadata"]["name"]: pod["status"].get("podIP") for pod in staying}


def is_told(kit):
    try:
        kit.stack.kubectl("get", "--raw", FIGURE.format(kit.namespace))
    except CommandError:
        return False
    return True
