"""Replicas of several pods along the same random ways, and where nodes of some of their pods are lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_ways import EVENTS, STRATEGIES, Trajectory
from tests.rollout_world import GROUP_KINDS, OTHER

TRAJECTORIES = 400
SHARDINGS = st.sampled_from(
    (
        {"tensorParallel": 2, "pods": 2},
        {"tensorParallel": 2, "pods": 2},
        {"tensorParallel": 6, "pods": 3},
        {"tensorParallel": 2, "pods": 1},
        None,
    )
)
WAYS = st.one_of(
    EVENTS,
    EVENTS,
    EVENTS,
    st.tuples(st.just("strand"), st.integers(0, 5)),
    st.tuples(st.just("shard"), SHARDINGS),
    st.tuples(st.just("install")),
)
counted = []


class Sharded(Trajectory):
    """A world whose replicas may be several pods."""

    def shard(self, sharding):
        self.spec(sharding=sharding)

    def install(self):
        """LeaderWorkerSets: from now on the cluster has them."""
        self.group_kind = "LeaderWorkerSet"

    def schedule(self):
        """As unlucky as can be: a pod of each group first, so that many groups are in part on nodes."""
        self.pods.sort(key=lambda pod: pod.index)
        super().schedule()

    @property
    def several(self):
        return (self.deployment["spec"].get("sharding") or {}).get("pods", 1) > 1

    def groups(self, number):
        """Names of a revision's groups."""
        labels = {name: one["metadata"]["labels"] for (kind, name), one in self.objects.items() if kind in GROUP_KINDS}
        return [name for name, each in labels.items() if each["moorage.dev/revision"] == str(number)]


@settings(max_examples=TRAJECTORIES)
@given(STRATEGIES, SHARDINGS, st.integers(1, 4), st.lists(WAYS, min_size=2, max_size=16))
def test_every_way_keeps_the_promise_in_whole_groups(rollout, sharding, replicas, events):
    world = Sharded(replicas=replicas, rollout=rollout)
    world.shard(sharding)
    if len(events) % 3:
        world.settle()
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.settle()

    stable, wanted, status = world.status["revision"]["stable"], world.wanted, world.status
    assert world.weights[stable] == 100
    assert status["replicas"] == status["readyReplicas"] == wanted
    assert len(world.groups(stable)) == (wanted if world.several else 0)
    selector = world.objects["Service", "chat"]["spec"]["selector"]
    assert selector["moorage.dev/revision"] == str(stable)
    assert ("apps.kubernetes.io/pod-index" in selector) == world.several
    assert ("apps.kubernetes.io/pod-index" in status["selector"]) == world.several
    budget = world.objects.get(("PodDisruptionBudget", "chat"))
    assert (budget is not None) == (wanted > 1)
    pods = len([pod for pod in world.pods if pod.revision == stable])
    assert budget is None or budget["spec"].get("minAvailable", pods - 1) == pods - 1
    assert world.step() == 0, "at rest there is nothing to do"
    counted.append(len(events))


@settings(max_examples=40)
@given(SHARDINGS, SHARDINGS, st.integers(0, 3))
def test_what_ranks_find_each_other_by_is_there_as_long_as_they_are(before, after, replicas):
    world = Sharded(replicas=replicas)
    world.shard(before)
    world.settle()
    ever = world.several
    world.shard(after)
    world.edit(OTHER)
    for _ in range(60):
        world.tick()
        if any(pod.size > 1 for pod in (*world.pods, *world.ending)):
            assert {("Service", "chat-ranks"), ("NetworkPolicy", "chat-ranks")} <= set(world.objects)
    world.settle()
    left = {kind for kind, name in world.objects if name == "chat-ranks"}
    assert left == ({"Service", "NetworkPolicy"} if ever or world.several else set())


@settings(max_examples=100)
@given(st.integers(2, 3), st.integers(1, 4), st.integers(1, 12))
def test_however_few_nodes_there_are_as_many_groups_as_fit_become_whole(pods, replicas, room):
    """Each waits for nodes that others hold only for so long: all together they might hold all, and none be whole."""
    world = Sharded(replicas=replicas)
    world.shard({"tensorParallel": pods, "pods": pods})
    world.room = room
    whole = min(replicas, room // pods)
    world.until(lambda: bool(world.status) and world.status["readyReplicas"] == whole, rounds=200)
    for _ in range(60):
        world.tick(6)
        assert world.status["readyReplicas"] == whole, "and it stays so"


def test_so_many_ways_were_gone():
    print(f"\n{len(counted)} trajectories, {sum(counted)} events")  # noqa: T201 - the figure that this test is about
    assert len(counted) >= TRAJECTORIES
