"""Whatever happens on the way: a revision that its gates would find out never becomes the stable one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_world import FAILING, GOOD, OTHER, SLOW, World

GATES = [
    {"metric": "ErrorRate", "max": "1%", "minRequests": 30},
    {"metric": "TimeToFirstTokenP95", "maxRegression": "50%", "minRequests": 30},
]
STRATEGIES = st.sampled_from(
    (
        {},
        {"maxSurge": 0, "maxUnavailable": 1},
        {"maxSurge": 2},
        {"strategy": "Canary", "steps": [{"weight": 5, "hold": "5s"}, {"weight": 50}]},
        {"strategy": "Canary", "steps": [{"weight": 30}], "keepWarm": {"replicas": 1, "for": "1m"}},
        {"strategy": "BlueGreen", "keepWarm": {"for": "10s"}},
    )
).map(lambda rollout: {**rollout, "gates": GATES})


class Trial(World):
    """A world in which nobody says promote, and nobody goes back by number."""

    def scale(self, replicas):
        self.spec(replicas=replicas)

    def strategy(self, rollout):
        self.spec(rollout=rollout)

    def asked(self, verb):
        if self.status:
            self.act(verb, nonce=str(self.count))

    def restarted(self, which):
        self.wait(1)
        self.restart_gateway(which)

    def silenced(self, which, answering):
        self.silence(which, answering=answering)

    def ticks(self, count, seconds):
        for _ in range(count):
            self.tick(seconds)

    def lag(self, *which):
        self.lagging = set(which)


EVENTS = st.one_of(
    *[st.tuples(st.just("edit"), st.sampled_from((FAILING, SLOW, FAILING, SLOW, GOOD, OTHER)))] * 3,
    *[st.tuples(st.just("ticks"), st.integers(2, 8), st.sampled_from((1, 2, 6, 20)))] * 6,
    st.tuples(st.just("step"), st.integers(0, 3)),
    st.tuples(st.just("strategy"), STRATEGIES),
    st.tuples(st.just("scale"), st.integers(1, 5)),
    st.tuples(st.just("asked"), st.sampled_from(("pause", "resume", "abort", "retry", "restart"))),
    st.tuples(st.just("silenced"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("restarted"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from((1, 6, 70))),
    st.tuples(st.just("fail"), st.integers(0, 4)),
    st.tuples(st.just("lag"), st.integers(0, 1)),
    st.tuples(st.just("lag")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("lose_status")),
)


@settings(max_examples=250)
@given(
    STRATEGIES,
    st.integers(1, 4),
    st.sampled_from((4, 20, 100)),
    st.sampled_from((FAILING, SLOW)),
    st.lists(EVENTS, min_size=4, max_size=20),
)
def test_what_its_gates_would_find_out_is_never_promoted(rollout, replicas, requests, image, events):
    world = Trial(replicas=replicas, rollout=rollout)
    world.requests = requests
    world.settle()
    world.edit(image)
    for name, *arguments in events:
        getattr(world, name)(*arguments)
        stable = world.status.get("revision", {}).get("stable")
        assert stable is None or world.image_of(stable) in (GOOD, OTHER), world.status["decisions"]
