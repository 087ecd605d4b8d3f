"""Any sequence of edits, scalings, failures, crashes and reverts: ready replicas stay, and it converges."""

import copy
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context

START = datetime(2026, 1, 1, tzinfo=UTC)
IMAGES = ("engine:a", "engine:b", "engine:c")
BROKEN = "engine:c"


class World:
    """A cluster of one deployment: objects as an API server keeps them, pods as a Deployment controller does."""

    def __init__(self):
        self.now = START
        self.context = Context("runtime:1", "http://gateway/v1")
        self.deployment = {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {
                "name": "chat",
                "namespace": "team",
                "uid": "u1",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"model": {"source": "python://model==1"}, "engine": {"image": IMAGES[0]}, "replicas": 2},
        }
        self.objects = {}
        self.pods = {}  # workload's name -> [ready, ...]

    # What people do.

    def edit(self, image):
        self._spec(engine={"image": image})

    def scale(self, replicas):
        self._spec(replicas=replicas)

    def spoil(self):
        self._spec(model={"source": "ftp://nowhere"})

    def mend(self):
        self._spec(model={"source": "python://model==1"})

    def _spec(self, **changes):
        if all(self.deployment["spec"].get(name) == value for name, value in changes.items()):
            return
        self.deployment = copy.deepcopy(self.deployment)
        self.deployment["spec"].update(changes)
        self.deployment["metadata"]["generation"] += 1

    # What happens.

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    def start(self):
        """One replica of each revision that can becomes ready."""
        for name, pods in self.pods.items():
            if False in pods and self._image(name) != BROKEN:
                pods[pods.index(False)] = True

    def fail(self, number):
        """One ready replica stops being ready."""
        ready = [(name, index) for name, pods in sorted(self.pods.items()) for index, up in enumerate(pods) if up]
        if ready:
            name, index = ready[number % len(ready)]
            self.pods[name][index] = False

    def lose_status(self):
        self.deployment = {name: value for name, value in self.deployment.items() if name != "status"}

    def _image(self, name):
        return self.objects["Deployment", name]["spec"]["template"]["spec"]["containers"][0]["image"]

    # The operator.

    def snapshot(self):
        kinds = ("ControllerRevision", "Deployment", "Service", "PodDisruptionBudget")
        children = {kind: tuple(o for (k, _), o in sorted(self.objects.items()) if k == kind) for kind in kinds}
        return Snapshot(self.deployment, {**children, "Pod": tuple(self._pods())}, self.now)

    def step(self, survive=1000):
        """Reconcile once and die after `survive` writes. Returns how many were made."""
        decided = plan(self.snapshot(), self.context)
        writes = 0
        for apply in decided.applies:
            writes += self._apply(apply.manifest, live=writes < survive)
        for delete in decided.deletes:
            if writes < survive:
                self._delete(delete.manifest)
            writes += 1
        if not writes and decided.status != self.deployment.get("status"):
            self.deployment = {**self.deployment, "status": decided.status}
            writes += 1
        return min(writes, survive)

    def _apply(self, manifest, *, live):
        key = manifest["kind"], manifest["metadata"]["name"]
        known = self.objects.get(key)
        if known is not None and {**known, "metadata": {**known["metadata"], "creationTimestamp": ""}} == {
            **manifest,
            "metadata": {**manifest["metadata"], "creationTimestamp": ""},
        }:
            return 0
        if live:
            created = known["metadata"]["creationTimestamp"] if known else self.now.isoformat()
            self.objects[key] = {**manifest, "metadata": {**manifest["metadata"], "creationTimestamp": created}}
            self._control()
        return 1

    def _delete(self, manifest):
        del self.objects[manifest["kind"], manifest["metadata"]["name"]]
        self._control()

    def _control(self):
        """Pods follow their workloads; those that are not ready go first, as ReplicaSets do it."""
        workloads = {name: o["spec"]["replicas"] for (kind, name), o in self.objects.items() if kind == "Deployment"}
        before = {name: sorted(pods, reverse=True) for name, pods in self.pods.items()}
        after = {name: (before.get(name, []) + [False] * count)[:count] for name, count in workloads.items()}
        wanted = self.deployment["spec"]["replicas"]
        was, left = self.ready(), sum(sum(pods) for pods in after.values())
        assert left >= min(was, wanted), f"{was} were ready, {wanted} are wanted, {left} are left"
        self.pods = after

    def _pods(self):
        for name, pods in sorted(self.pods.items()):
            labels = self.objects["Deployment", name]["spec"]["template"]["metadata"]["labels"]
            for index, ready in enumerate(pods):
                yield {
                    "kind": "Pod",
                    "metadata": {"name": f"{name}-{index}", "namespace": "team", "labels": labels},
                    "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
                }

    def ready(self):
        return sum(sum(pods) for pods in self.pods.values())

    def progress(self):
        """A quiet moment: the operator comes to rest, and one replica more of each revision becomes ready."""
        while self.step():
            self.check()
        self.start()

    def check(self):
        status = self.deployment.get("status")
        if status is None:
            return
        assert sum(one["weight"] for one in status.get("revisions", ())) in (0, 100)
        for condition in status["conditions"]:
            assert condition["reason"]
            assert condition["message"]

    def settle(self):
        for _ in range(200):
            self.start()
            while self.step():
                self.check()
            self.wait(3)
            self.start()
            if not self.step():
                status = self.deployment["status"]
                if status["conditions"][3]["status"] == "True" and len(status.get("revisions", ())) <= 1:
                    return
        raise AssertionError(f"did not settle: {self.deployment}")


ACTIONS = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 4)),
    st.tuples(st.just("step"), st.just(1000)),
    st.tuples(st.just("start")),
    st.tuples(st.just("progress")),
    st.tuples(st.just("progress")),
    st.tuples(st.just("fail"), st.integers(0, 5)),
    st.tuples(st.just("edit"), st.sampled_from(IMAGES)),
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from((1, 6))),
    st.tuples(st.just("spoil")),
    st.tuples(st.just("mend")),
    st.tuples(st.just("lose_status")),
)


@settings(max_examples=300)
@given(st.lists(ACTIONS, max_size=60))
def test_ready_replicas_are_kept_along_any_way_and_the_way_ends(actions):
    world = World()
    for name, *arguments in actions:
        getattr(world, name)(*arguments)
        world.check()
    world.mend()
    if world.deployment["spec"]["engine"]["image"] == BROKEN:
        world.edit(IMAGES[1])
    world.settle()

    wanted = world.deployment["spec"]["replicas"]
    stable = world.deployment["status"]["revision"]["stable"]
    assert world.pods in ({f"chat-r{stable}": [True] * wanted}, {} if wanted == 0 else None)
    assert plan(world.snapshot(), world.context).status == world.deployment["status"]
    records = [o for (kind, _), o in world.objects.items() if kind == "ControllerRevision"]
    roles = [record["metadata"]["labels"]["moorage.dev/role"] for record in records]
    assert sorted(set(roles)) in (["stable"], ["retired", "stable"])
    assert roles.count("stable") == 1
    assert len(records) <= 10


@settings(max_examples=100)
@given(st.lists(st.sampled_from(IMAGES[:2]), min_size=1, max_size=6), st.integers(1, 4))
def test_going_back_brings_the_earlier_revision_back_under_its_number(images, replicas):
    world = World()
    world.scale(replicas)
    numbers = {}
    for image in images:
        world.edit(image)
        world.settle()
        stable = world.deployment["status"]["revision"]["stable"]
        assert numbers.setdefault(image, stable) == stable


def test_a_broken_candidate_leaves_the_stable_revision_all_the_requests():
    world = World()
    world.settle()
    world.edit(BROKEN)
    for _ in range(20):
        world.step()
        world.start()
        world.wait(10)
    status = world.deployment["status"]
    assert status["revision"] == {"stable": 1, "candidate": 2}
    assert {one["number"]: one["weight"] for one in status["revisions"]} == {1: 100, 2: 0}
    assert world.pods == {"chat-r1": [True, True], "chat-r2": [False]}


def test_a_rollout_moves_one_replica_and_its_share_at_a_time():
    world = World()
    world.scale(3)
    world.settle()
    world.edit(IMAGES[1])
    seen = []
    for _ in range(60):
        while world.step():
            weights = {one["number"]: one["weight"] for one in world.deployment["status"]["revisions"]}
            replicas = {name: len(pods) for name, pods in world.pods.items()}
            assert sum(replicas.values()) <= 3 + 1 + (1 if weights.get(2) == 100 else 0)
            if not seen or seen[-1] != weights:
                seen.append(weights)
        world.start()
        world.wait(3)
    assert seen == [{1: 100}, {1: 100, 2: 0}, {1: 67, 2: 33}, {1: 33, 2: 67}, {1: 0, 2: 100}, {2: 100}]


def test_requests_move_before_the_replicas_that_served_them_go():
    world = World()
    world.scale(3)
    world.settle()
    world.edit(IMAGES[1])
    weight, replicas, falls = 100, 3, 0
    for _ in range(300):
        world.step(survive=1)
        left = len(world.pods.get("chat-r1", ()))
        if left < replicas:
            falls += 1
            assert weight <= {2: 67, 1: 33, 0: 0}[left]
        replicas = left
        weight = {one["number"]: one["weight"] for one in world.deployment["status"]["revisions"]}.get(1, 0)
        world.start()
        world.wait(1)
    assert falls == 3


def test_a_replaced_candidate_serves_until_the_stable_revision_is_whole_again():
    world = World()
    world.settle()
    world.edit(IMAGES[1])
    world.progress()
    world.progress()
    assert world.pods == {"chat-r1": [True], "chat-r2": [True, True]} or world.ready() == 2
    world.pods["chat-r2"] = [True, False]
    world.edit(BROKEN)
    while world.step():
        pass
    weights = {one["number"]: one["weight"] for one in world.deployment["status"]["revisions"]}
    assert weights == {1: 50, 2: 50, 3: 0}
    assert world.pods == {"chat-r1": [True, False], "chat-r2": [True]}, "the newest waits until there is room"
    world.start()
    world.progress()
    world.wait(6)
    while world.step():
        pass
    assert world.pods == {"chat-r1": [True, True], "chat-r3": [False]}


def test_an_old_revision_stays_as_a_reserve_while_the_new_one_is_not_whole():
    world = World()
    world.settle()
    world.edit(IMAGES[1])
    for _ in range(4):
        world.progress()
    assert world.deployment["status"]["revision"]["stable"] == 2
    world.fail(len(world.pods["chat-r1"]))
    world.wait(60)
    while world.step():
        pass
    assert "chat-r1" in world.pods
