"""Which specs are the same revision, which record counts, and which records go."""

from dataclasses import replace

import pytest

from moorage_api.llmdeployment import Spec
from moorage_operator.plan import revisions as revs
from moorage_operator.plan.divide import percentages
from moorage_operator.plan.planner import plan
from moorage_operator.plan.situation import situation

ROLE_SINCE, PROMOTED = "moorage.dev/role-since", "moorage.dev/promoted"
BASE = {
    "model": {"source": "python://model==1"},
    "engine": {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
    "accelerator": {"products": ["X", "Y"], "minMemory": "1Gi"},
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
}


def chosen(make, spec, recorded=BASE):
    """The number that is chosen for `spec` when `recorded` is revision 1."""
    snapshot = make.running(make.deployment(**recorded))
    found = situation(replace(snapshot, deployment=make.deployment(**spec)), make.context)
    return found.target.number


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"replicas": 7},
        {"model": {"source": "python://model==1", "servedName": "other"}},
        {"model": {"source": "python://model==1", "quantization": "None"}},
        {"resources": {"requests": {"cpu": "1000m"}, "limits": {"memory": "1024Mi"}}},
        {
            "engine": {
                "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
                "scheduling": {"policy": "FCFS", "maxRunning": 64},
            }
        },
        {"accelerator": {"resource": "nvidia.com/gpu", "count": 1, "products": ["Y", "X"], "minMemory": "1024Mi"}},
    ],
)
def test_a_spec_that_means_the_same_is_the_same_revision(make, change):
    assert chosen(make, {**BASE, **change}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"source": "python://model==2"}},
        {"model": {"source": "python://model==1", "contextLength": 10}},
        {"engine": {"image": "x:1"}},
        {"engine": {"env": [{"name": "A", "value": "2"}]}},
        {"engine": {**BASE["engine"], "scheduling": {"maxRunning": 65}}},
        {"engine": {**BASE["engine"], "scheduling": {"policy": "MLFQ"}}},
        {"model": {"source": "python://model==1", "quantization": "Int8"}},
        {"accelerator": {"products": ["X"], "minMemory": "1Gi"}},
        {"accelerator": {"products": ["X", "Y"], "minMemory": "2Gi"}},
        {"resources": {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}},
        {"resources": {"limits": {"memory": "1Gi"}}},
    ],
)
def test_another_replica_is_another_revision(make, change):
    assert chosen(make, {**BASE, **change}) == 2


def test_what_is_recorded_can_be_read_again():
    spec = Spec.model_validate(BASE)
    makings = revs.makings_of(spec)
    assert "replicas" not in makings
    assert Spec.model_validate(makings).engine == spec.engine


def test_another_default_image_makes_no_revision_and_changes_no_template(make):
    snapshot = make.running(make.deployment(), make.ready())
    newer = replace(make.context, runtime_image="moorage/runtime:2")
    workloads = [one.manifest for one in plan(snapshot, newer).applies if one.manifest["kind"] == "Deployment"]
    assert [one["spec"]["template"]["spec"]["containers"][0]["image"] for one in workloads] == ["moorage/runtime:1"]


def test_a_record_from_before_fields_and_flags_were_there_is_the_same_revision_and_keeps_its_pods(make):
    snapshot = make.running(make.deployment(), make.ready())
    record = snapshot.children["ControllerRevision"][0]
    template = record["data"]["template"] | {"metadata": {"annotations": {"rendered-by": "an earlier version"}}}
    earlier = {**record, "data": {"spec": {"model": {"source": "python://model==1"}}, "template": template}}
    snapshot = replace(snapshot, children={**snapshot.children, "ControllerRevision": (earlier,)})
    workloads = [one.manifest for one in plan(snapshot, make.context).applies if one.manifest["kind"] == "Deployment"]
    assert [one["metadata"]["name"] for one in workloads] == ["chat-r1"]
    assert workloads[0]["spec"]["template"] == template


def labelled(make, number, role, since, promoted=0):
    found = make.running(make.deployment()).children["ControllerRevision"][0]
    labels = {**found["metadata"]["labels"], "moorage.dev/revision": str(number), "moorage.dev/role": role}
    said = {ROLE_SINCE: since, PROMOTED: f"2026-01-{promoted:02}T12:00:00Z" if promoted else ""}
    metadata = {**found["metadata"], "name": f"chat-r{number}", "labels": labels, "annotations": said}
    data = {**found["data"], "spec": {"model": {"source": f"python://model-{number}"}}}
    return {**found, "metadata": metadata, "data": data}


def test_of_two_stable_records_the_later_one_counts(make):
    records = (labelled(make, 1, "stable", "2026-01-01T01:00:00Z"), labelled(make, 2, "stable", "2026-01-01T02:00:00Z"))
    assert revs.stable_among(revs.recorded(records), None).number == 2


def test_without_labels_the_reported_revision_counts(make):
    records = (labelled(make, 1, "", ""), labelled(make, 2, "", ""))
    assert revs.stable_among(revs.recorded(records), 1).number == 1
    assert revs.stable_among(revs.recorded(records), None) is None


def test_a_number_never_comes_twice(make):
    snapshot = make.snapshot(make.deployment(), labelled(make, 41, "retired", "2026-01-01T01:00:00Z"))
    assert situation(snapshot, make.context).target.number == 42


def test_of_the_history_goes_what_never_served_and_then_what_served_longest_ago(make):
    records = [labelled(make, n, "retired", f"2026-01-{n + 1:02}T00:00:00Z", n % 6) for n in range(1, 13)]
    recorded = revs.recorded(records)
    assert [one.number for one in revs.prunable(recorded, frozenset(), 10)] == [6, 1], "12 is the newest number"
    assert [one.number for one in revs.prunable(recorded, frozenset({6}), 10)] == [1, 7]
    assert [one.number for one in revs.prunable(recorded, frozenset(), 12)] == []


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ({1: 1}, {1: 100}),
        ({1: 2, 2: 1}, {1: 67, 2: 33}),
        ({1: 1, 2: 1, 3: 1}, {1: 34, 2: 33, 3: 33}),
        ({1: 99, 2: 1}, {1: 99, 2: 1}),
    ],
)
def test_percentages(counts, shares):
    assert percentages(counts) == shares
