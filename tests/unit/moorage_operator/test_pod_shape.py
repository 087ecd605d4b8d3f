"""What spec.podTemplate adds, what it cannot take away, and how long a start may take."""

import pytest

from moorage_api.llmdeployment import Spec
from moorage_operator.render.context import Context, Owner, Resolved
from moorage_operator.render.pod import pod_template

GPU = {"count": 1, "products": ["NVIDIA-L4"]}
PRODUCT = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-L4"]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def rendered(template, resolved=None, **spec):
    made = Spec.model_validate({"model": {"source": "python://model==1"}, "podTemplate": template, **spec})
    return pod_template(Owner("chat", "team", "u1"), 3, made, Context("runtime:1", "http://gateway"), resolved)


def added(resolved=None, accelerator=None, **pod):
    return rendered({"spec": pod}, resolved, accelerator=accelerator)["spec"]


def test_labels_are_added_and_ours_stay():
    labels = {"team": "a", "moorage.dev/revision": "9"}
    found = rendered({"metadata": {"labels": labels, "annotations": {"note": "x"}}})["metadata"]
    assert found["labels"] == {
        "team": "a",
        "app.kubernetes.io/managed-by": "moorage",
        "moorage.dev/deployment": "chat",
        "moorage.dev/revision": "3",
        "moorage.dev/rank": "0",
    }
    assert found["annotations"] == {"note": "x", "kubectl.kubernetes.io/default-container": "server"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nodeSelector", {"zone": "a"}),
        ("priorityClassName", "high"),
        ("schedulerName", "other"),
        ("runtimeClassName", "nvidia"),
        ("imagePullSecrets", [{"name": "registry"}]),
        ("terminationGracePeriodSeconds", 900),
    ],
)
def test_plain_fields_are_taken_over(field, value):
    assert added(**{field: value})[field] == value


def test_nothing_else_of_a_pod_is_taken_over():
    assert added(hostNetwork=True, serviceAccountName="admin") == added()


def test_tolerations_come_beside_those_of_accelerators():
    keys = [one["key"] for one in added(accelerator=GPU, tolerations=[{"key": "spot"}])["tolerations"]]
    assert keys == ["nvidia.com/gpu", "spot"]


def test_what_accelerators_ask_of_nodes_holds_in_each_of_the_users_alternatives():
    zones = [{"key": "zone", "operator": "In", "values": [zone]} for zone in "ab"]
    theirs = {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [zone]} for zone in zones]}}
    anti = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}
    affinity = added(accelerator=GPU, affinity={"nodeAffinity": theirs, "podAntiAffinity": anti})["affinity"]
    terms = affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [zone, PRODUCT]} for zone in zones]
    assert affinity["podAntiAffinity"] == anti
    alone = added(accelerator=GPU, affinity={"podAntiAffinity": anti})["affinity"]
    assert alone["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] == [{"matchExpressions": [PRODUCT]}]
    assert added(affinity={"podAntiAffinity": anti})["affinity"] == {"podAntiAffinity": anti}


@pytest.mark.parametrize(
    "theirs",
    [
        "anywhere",
        {REQUIRED: {"nodeSelectorTerms": "a"}},
        {REQUIRED: {"nodeSelectorTerms": [None, "a", {"matchExpressions": "a"}]}},
    ],
)
def test_what_is_no_affinity_is_left_to_the_api_server(theirs):
    assert added(accelerator=GPU, affinity={"nodeAffinity": theirs})["affinity"]["nodeAffinity"] == theirs


@pytest.mark.parametrize(
    "theirs", [None, {REQUIRED: None}, {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": None}]}}]
)
def test_an_affinity_that_is_left_empty_asks_for_nothing(theirs):
    affinity = added(accelerator=GPU, affinity={"nodeAffinity": theirs})["affinity"]
    assert affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] == [{"matchExpressions": [PRODUCT]}]


def test_replicas_spread_over_nodes_unless_the_user_says_otherwise():
    assert added()["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    own = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    (found,) = added(topologySpreadConstraints=[own])["topologySpreadConstraints"]
    assert found.pop("labelSelector")["matchLabels"]["moorage.dev/revision"] == "3"
    assert found == own


@pytest.mark.parametrize(
    ("resolved", "seconds"),
    [(None, 3600), (Resolved("hf://o/m@c", 10**6), 600), (Resolved("hf://o/m@c", 300 * 10**9), 10_600)],
)
def test_a_start_may_take_as_long_as_the_model_is_large(resolved, seconds):
    probe = added(resolved)["containers"][0]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == seconds


@pytest.mark.parametrize(("grace", "drain"), [(None, 290), (600, 590), (30, 20), (5, 1)])
def test_answers_end_before_the_kubelet_ends_them(grace, drain):
    command = added(**({} if grace is None else {"terminationGracePeriodSeconds": grace}))["containers"][0]["command"]
    assert command[command.index("--drain-seconds") + 1] == str(drain)
