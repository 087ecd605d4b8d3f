"""Random ways: what can happen to a deployment, and a world in which it does."""

from contextlib import suppress

from hypothesis import strategies as st

from tests.rollout_laws import LawfulWorld
from tests.rollout_world import CRASHING, FAILING, GOOD, OTHER, SLOW, STUCK

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
EVENTS = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 4)),
    *[st.tuples(st.just(name)) for name in ("run", "start", "serve", "sync")],
    *[st.tuples(st.just("ticks"), st.integers(1, 5))] * 4,
    st.tuples(st.just("sync"), st.integers(0, 1)),
    st.tuples(st.just("fail"), st.integers(0, 5)),
    *[st.tuples(st.just("edit"), st.sampled_from((GOOD, OTHER, OTHER, CRASHING, SLOW, FAILING, STUCK)))] * 2,
    st.tuples(st.just("scale"), st.integers(0, 4)),
    st.tuples(st.just("strategy"), STRATEGIES),
    st.tuples(st.just("wait"), st.sampled_from((1, 6, 70, 1000))),
    st.tuples(st.just("act"), st.sampled_from(("promote", "abort", "pause", "resume", "retry", "restart"))),
    st.tuples(st.just("back"), st.integers(1, 4)),
    st.tuples(st.just("forward")),
    st.tuples(st.just("spoil")),
    st.tuples(st.just("nodes"), st.integers(1, 6)),
    st.tuples(st.just("silence"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("lag"), st.integers(0, 1)),
    st.tuples(st.just("restart_gateway"), st.integers(0, 1)),
    st.tuples(st.just("lose_status")),
)


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

    def nodes(self, room):
        self.room = room

    def act(self, verb):
        with suppress(StopIteration):
            super().act(verb, nonce=str(self.count))

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
        self.spec(
            model={"source": "python://model==1"}, rollbackTo=None, rollout=rollout, engine={"image": "engine:new"}
        )
