"""A model that may go to zero along random ways: requests come and go, gateways do, and all else happens, too.

`ZeroWorld` checks at every write that it falls asleep and wakes by the law; here is where the ways end: at zero, with
what spec asks for as the stable revision, and awake again at the next request.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_ways import EVENTS, STRATEGIES, Trajectory
from tests.zero_world import ZeroWorld

TRAJECTORIES = 1000
DEMAND = st.one_of(
    EVENTS,
    *[st.tuples(st.just("ask"), st.integers(0, 1), st.integers(1, 3))] * 3,
    *[st.tuples(st.just("end"))] * 2,
    *[st.tuples(st.just("quiet"), st.sampled_from((60, 130, 130, 1100)))] * 3,
    st.tuples(st.just("unready"), st.integers(0, 1)),
    *[st.tuples(st.just("night"), st.integers(0, 1), st.sampled_from((130, 400)))] * 2,
    st.tuples(st.just("outage"), st.sampled_from((10, 200))),
)
counted = []


class Ways(Trajectory, ZeroWorld):
    """A world in which the events above can happen."""

    def outage(self, duration):
        """All gateways are gone for a while, and come back having counted nothing."""
        for gateway in self.gateways:
            gateway.answering = False
        slept = self.asleep
        for _ in range(duration // 10):
            self.tick(10, traffic=False)
        if not slept and not self.stopped:
            assert not self.asleep, "nobody knows whether somebody asks"
        for which in range(len(self.gateways)):
            self.restart_gateway(which)

    def night(self, which, duration):
        """One gateway says nothing for so long; the others have no request."""
        self.silence(which, answering=False)
        self.quiet(duration)
        self.silence(which, answering=True)

    def mend(self):
        super().mend()
        for gateway in self.gateways:
            gateway.ready = True
        if self.stopped:
            self.spec(replicas=1)


@settings(max_examples=TRAJECTORIES)
@given(STRATEGIES, st.integers(1, 3), st.lists(DEMAND, min_size=2, max_size=16))
def test_every_way_ends_at_zero_and_the_next_request_wakes_what_spec_asks_for(rollout, replicas, events):
    world = Ways(replicas=replicas, rollout=rollout)
    if len(events) % 3:
        world.settle()
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.settle()

    stable = world.status["revision"]["stable"]
    assert world.image_of(stable) == "engine:new"
    assert "candidate" not in world.status["revision"]
    assert world.status["ready"] == "0/0"
    assert world.weights[stable] == 100
    assert world.step() == 0, "at rest there is nothing to do"
    world.ask(1)
    world.run()
    assert world.workloads()[stable] >= 1
    world.until(lambda: world.ready == ("True", "Serving"), traffic=False)
    counted.append(len(events))


def test_so_many_ways_were_gone():
    print(f"\n{len(counted)} trajectories, {sum(counted)} events")  # noqa: T201 - the figure that this test is about
    assert len(counted) >= TRAJECTORIES
