"""Without gateways: any sequence of edits, scalings, failures and reverts keeps ready replicas, and it converges."""

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_operator.plan.planner import plan
from tests.rollout_world import STUCK, World

IMAGES = ("engine:a", "engine:b", STUCK)
BROKEN = STUCK


class Plain(World):
    """An installation without gateways: a ready replica is a routable one."""

    def __init__(self, replicas=2):
        super().__init__(gateways=0, replicas=replicas)
        self.gateways_installed = False
        self.edit(IMAGES[0])

    def scale(self, replicas):
        self.spec(replicas=replicas)

    def spoil(self):
        self.spec(model={"source": "ftp://nowhere"})

    def mend(self):
        self.spec(model={"source": "python://model==1"})

    def progress(self):
        """A quiet moment: the operator comes to rest, and one replica more of each revision becomes ready."""
        self.run()
        self.start()

    def up(self):
        """Workload -> whether each of its replicas is ready, those that are first."""
        found = {}
        for pod in self.pods:
            found.setdefault(pod.workload, []).append(pod.ready)
        return {name: sorted(pods, reverse=True) for name, pods in found.items()}

    def fail_one_of(self, workload):
        next(pod for pod in self.pods if pod.workload == workload and pod.ready).ready = False


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
    world = Plain()
    for name, *arguments in actions:
        getattr(world, name)(*arguments)
    world.mend()
    if world.deployment["spec"]["engine"]["image"] == BROKEN:
        world.edit(IMAGES[1])
    if "candidate" in world.roles().values():
        world.scale(max(1, world.deployment["spec"]["replicas"]))  # without replicas it would stay one
    world.settle()

    wanted = world.deployment["spec"]["replicas"]
    stable = world.status["revision"]["stable"]
    assert world.up() in ({f"chat-r{stable}": [True] * wanted}, {} if wanted == 0 else None)
    assert plan(world.snapshot(), world.context).status == world.status
    roles = list(world.roles().values())
    assert sorted(set(roles)) in (["stable"], ["retired", "stable"])
    assert roles.count("stable") == 1
    assert len(roles) <= 10


@settings(max_examples=100)
@given(st.lists(st.sampled_from(IMAGES[:2]), min_size=1, max_size=6), st.integers(1, 4))
def test_going_back_brings_the_earlier_revision_back_under_its_number(images, replicas):
    world = Plain(replicas)
    numbers = {}
    for image in images:
        world.edit(image)
        world.settle()
        stable = world.status["revision"]["stable"]
        assert numbers.setdefault(image, stable) == stable


def test_a_broken_candidate_leaves_the_stable_revision_all_the_requests():
    world = Plain()
    world.settle()
    world.edit(BROKEN)
    for _ in range(20):
        world.step()
        world.start()
        world.wait(10)
    assert world.status["revision"] == {"stable": 1, "candidate": 2}
    assert world.weights == {1: 100, 2: 0}
    assert world.up() == {"chat-r1": [True, True], "chat-r2": [False]}


def test_a_rollout_moves_one_replica_and_its_share_at_a_time():
    world = Plain(3)
    world.settle()
    world.edit(IMAGES[1])
    seen = []
    for _ in range(60):
        while world.step():
            assert len(world.pods) <= 3 + 1 + (1 if world.weights.get(2) == 100 else 0)
            if not seen or seen[-1] != world.weights:
                seen.append(world.weights)
        world.start()
        world.wait(3)
    assert seen == [{1: 100}, {1: 100, 2: 0}, {1: 67, 2: 33}, {1: 33, 2: 67}, {1: 0, 2: 100}, {2: 100}]


def test_requests_move_before_the_replicas_that_served_them_go():
    world = Plain(3)
    world.settle()
    world.edit(IMAGES[1])
    weight, replicas, falls = 100, 3, 0
    for _ in range(300):
        world.step(survive=1)
        left = len(world.up().get("chat-r1", ()))
        if left < replicas:
            falls += 1
            assert weight <= {2: 67, 1: 33, 0: 0}[left]
        replicas = left
        weight = world.weights.get(1, 0)
        world.start()
        world.wait(1)
    assert falls == 3


def test_a_replaced_candidate_serves_until_the_stable_revision_is_whole_again():
    world = Plain()
    world.settle()
    world.edit(IMAGES[1])
    world.progress()
    world.progress()
    assert world.up() == {"chat-r1": [True], "chat-r2": [True, True]}
    world.fail_one_of("chat-r2")
    world.edit(BROKEN)
    world.run()
    assert world.weights == {1: 50, 2: 50, 3: 0}
    assert world.up() == {"chat-r1": [True, False], "chat-r2": [True]}, "the newest waits until there is room"
    world.start()
    world.progress()
    world.wait(6)
    world.run()
    assert world.up() == {"chat-r1": [True, True], "chat-r3": [False]}


def test_an_old_revision_stays_as_a_reserve_while_the_new_one_is_not_whole():
    world = Plain()
    world.settle()
    world.edit(IMAGES[1])
    world.until(lambda: world.status["revision"]["stable"] == 2, seconds=0.1)
    world.fail_one_of("chat-r2")
    world.wait(60)
    world.run()
    assert "chat-r1" in world.up()
