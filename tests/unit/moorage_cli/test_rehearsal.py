"""What a rollout would do, from what is there."""

from datetime import UTC, datetime

from moorage_cli.rehearsal import Share, rehearse
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTEXT = Context("runtime:1", "")
GATE = {"metric": "TimeToFirstTokenP95", "maxRegression": "20%", "minRequests": 1000}


def serving(image, **spec):
    """Revision 1 serves, and spec asks for `image`."""
    metadata = {"name": "chat", "namespace": "team", "uid": "u1", "generation": 1}
    metadata["creationTimestamp"] = "2026-01-01T10:00:00Z"
    old = {"model": {"source": "python://model==1"}, "engine": {"image": "engine:1"}, "replicas": 2}
    first = {"kind": "LLMDeployment", "metadata": metadata, "spec": old}
    children = [one.manifest for one in plan(Snapshot(first, {}, NOW), CONTEXT).applies]
    children = [
        {**one, "metadata": {**one["metadata"], "creationTimestamp": "2026-01-01T11:00:00Z"}} for one in children
    ]
    record = children[0]["metadata"]
    record["labels"] = {**record["labels"], "moorage.dev/role": "stable"}
    pods = [_pod(f"p{index}") for index in range(2)]
    kinds = {kind: tuple(one for one in [*children, *pods] if one["kind"] == kind) for kind in _kinds(children)}
    status = {"revision": {"stable": 1}, "revisions": [{"number": 1, "weight": 100, "role": "stable", "replicas": 2}]}
    edited = {**first, "metadata": {**metadata, "generation": 2}, "status": status}
    return Snapshot({**edited, "spec": {**old, "engine": {"image": image}, **spec}}, kinds, NOW)


def _kinds(children):
    return {"Pod", *(one["kind"] for one in children)}


def _pod(name):
    labels = {"moorage.dev/deployment": "chat", "moorage.dev/revision": "1"}
    metadata = {"name": name, "uid": name, "namespace": "team", "labels": labels}
    metadata["creationTimestamp"] = "2026-01-01T11:00:00Z"
    return {"kind": "Pod", "metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def weights(rehearsed):
    return [(round(one.seconds), {share.number: share.weight for share in one.shares}) for one in rehearsed.moments]


def test_a_canary_takes_its_holds_and_ends_with_the_new_revision():
    rollout = {"strategy": "Canary", "steps": [{"weight": 5, "hold": "2m"}, {"weight": 50, "hold": "5m"}]}
    done = rehearse(serving("engine:2", rollout=rollout), CONTEXT)
    assert done.settled
    assert done.reason == "Serving"
    steps = dict.fromkeys(str(shares) for _, shares in weights(done))
    assert list(steps) == [str(one) for one in ({1: 100}, {1: 95, 2: 5}, {1: 50, 2: 50}, {1: 0, 2: 100}, {2: 100})]
    reached = {str(shares): seconds for seconds, shares in reversed(weights(done))}
    assert 120 <= reached[str({1: 50, 2: 50})] <= 125
    assert 420 <= reached[str({1: 0, 2: 100})] <= 430


def test_gates_hold_and_a_rolling_update_goes_one_by_one():
    done = rehearse(serving("engine:2", rollout={"gates": [GATE]}), CONTEXT)
    assert done.reason == "Serving"
    assert {1: 50, 2: 50} in [shares for _, shares in weights(done)]
    assert done.moments[-1].shares == (Share(2, "stable", 100, 2),)


def test_what_is_served_already_changes_nothing():
    done = rehearse(serving("engine:1"), CONTEXT)
    assert [one.shares for one in done.moments] == [(Share(1, "stable", 100, 2),)]


def test_a_paused_rollout_is_told_to_stop_there():
    done = rehearse(serving("engine:2", rollout={"paused": True}), CONTEXT)
    assert done.reason == "Paused"
