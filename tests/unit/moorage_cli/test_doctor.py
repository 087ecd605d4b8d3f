"""What `moor doctor` says of an installation, healthy and broken in one way at a time."""

from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest

from moorage_api.crd import custom_resource_definition
from moorage_cli import doctor
from moorage_cli.cluster import KubectlError


def program(name, ready=2, runs=None):
    labels = {"app.kubernetes.io/version": runs or version("moorage")}
    metadata = {"name": name, "namespace": "moorage-system", "labels": labels}
    return {"metadata": metadata, "spec": {"replicas": 2}, "status": {"readyReplicas": ready}}


def lease(age):
    renewed = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    spec = {"holderIdentity": "one", "renewTime": renewed}
    return {"metadata": {"name": "moorage-operator", "namespace": "moorage-system"}, "spec": spec}


class Installation:
    """Answers as kubectl would for a healthy one; a test breaks it."""

    def __init__(self):
        self.lists = {
            "crd": [custom_resource_definition()],
            "moorage-operator": [program("moorage-operator")],
            "moorage-gateway": [program("moorage-gateway")],
            "leases": [lease(3)],
            "llmdeployments.moorage.dev": [],
        }
        self.refused = ""

    def read(self, *arguments):
        if arguments == ("version",):
            return {"serverVersion": {"gitVersion": "v1.34.4"}}
        key = arguments[1] if arguments[1] in self.lists else arguments[-1].split("=")[-1]
        if isinstance(self.lists[key], str):
            raise KubectlError(self.lists[key])
        return {"items": self.lists[key]}

    def run(self, *arguments):
        if arguments[:2] == ("auth", "can-i") and arguments[2] == self.refused:
            raise KubectlError("no")
        return "yes"


@pytest.fixture
def installation():
    return Installation()


def wrong(installation):
    """What is not as it should be: grade, subject, text."""
    checks = list(doctor.examine(installation))
    return [(str(one.grade), one.subject, one.found) for one in checks if one.grade != "ok"]


def test_a_healthy_installation(installation):
    assert wrong(installation) == []
    assert len(list(doctor.examine(installation))) == 13


BROKEN = {
    "without a CRD": ("crd", [], "FAIL CRD", "is not there; helm install"),
    "an older CRD": ("crd", [{"spec": {}}], "warn CRD", "upgrade the older of the two"),
    "no right to see it": ("crd", "Error from server (Forbidden): no", "warn CRD", "ask whoever runs the cluster"),
    "no operator": ("moorage-operator", [], "FAIL operator", "install the chart"),
    "a dead operator": (
        "moorage-operator",
        [program("moorage-operator", ready=0)],
        "FAIL operator",
        "0 of 2 ready; kubectl",
    ),
    "half a gateway": (
        "moorage-gateway",
        [program("moorage-gateway", ready=1)],
        "warn gateway",
        "1 of 2 ready; kubectl",
    ),
    "another version": (
        "moorage-gateway",
        [program("moorage-gateway", runs="9.9")],
        "warn gateway",
        "ready; this moor is",
    ),
    "nobody leads": ("leases", [lease(3000)], "FAIL leader", "s (one did); kubectl logs -n moorage-system deploy/"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_each_thing_that_is_wrong_is_named_with_the_next_step(installation, how):
    what, is_now, graded, said = BROKEN[how]
    installation.lists[what] = is_now
    ((grade, subject, found),) = wrong(installation)
    assert f"{grade} {subject}" == graded
    assert said in found


def test_a_right_that_is_missing_says_what_needs_it(installation):
    installation.refused = "patch"
    ((_, subject, found),) = wrong(installation)
    assert subject == "your rights"
    assert found.startswith("you may not patch llmdeployments.moorage.dev, which moor needs for: rollout pause")


def test_a_model_that_is_stuck_is_named(installation, ended):
    installation.lists["llmdeployments.moorage.dev"] = [ended("RolledBack", stalled="True")]
    assert wrong(installation) == [("warn", "models", "chat: RolledBack: what RolledBack means")]
