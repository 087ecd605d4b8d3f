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


def registration(name="v1beta2.custom.metrics.k8s.io", service="moorage-system/moorage-gateway-metrics", **status):
    namespace, _, target = service.partition("/")
    labels = {"app.kubernetes.io/managed-by": "moorage"} if "moorage" in target else {}
    said = {"type": "Available", "status": "True", "message": "all checks passed", **status}
    spec = {"service": {"namespace": namespace, "name": target}}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"conditions": [said]}}


class Installation:
    """Answers as kubectl would for a healthy one; a test breaks it."""

    def __init__(self):
        self.lists = {
            "crd": [custom_resource_definition()],
            "moorage-operator": [program("moorage-operator")],
            "moorage-gateway": [program("moorage-gateway")],
            "leases": [lease(3)],
            "llmdeployments.moorage.dev": [],
            "apiservices.apiregistration.k8s.io": [
                registration("v1beta1.metrics.k8s.io", "kube-system/metrics-server")
            ],
        }
        self.refused = ""
        self.kinds = set()

    def read(self, *arguments):
        if arguments == ("version",):
            return {"serverVersion": {"gitVersion": "v1.34.4"}}
        key = arguments[1] if arguments[1] in self.lists else arguments[-1].split("=")[-1]
        if isinstance(self.lists[key], str):
            raise KubectlError(self.lists[key])
        return {"items": self.lists[key]}

    def serves(self, resource):
        return resource.kind in self.kinds

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
    assert len(list(doctor.examine(installation))) == 17


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
    "metrics of another": (
        "apiservices.apiregistration.k8s.io",
        [registration("v1beta1.custom.metrics.k8s.io", "monitoring/prometheus-adapter")],
        "warn metrics",
        "is served by monitoring/prometheus-adapter, which is not Moorage: autoscaled models have only CPUUtilization;",
    ),
    "metrics that nobody answers for": (
        "apiservices.apiregistration.k8s.io",
        [registration(status="False", message="no endpoints")],
        "FAIL metrics",
        "(no endpoints): nothing is scaled, and no namespace can be deleted; kubectl logs -n moorage-system deploy/",
    ),
    "no right to see who serves metrics": (
        "apiservices.apiregistration.k8s.io",
        "Error from server (Forbidden): no",
        "warn metrics",
        "ask whoever runs the cluster",
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


def test_the_right_to_see_a_kind_is_looked_at_where_the_cluster_has_it(installation):
    before = len(list(doctor.examine(installation)))
    installation.kinds.add("LeaderWorkerSet")
    checks = list(doctor.examine(installation))
    assert len(checks) == before + 1
    assert "list leaderworkersets.leaderworkerset.x-k8s.io" in [one.found for one in checks]


def test_a_model_that_is_stuck_is_named(installation, ended):
    installation.lists["llmdeployments.moorage.dev"] = [ended("RolledBack", stalled="True")]
    assert wrong(installation) == [("warn", "models", "chat: RolledBack: what RolledBack means")]


def autoscaled(status="True", reason="MetricsFound", **metadata):
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "1 of 1.", "observedGeneration": 1}
    scaling = {"type": "ScalingActive", "status": status, "reason": reason, "message": "in words"}
    metadata = {"name": "chat", "namespace": "team-a", "generation": 1, **metadata}
    return {"metadata": metadata, "spec": {"autoscaling": {"x": 1}}, "status": {"conditions": [ready, scaling]}}


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ("True", "MetricsFound", []),
        ("Unknown", "MetricsAwaited", []),
        ("False", "ScalingDisabled", []),  # a person has stopped it
        ("False", "MetricsMissing", [("warn", "models", "chat does not scale: MetricsMissing: in words")]),
    ],
)
def test_a_model_that_does_not_scale_is_named(installation, status, reason, told):
    installation.lists["llmdeployments.moorage.dev"] = [autoscaled(status, reason)]
    installation.lists["apiservices.apiregistration.k8s.io"] = [registration()]
    assert wrong(installation) == told


def test_metrics_that_are_wanted_and_not_registered(installation):
    installation.lists["llmdeployments.moorage.dev"] = [autoscaled()]
    ((grade, subject, found),) = wrong(installation)
    assert (grade, subject) == ("warn", "metrics")
    assert found.endswith("is not registered, so nothing is scaled; ScalingActive of chat says why")
