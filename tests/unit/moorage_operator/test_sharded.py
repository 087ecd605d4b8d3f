"""Replicas of several pods along rollouts, restarts and losses: always whole ones."""

import pytest

from moorage_api.reading import parse
from moorage_operator.plan.planner import plan
from moorage_operator.plan.revisions import makings_of, meant_by, recorded
from tests.rollout_world import CRASHING, OTHER, World, replicas_of

TWO = {"tensorParallel": 2, "pods": 2}
THREE = {"tensorParallel": 6, "pods": 3}


def world(replicas=2, sharding=TWO, **more):
    made = World(replicas=replicas, **({"sharding": sharding} if sharding else {}), **more)
    made.settle()
    return made


def groups(made, made_as="StatefulSet"):
    return sorted(name for kind, name in made.objects if kind == made_as)


def whole(made):
    """How many replicas answer."""
    return sum(one.ready for one in replicas_of(made.pods))


def test_each_replica_is_a_group(make):
    made = world(replicas=3)
    assert groups(made) == ["chat-r1-0", "chat-r1-1", "chat-r1-2"]
    assert len(made.pods) == 6
    assert (made.status["replicas"], made.status["readyReplicas"], made.status["ready"]) == (3, 3, "3/3")
    assert made.ready == ("True", "Serving")
    assert made.message == "3 of 3 replicas answer requests."
    assert made.status["selector"].startswith("app.kubernetes.io/managed-by=moorage,apps.kubernetes.io/pod-index=0,")


def test_where_the_cluster_has_leaderworkersets_new_groups_are_such_and_others_stay():
    made = world(replicas=2)
    made.group_kind = "LeaderWorkerSet"
    made.settle()
    assert groups(made) == ["chat-r1-0", "chat-r1-1"]
    made.spec(replicas=3)
    made.settle()
    assert groups(made) == ["chat-r1-0", "chat-r1-1"]
    assert groups(made, "LeaderWorkerSet") == ["chat-r1-2"]
    assert made.status["ready"] == "3/3"
    made.group_kind = "StatefulSet"
    made.edit(OTHER)
    made.settle()
    assert (groups(made), groups(made, "LeaderWorkerSet")) == (["chat-r2-0", "chat-r2-1", "chat-r2-2"], [])
    assert made.status["ready"] == "3/3"


def test_a_restart_replaces_leaderworkersets_too():
    made = World(replicas=2, sharding=TWO)
    made.group_kind = "LeaderWorkerSet"
    made.settle()
    before = groups(made, "LeaderWorkerSet")
    made.act("restart", 1)
    made.settle()
    after = groups(made, "LeaderWorkerSet")
    assert len(after) == len(before) == 2
    assert not set(after) & set(before)


def test_what_ranks_need_is_there_before_them():
    made = World(replicas=1, sharding=TWO)
    kinds = [apply.manifest["kind"] for apply in made.decide().applies]
    assert kinds == ["ControllerRevision", "NetworkPolicy", "Service", "StatefulSet", "Service"]


def test_scaled_by_whole_groups_the_latest_first():
    made = world(replicas=3)
    made.spec(replicas=1)
    made.settle()
    assert groups(made) == ["chat-r1-0"]
    assert len(made.pods) == 2
    made.spec(replicas=0)
    made.settle()
    assert groups(made) == []
    assert made.ready == ("True", "ScaledToZero")
    made.spec(replicas=1)
    made.settle()
    assert made.status["ready"] == "1/1"


def test_a_rolling_update_replaces_group_by_group():
    made = world()
    made.edit(OTHER)
    seen, fewest = [], 9
    for _ in range(60):
        made.tick()
        fewest = min(fewest, whole(made))
        if not seen or seen[-1] != made.there():
            seen.append(made.there())
    assert seen == [{1: 2, 2: 1}, {1: 1, 2: 2}, {2: 2}]
    assert fewest == 2
    made.settle()
    assert groups(made) == ["chat-r2-0", "chat-r2-1"]


@pytest.mark.parametrize(("before", "after"), [(None, TWO), (TWO, None), (TWO, THREE)])
def test_the_way_from_one_sharding_to_another_is_a_rollout(before, after):
    made = world(sharding=before)
    made.spec(sharding=after)
    for _ in range(60):
        made.tick()
        assert whole(made) >= 2
    made.settle()
    assert made.status["revision"] == {"stable": 2}
    assert ("Deployment", "chat-r2") in made.objects or after is not None
    assert len(groups(made)) == (2 if after is not None else 0)
    assert ("NetworkPolicy", "chat-ranks") in made.objects, "no right to delete policies is asked for that"


def test_a_lost_pod_takes_its_group_out_and_leaves_the_others():
    made = world()
    made.fail(0)
    made.sync()
    made.run()
    assert made.status["readyReplicas"] == 1
    assert made.ready == ("False", "Scaling")
    assert made.weights == {1: 100}
    assert groups(made) == ["chat-r1-0", "chat-r1-1"], "its ranks meet again by themselves"
    made.settle()


def test_a_group_with_a_pod_on_a_lost_node_is_replaced():
    made = world()
    made.strand(1)
    made.run()
    assert groups(made) == ["chat-r1-1", "chat-r1-2"], "its name is taken for as long as nobody ends the pod"
    made.settle()
    assert made.status["ready"] == "2/2"
    made.wait(1000)
    made.settle()
    assert groups(made) == ["chat-r1-1", "chat-r1-2"]


def budget(made):
    found = made.objects.get(("PodDisruptionBudget", "chat"))
    return found and {key: value for key, value in found["spec"].items() if key != "selector"}


def test_evictions_are_counted_in_pods_of_the_groups_that_shall_be_there():
    """Never in those of their workloads: one that was let go has none any more, and then none would be allowed."""
    made = world(sharding=THREE)
    assert budget(made) == {"minAvailable": 5, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    made.spec(replicas=3)
    made.settle()
    assert budget(made)["minAvailable"] == 8
    made.spec(replicas=1)
    made.settle()
    assert budget(made) is None, "it would block every drain"
    made.spec(replicas=2, sharding=None)
    made.settle()
    assert budget(made) == {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}


def test_a_restart_replaces_groups_beside_what_serves():
    made = world()
    made.act("restart", 1)
    fewest, most = 9, 0
    for _ in range(40):
        made.tick()
        fewest, most = min(fewest, whole(made)), max(most, len(groups(made)))
    assert (fewest, most) == (2, 3)
    made.settle()
    restarted = {
        name: one["spec"]["template"]["metadata"]["annotations"].get("moorage.dev/restarted")
        for (kind, name), one in made.objects.items()
        if kind == "StatefulSet"
    }
    assert len(restarted) == 2
    assert all(restarted.values())
    assert made.status["revision"] == {"stable": 1}


def test_a_restart_in_the_middle_of_a_rollout_keeps_the_promise():
    """`World` checks it at each write; both would else take what may be unavailable."""
    made = world(replicas=3, rollout={"maxSurge": 1, "maxUnavailable": 1})
    made.edit(OTHER)
    made.tick()
    made.tick()
    made.tick()
    made.act("restart", 1)
    for _ in range(60):
        made.tick()
        assert whole(made) >= 2
    made.settle()


def test_a_candidate_whose_ranks_crash_is_given_up():
    made = world()
    made.edit(CRASHING)
    made.until(lambda: made.ready[1] == "RolledBack")
    assert "chat-r2-0-0: boom" in made.message
    assert whole(made) == 2
    made.run()
    assert made.weights[1] == 100


def test_a_group_without_room_for_all_of_its_pods_says_so_and_gives_up_nothing():
    made = world(replicas=1, accelerator={"count": 1})
    made.room = 3
    made.edit(OTHER)
    made.tick(20)
    made.tick(20)
    assert made.ready == ("False", "WaitingForGPU")
    assert made.message.startswith("Revision 2: Needs 1 x nvidia.com/gpu for each of 2 pods; ")
    assert " chat-r2-0-1: 0/2 nodes are available: " in made.message
    assert made.condition("Available") == "True"
    made.wait(3000)
    made.run()
    assert made.status["revision"] == {"stable": 1, "candidate": 2}, "a lack of room marks no revision"
    made.room = 4
    made.settle()
    assert made.status["revision"] == {"stable": 2}


def test_without_room_for_a_group_beside_them_one_gives_way():
    made = world(replicas=2, accelerator={"count": 1})
    made.room = 4
    made.edit(OTHER)
    made.until(lambda: made.status["revision"] == {"stable": 2})
    made.settle()
    assert made.there() == {2: 2}


def half_each(**edit):
    """A canary in which the third group of the stable revision and the first of the candidate have one node each."""
    made = world(replicas=2, accelerator={"count": 1}, rollout={"strategy": "Canary", "steps": [{"weight": 10}]})
    made.room = 6
    made.spec(engine={"image": OTHER}, **edit)
    made.run()
    made.spec(replicas=3)
    made.run()
    assert made.there() == {1: 3, 2: 1}
    waiting = [pod for pod in made.pods if not pod.scheduled]
    for pod in waiting:
        pod.scheduled = pod.index == 0
    return made


def test_of_two_revisions_that_wait_for_each_others_nodes_the_later_one_gives_way():
    made = half_each()
    made.until(lambda: made.status["revision"] == {"stable": 1, "candidate": 2} and whole(made) == 3, seconds=6.0)
    assert {pod.revision for pod in made.pods if pod.ready} == {1}
    assert made.ready == ("False", "WaitingForGPU")
    made.room = 12
    made.until(lambda: made.status["revision"] == {"stable": 2})


def test_what_waits_for_other_nodes_gives_way_to_nobody():
    made = half_each(podTemplate={"spec": {"nodeSelector": {"pool": "new"}}})
    for _ in range(40):
        made.tick(6)
    assert {pod.workload for pod in made.pods if pod.revision == 2} == {"chat-r2-0"}


def test_what_somebody_else_has_is_not_touched():
    made = World(replicas=1, sharding=TWO)
    stranger = {
        "kind": "Service",
        "metadata": {"name": "chat-ranks", "namespace": "team", "labels": {"moorage.dev/deployment": "chat"}},
    }
    made.objects["Service", "chat-ranks"] = stranger
    decided = made.decide()
    assert (decided.applies, decided.deletes) == ((), ())
    ready = next(one for one in decided.status["conditions"] if one["type"] == "Ready")
    assert ready["message"].startswith("Service chat-ranks exists and belongs to somebody else")


def test_pods_of_a_deleted_namesake_keep_their_names(make):
    """They finish their answers, and their StatefulSet is gone already."""
    old = make.member(0, group=0, born="2026-01-01T09:00:00Z", metadata={"deletionTimestamp": "2026-01-01T12:04:00Z"})
    decided = plan(make.snapshot(make.deployment(sharding=TWO), old), make.context)
    sets = [one.manifest for one in decided.applies if one.manifest["kind"] == "StatefulSet"]
    assert [one["metadata"]["name"] for one in sets] == ["chat-r1-1"]


def test_the_controllers_own_records_of_groups_are_no_revisions(make):
    deployment = make.deployment(sharding=TWO)
    snapshot = make.running(deployment)
    (group,) = snapshot.children["StatefulSet"]
    controllers = {
        "kind": "ControllerRevision",
        "metadata": {
            "name": "chat-r1-0-5d8f7c",
            "labels": group["metadata"]["labels"],
            "ownerReferences": [{"kind": "StatefulSet", "name": "chat-r1-0", "uid": "s1", "controller": True}],
        },
        "data": {"spec": {"template": {}}},
        "revision": 1,
    }
    records = (*snapshot.children["ControllerRevision"], controllers)
    with_it = type(snapshot)(deployment, {**snapshot.children, "ControllerRevision": records}, snapshot.now)
    assert plan(with_it, make.context) == plan(snapshot, make.context)


# The revision


def spec_of(make, **spec):
    return parse(make.deployment(**spec)).deployment.spec


def test_a_revision_of_before_the_field_means_one_rank_in_one_pod(make):
    old = make.running(make.deployment()).children["ControllerRevision"]
    assert "sharding" not in old[0]["data"]["spec"], "as earlier versions have written it"
    known = recorded(old)
    assert meant_by(known, spec_of(make)) is known[0]
    assert meant_by(known, spec_of(make, sharding={"tensorParallel": 1, "pods": 1})) is known[0]
    assert meant_by(known, spec_of(make, sharding={"tensorParallel": 2})) is None
    assert makings_of(spec_of(make, sharding=TWO))["sharding"] == TWO


def test_another_number_of_ranks_is_another_revision(make):
    deployment = make.deployment(sharding={"tensorParallel": 2})
    found = recorded(make.running(deployment).children["ControllerRevision"])
    assert meant_by(found, spec_of(make, sharding={"tensorParallel": 2, "pods": 1})) is found[0]
    assert meant_by(found, spec_of(make, sharding=TWO)) is None
    assert meant_by(found, spec_of(make)) is None
