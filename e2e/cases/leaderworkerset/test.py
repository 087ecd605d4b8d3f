"""Groups of pods in a cluster that has LeaderWorkerSets, made by their own controller."""

import time
from contextlib import ExitStack

import pytest

from e2e.cases.sharded.test import KILL, STREAM, answers, pods_of, restart_count
from e2e.lws import KIND, installed
from e2e.routed import routed

NOTICED = 90
"""Seconds: the operator looks for the kind twice a minute."""


def start(kit, name):
    kit.apply((kit.directory / "models.yaml").read_text().replace("NAME", name))
    kit.wait_ready(name, 600)
    return f"{kit.namespace}/{name}"


def groups(kit, name, kind=KIND):
    found = kit.get(kind, f"--selector=moorage.dev/deployment={name}")["items"]
    return [one["metadata"]["name"] for one in found]


def times_noticed(kit):
    """How often operators have: the case may have run on this cluster before."""
    where = "--namespace=moorage-system", "--selector=app.kubernetes.io/name=moorage-operator"
    return kit.stack.kubectl("logs", *where, "--tail=-1").count("made as LeaderWorkerSet")


def uids(pods):
    return {name: pod["metadata"]["uid"] for name, pod in pods.items()}


@pytest.fixture(scope="module")
def before(kit):
    """What was there before the kind was: answers of its StatefulSets, and its pods."""
    model = start(kit, "early")
    return answers(kit, model), uids(pods_of(kit, "early"))


@pytest.fixture(scope="module")
def remove(kit, before):
    """The kind is there, and the operator knows it; what takes it away before the end."""
    earlier = times_noticed(kit)
    with ExitStack() as there:
        there.enter_context(installed(kit.stack))
        kit.eventually(lambda: times_noticed(kit), lambda times: times > earlier, NOTICED)
        yield there.close


@pytest.fixture(scope="module")
def model(kit, remove):
    """The same model, made once the cluster has the kind."""
    return start(kit, "chat")


def test_its_pods_are_those_of_a_leaderworkerset_and_answer_alike(kit, before, model, bar):
    expected, pods = before
    found = answers(kit, model)
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    bar("LeaderWorkerSet", answers=len(found), same=same, pods=sorted(pods_of(kit, "chat")))
    assert found == expected
    assert sorted(pods_of(kit, "chat")) == ["chat-r1-0-0", "chat-r1-0-0-1"]
    assert (groups(kit, "chat"), groups(kit, "chat", "statefulsets.apps")) == (["chat-r1-0"], [])
    assert (groups(kit, "early"), groups(kit, "early", "statefulsets.apps")) == ([], ["early-r1-0"])
    assert uids(pods_of(kit, "early")) == pods, "what was there before stays"


def test_a_killed_rank_takes_its_group_out_whole_and_it_comes_back_in_its_pods(kit, model, bar):
    kit.kubectl("scale", "llmdep/chat", "--replicas=2")
    kit.eventually(lambda: kit.status("chat")["ready"], lambda ready: ready == "2/2", 300)
    assert groups(kit, "chat") == ["chat-r1-0", "chat-r1-1"]
    victim, before = "chat-r1-0-0-1", uids(pods_of(kit, "chat"))
    with kit.load(model, workers=2, tokens=STREAM) as load, routed(kit, "chat") as tables:
        load.goes_on(3, 300)
        killed = float(kit.kubectl("exec", victim, "--container=server", "--", "python3", "-c", KILL))
        out = tables.until(lambda view: view.targets == {1: 1}, since=killed)
        back = tables.until(lambda view: view.targets == {1: 2}, since=out)
        load.goes_on(3, 300)
    lost = [record for record in load.failures() if record.started > out]
    meanwhile = [record for record in load.records if out < record.started < back]
    restarts = {name: restart_count(pod) for name, pod in pods_of(kit, "chat").items()}
    bar(
        "LeaderWorkerSet",
        routed_while_partial=len(lost),
        requests_meanwhile=len(meanwhile),
        requests=len(load.records),
        out_seconds=out - killed,
        back_seconds=back - killed,
        restarts=restarts,
    )
    assert meanwhile, "requests came while the group was not whole"
    assert lost == []
    assert uids(pods_of(kit, "chat")) == before, "no pod is made anew"
    assert all(restarts[name] >= 1 for name in ("chat-r1-0-0", victim))
    assert all(restarts[name] == 0 for name in ("chat-r1-1-0", "chat-r1-1-0-1"))


def test_it_is_scaled_by_whole_groups(kit, model, bar):
    kit.kubectl("scale", "llmdep/chat", "--replicas=1")
    kit.eventually(lambda: len(pods_of(kit, "chat")), lambda count: count == 2, 360)
    assert len(groups(kit, "chat")) == 1
    status = kit.eventually(lambda: kit.status("chat"), lambda seen: seen["ready"] == "1/1")
    bar("LeaderWorkerSet", scaled_to=status["replicas"], pods=len(pods_of(kit, "chat")))


@pytest.mark.parametrize("which", [max, min])
def test_of_a_pod_that_is_drained_the_whole_group_moves(kit, model, which, bar):
    """Be it another one than the first, whose name is the longer one, or the first, to which the others belong."""
    before = pods_of(kit, "chat")
    victim = which(before, key=len)
    began = time.time()
    kit.kubectl("delete", "pod", victim, "--wait=false")
    kit.eventually(lambda: not before.keys() & pods_of(kit, "chat").keys(), bool, 180)
    gone = time.time() - began
    kit.eventually(lambda: kit.status("chat")["ready"], lambda ready: ready == "1/1", 300)
    bar("LeaderWorkerSet", gone_seconds=gone, back_seconds=time.time() - began)
    assert "harbour" in "".join(kit.ask(model, stream=True)["pieces"])


def test_once_the_kind_is_gone_groups_are_statefulsets_again(kit, before, model, remove, bar):
    """The kind takes its groups along; none of what they consisted of is left, and what was there before stays."""
    expected, pods = before
    began = time.time()
    remove()
    gone = time.time() - began
    kit.eventually(lambda: groups(kit, "chat", "statefulsets.apps"), bool, NOTICED)
    kit.eventually(lambda: kit.status("chat")["ready"], lambda ready: ready == "1/1", 300)
    back = time.time() - began
    kit.eventually(lambda: len(pods_of(kit, "chat")), lambda count: count == 2)
    (group,) = groups(kit, "chat", "statefulsets.apps")
    bar("LeaderWorkerSet", removed_seconds=gone, statefulsets_back_seconds=back, group=group)
    sets = kit.eventually(lambda: kit.get("statefulsets.apps")["items"], lambda left: len(left) == 2)
    assert {one["metadata"]["name"] for one in sets} == {"early-r1-0", group}
    assert answers(kit, model) == expected
    assert uids(pods_of(kit, "early")) == pods
