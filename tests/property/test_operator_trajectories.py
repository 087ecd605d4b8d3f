"""Rollouts along random ways: edits, failures, reverts, shortages, gateway outages, actions, deaths, lost statuses.

`World` checks at every write that the promised replicas stay; here is where the ways end: at what spec asks for.
"""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_laws import LawfulWorld
from tests.rollout_world import CRASHING, FAILING, FULL, GOOD, OTHER, SLOW, STUCK

TRAJECTORIES = 2000
GATES = [{"metric": "ErrorRate", "max": "5%", "minRequests": 50}]
REGRESSION = [*GATES, {"metric": "TimeToFirstTokenP95", "maxRegression": "50%", "minRequests": 50}]
STRATEGIES = st.sampled_from(
    (
        {},
        {"gates": GATES},
        {"maxSurge": 2, "maxUnavailable": 1, "progressDeadline": "100s"},
        {"maxSurge": "50%", "maxUnavailable": "34%"},
        {"maxSurge": 0, "maxUnavailable": "25%"},
        {"maxSurge": 0, "maxUnavailable": 1, "keepWarm": {"replicas": 1, "for": "30s"}},
        {"strategy": "Canary", "steps": [{"weight": 10, "hold": "5s"}, {"weight": 60}], "gates": REGRESSION},
        {"strategy": "Canary", "steps": [{"weight": 50}], "keepWarm": {"replicas": 2, "for": "1m"}},
        {"strategy": "Canary", "steps": [{"weight": 20}], "progressDeadline": "2m"},
        {"strategy": "BlueGreen", "gates": REGRESSION, "keepWarm": {"for": "10s"}},
        {"strategy": "BlueGreen", "autoRollback": False, "gates": GATES},
    )
)
IMAGES = st.sampled_from((GOOD, OTHER, OTHER, CRASHING, SLOW, FAILING, STUCK))
ACTIONS = st.sampled_from(("promote", "abort", "pause", "resume", "retry", "restart"))
SAYINGS = st.sampled_from(
    (
        FULL,
        "0/2 nodes are available: 2 Insufficient amd.com/gpu.",
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.",
        "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
    )
)
GIVEN = st.sampled_from((None, {"count": 1, "minMemory": "40Gi"}, {"resource": "amd.com/gpu", "count": 9}))
PLACES = st.sampled_from(
    (
        [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["40Gi"]}],
        [{"key": "zone", "operator": "Beside", "values": None}, "anywhere"],
        None,
    )
)
EVENTS = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 4)),
    *[st.tuples(st.just(name)) for name in ("run", "start", "serve", "sync")],
    *[st.tuples(st.just("ticks"), st.integers(1, 5))] * 4,
    st.tuples(st.just("sync"), st.integers(0, 1)),
    st.tuples(st.just("fail"), st.integers(0, 5)),
    *[st.tuples(st.just("edit"), IMAGES)] * 2,
    st.tuples(st.just("scale"), st.integers(0, 4)),
    st.tuples(st.just("strategy"), STRATEGIES),
    st.tuples(st.just("wait"), st.sampled_from((1, 6, 70, 1000))),
    st.tuples(st.just("act"), ACTIONS),
    st.tuples(st.just("back"), st.integers(1, 4)),
    st.tuples(st.just("forward")),
    st.tuples(st.just("spoil")),
    st.tuples(st.just("nodes"), st.integers(1, 6), SAYINGS),
    st.tuples(st.just("accelerate"), GIVEN),
    st.tuples(st.just("place"), PLACES),
    st.tuples(
        st.just("at_zero"),
        st.one_of(
            st.tuples(st.just("strategy"), STRATEGIES),
            st.tuples(st.just("act"), ACTIONS),
            st.tuples(st.just("edit"), IMAGES),
            st.tuples(st.just("back"), st.integers(1, 4)),
            st.tuples(st.just("lose_status")),
        ),
    ),
    st.tuples(st.just("silence"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("lag"), st.integers(0, 1)),
    st.tuples(st.just("restart_gateway"), st.integers(0, 1)),
    st.tuples(st.just("lose_status")),
)
counted = []


class Trajectory(LawfulWorld):
    """A world in which the events above can happen."""

    def scale(self, replicas):
        self.spec(replicas=replicas)

    def strategy(self, rollout):
        self.spec(rollout=rollout)

    def back(self, number):
        self.spec(rollbackTo={"revision": number})

    def forward(self):
        self.spec(rollbackTo=None)

    def spoil(self):
        self.spec(model={"source": "ftp://nowhere"})

    def nodes(self, room, says):
        self.room, self.scheduler_says = room, says

    def accelerate(self, given):
        self.spec(accelerator=given)

    def place(self, expressions):
        required = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        self.spec(podTemplate={"spec": {"affinity": affinity}})

    def at_zero(self, event):
        """Something happens in a night without replicas."""
        replicas = self.wanted
        self.scale(0)
        self.ticks(2)
        name, *arguments = event
        getattr(self, name)(*arguments)
        self.ticks(2)
        self.scale(replicas)

    def act(self, verb):
        given_up = next((number for number, role in self.roles().items() if role == "failed"), None)
        super().act(verb, given_up if verb == "retry" else None, nonce=str(self.count))

    def silence(self, which, answering):
        super().silence(which, answering=answering)

    def ticks(self, count):
        for _ in range(count):
            self.tick()

    def lag(self, which):
        self.lagging = {which}

    def mend(self):
        """People and machines repair what is broken."""
        self.room = 100
        self.lagging = set()
        for gateway in self.gateways:
            gateway.answering = True
        metadata = {name: value for name, value in self.deployment["metadata"].items() if name != "annotations"}
        self.deployment = {**self.deployment, "metadata": metadata}
        rollout = {**self.deployment["spec"].get("rollout", {}), "paused": False}
        if any(role == "stable" and self.image_of(one) in (CRASHING, STUCK) for one, role in self.roles().items()):
            rollout["gates"] = []  # it came without replicas, and nothing can be compared with what never served
        self.spec(
            model={"source": "python://model==1"},
            engine={"image": "engine:new"},
            accelerator=None,
            podTemplate=None,
            rollout=rollout,
            rollbackTo=None,
        )


@settings(max_examples=TRAJECTORIES)
@given(STRATEGIES, st.integers(1, 4), st.lists(EVENTS, min_size=2, max_size=16))
def test_every_way_keeps_the_promise_and_ends_where_spec_wants(rollout, replicas, events):
    world = Trajectory(replicas=replicas, rollout=rollout)
    if len(events) % 3:
        world.settle()
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.settle()

    spec, status = world.deployment["spec"], world.status
    stable = status["revision"]["stable"]
    assert "candidate" not in status["revision"]
    assert world.image_of(stable) == "engine:new"
    assert world.weights[stable] == 100
    assert status["replicas"] == status["readyReplicas"] == spec["replicas"]
    roles = world.roles()
    assert [number for number, role in roles.items() if role == "stable"] == [stable]
    assert set(roles.values()) <= {"stable", "warm", "retired"}
    assert world.step() == 0, "at rest there is nothing to do"
    counted.append(len(events))


@settings(max_examples=100)
@given(STRATEGIES, st.integers(1, 4), st.lists(EVENTS, max_size=6))
def test_a_candidate_that_never_comes_up_is_given_up_when_its_time_is_over(rollout, replicas, events):
    world = Trajectory(replicas=replicas, rollout=rollout)
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.spec(replicas=max(1, world.wanted))
    world.settle()
    stable = world.status["revision"]["stable"]
    world.roll(progressDeadline="60s", autoRollback=True)
    world.edit(f"{STUCK}-at-last")
    begun = world.now
    world.until(lambda: world.ready[1] == "RolledBack")
    assert "ProgressDeadlineExceeded" in world.message
    assert timedelta(seconds=60) <= world.now - begun <= timedelta(seconds=70)
    assert world.weights[stable] == 100


@settings(max_examples=40)
@given(STRATEGIES, st.integers(1, 5), st.integers(0, 3))
def test_replicas_that_come_one_after_the_other_in_time_are_waited_for(rollout, replicas, pauses):
    """Each takes three quarters of the deadline, and pauses, which count for nothing, are longer than it."""
    world = Trajectory(replicas=replicas, rollout={**rollout, "gates": [], "progressDeadline": "60s"})
    world.settle()
    world.edit(OTHER)
    for _ in range(40):
        world.run()
        if pauses and world.status["revision"].get("candidate"):
            pauses -= 1
            world.act("pause")
            world.run()
            world.wait(100)
            world.act("resume")
            world.run()
        world.wait(45)
        world.start()
        world.sync()
        world.serve()
    world.settle()
    assert world.weights[2] == 100
    assert world.roles()[2] == "stable"


def test_so_many_ways_were_gone():
    print(f"\n{len(counted)} trajectories, {sum(counted)} events")  # noqa: T201 - the figure that this test is about
    assert len(counted) >= TRAJECTORIES
