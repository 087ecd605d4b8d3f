"""Which deployments are looked at again because of what gateways say; and shortage of accelerators."""

from datetime import timedelta

import pytest

from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key
from moorage_operator.plan.figures import Gateway, PodFigures
from moorage_operator.shell.attention import Attention
from moorage_operator.shell.shortage import is_short, waits
from moorage_operator.shell.views import News

CHAT = Key("team", "chat")
NONE = frozenset()
GATES = {"rollout": {"gates": [{"metric": "ErrorRate", "max": "1%"}]}}
IN_A_ROLLOUT = {"revision": {"stable": 1, "candidate": 2}, "revisions": [{"number": 1}, {"number": 2}]}
AT_REST = {"revision": {"stable": 1}, "revisions": [{"number": 1}]}


class Queue:
    """What was asked for, and for when."""

    def __init__(self):
        self.now, self.later = [], {}

    def add(self, key):
        self.now.append(key)

    def add_after(self, key, delay):
        self.later[key] = delay


class Scene:
    def __init__(self, make):
        self.store, self.queue, self.now, self.running = Store(), Queue(), make.now, 0
        self.attention = Attention(self.store, self.queue, self._gateways, lambda: self.now)
        self.make = make

    def _gateways(self, key):
        return (Gateway("g", "2026-01-01T00:00:00Z", pods=(PodFigures("p1", running=self.running),)),)

    def know(self, status, version=1, **spec):
        deployment = self.make.deployment(status, **spec)
        deployment["metadata"]["resourceVersion"] = str(version)
        assert self.store.put(deployment)

    def figures(self, running=0):
        self.running = running
        self.attention.told(News(NONE, frozenset({CHAT})))


@pytest.fixture
def scene(make):
    return Scene(make)


def test_facts_count_at_once(scene):
    scene.know(AT_REST)
    scene.attention.told(News(frozenset({CHAT, Key("team", "gone")}), NONE))
    assert scene.queue.now == [CHAT]


def test_figures_count_at_once_where_a_gate_is_judged_by_them(scene):
    scene.know(IN_A_ROLLOUT, **GATES)
    scene.figures(running=1)
    scene.figures(running=1)
    assert scene.queue.now == [CHAT, CHAT]


def test_the_first_figures_and_great_changes_are_reported_but_not_twice_a_minute(scene):
    scene.know(AT_REST, **GATES)
    scene.figures(running=10)
    assert scene.queue.now == [CHAT]
    measured = {"measured": "2026-01-01T12:00:00Z", "traffic": {"tokensPerSecond": 0, "running": 10, "waiting": 0}}
    scene.know({**AT_REST, **measured}, version=2)
    scene.now += timedelta(seconds=10)
    scene.figures(running=11)
    assert (scene.queue.now, scene.queue.later) == ([CHAT], {}), "too little of a change"
    for _ in range(3):
        scene.figures(running=20)
    assert (scene.queue.now, scene.queue.later) == ([CHAT], {CHAT: 50.0})
    scene.now += timedelta(seconds=50)
    scene.figures(running=20)
    assert scene.queue.now == [CHAT, CHAT]


def test_a_gateway_that_comes_or_goes_concerns_rollouts_and_the_last_one_concerns_all(scene):
    scene.know(AT_REST)
    scene.attention.turned(alone=False)
    assert scene.queue.now == []
    scene.attention.turned(alone=True)
    assert scene.queue.now == [CHAT]
    scene.know(IN_A_ROLLOUT, version=2)
    scene.attention.turned(alone=False)
    assert scene.queue.now == [CHAT, CHAT]


def unplaced(make, version, words="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", reason="Unschedulable"):
    pod = make.pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": reason, "message": words}])
    pod["metadata"]["resourceVersion"] = str(version)
    return pod


def recorded(make, number=1, **spec):
    """The record of a revision."""
    made = make.running(make.deployment(**spec)).children["ControllerRevision"][0]
    labels = {**made["metadata"]["labels"], "moorage.dev/revision": str(number)}
    metadata = {**made["metadata"], "name": f"chat-r{number}", "labels": labels, "resourceVersion": "1"}
    return {**made, "metadata": metadata}


def test_a_pod_without_a_node_makes_its_namespace_short_until_it_has_one(make, scene):
    scene.know(AT_REST, rollout={"keepWarm": {"replicas": 1}})
    scene.store.put(recorded(make, accelerator={"count": 1}))
    assert not is_short(scene.store, "team")
    scene.store.put(unplaced(make, 2))
    assert is_short(scene.store, "team")
    assert not is_short(scene.store, "other")
    scene.store.put(unplaced(make, 3, words="0/3 nodes are available: 3 Insufficient memory."))
    assert not is_short(scene.store, "team")
    scene.store.put(unplaced(make, 4))
    scene.store.put(unplaced(make, 5, reason="SchedulerError"))
    assert (is_short(scene.store, "team"), scene.store.unplaced_count("team")) == (False, 0)
    scene.store.put(unplaced(make, 6))
    scene.store.remove(unplaced(make, 7))
    assert scene.store.unplaced("team") == ()


def test_a_pod_waits_for_what_its_own_revision_is_given(make, scene):
    """Whatever spec asks for by now: with `rollbackTo`, and while older replicas are replaced, that is another one."""
    scene.know(AT_REST, accelerator={"count": 1})
    elsewhere = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    scene.store.put(recorded(make))
    scene.store.put(unplaced(make, 2, words=elsewhere))
    assert not waits(scene.store, CHAT)
    scene.store.put(recorded(make, 2, accelerator={"count": 1}))
    pod = unplaced(make, 3, words=elsewhere)
    scene.store.put({**pod, "metadata": {**pod["metadata"], "name": "q", "labels": labels(2)}})
    assert waits(scene.store, CHAT)


def test_a_claim_that_is_far_from_the_nodes_makes_nothing_warm_give_way(make, scene):
    scene.store.put(recorded(make, accelerator={"count": 1}))
    scene.store.put(unplaced(make, 2, words="0/3 nodes are available: 3 node(s) had volume node affinity conflict."))
    assert not is_short(scene.store, "team")


def labels(revision):
    return {"moorage.dev/deployment": "chat", "moorage.dev/revision": str(revision)}


def test_who_keeps_replicas_warm_is_known_by_namespace(scene):
    warm = {"keepWarm": {"replicas": 1}}
    scene.know(AT_REST)
    assert scene.store.keepers("team") == ()
    scene.know(AT_REST, version=2, rollout=warm)
    assert (scene.store.keepers("team"), scene.store.keepers("other")) == ((CHAT,), ())
    scene.know(AT_REST, version=3)
    assert scene.store.keepers("team") == ()
    scene.know(AT_REST, version=4, rollout=warm)
    scene.store.remove(scene.store.get("LLMDeployment", "team", "chat"))
    assert scene.store.keepers("team") == ()
