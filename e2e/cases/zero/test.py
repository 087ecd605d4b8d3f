"""To zero and back with the real model: a held request wakes it, a long stream and a gateway outage keep it up."""

import itertools
import time

import pytest

from e2e.held import held

IDLE_AFTER = 60  # as the manifest has it
STREAMS, LONG = 8, 1900  # so many answers at once, of so many tokens each
PODS = "--selector=moorage.dev/deployment="
IS_READY = '.status.conditions[?(@.type=="Ready")].status'
TICK = 5.5  # keep-alives come at least every five seconds


@pytest.fixture(scope="module")
def chat(kit):
    """The model, once it has proven itself and gone to zero; nobody has asked for it."""
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    sleeps(kit)
    return f"{kit.namespace}/chat"


def test_a_model_that_was_never_asked_for_serves_once_and_goes_to_zero(kit, chat, bar):
    status = kit.status("chat")
    row = kit.row("chat")
    assert (row["READY"], row["STATUS"]) == ("0/0", "ScaledToZero")
    assert [kit.condition("chat", kind)["status"] for kind in ("Ready", "Available")] == ["True", "True"]
    assert kit.get("llmdeployment", "chat")["spec"]["replicas"] == 1
    decision = next(one for one in reversed(status["decisions"]) if one["kind"] == "Scale")
    assert (decision["from"], decision["to"]) == ("r1: 1", "r1: 0")
    assert "nobody had asked for 1m" in decision["reason"]
    assert sum(status["startup"]["seconds"].values()) > 0, "how long a start takes is known"


def test_one_held_request_brings_it_back_and_its_client_hears_of_it(kit, chat, bar):
    with kit.watched("pods", f"{PODS}chat", fields=[".metadata.name", IS_READY]) as changes:
        seen = held(kit, chat)
    made = changes[0].at - seen.began
    ready = next(one.at for one in changes if one[1] == "True") - seen.began
    bar(
        "zero wake",
        first_token=seen.first_token,
        until_pod=made,
        pod_ready=ready,
        since_ready=seen.first_token - ready,
        ours=made + seen.first_token - ready,
        headers=seen.headers,
        keep_alives=len(seen.comments),
    )
    assert (seen.status, seen.done) == (200, True)
    assert seen.comments, "it was told that it waits"
    times = [seen.headers, *seen.comments, seen.first_token]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < TICK
    kit.reaches("chat", "Serving")
    decision = next(one for one in reversed(kit.status("chat")["decisions"]) if one["kind"] == "Scale")
    assert (decision["from"], decision["to"]) == ("r1: 0", "r1: 1")
    assert "1 request waits at the gateways" in decision["reason"]


def test_a_stream_longer_than_idle_after_keeps_its_model_up(kit, bar):
    kit.apply("slow.yaml")
    kit.wait_ready("slow")
    before = uids(kit, "slow")
    began = time.time()
    with kit.load(f"{kit.namespace}/slow", workers=STREAMS, tokens=LONG) as load:
        kit.eventually(lambda: time.time() - began, lambda seconds: seconds > IDLE_AFTER + 10)
    assert uids(kit, "slow") == before
    kit.kubectl("delete", "llmdep/slow")
    shortest = min(record.ended - record.started for record in load.records)
    bar("zero stream", idle_after=IDLE_AFTER, shortest=shortest, streams=len(load.records))
    assert shortest > IDLE_AFTER + 5, "the streams were too short to show anything"
    assert load.failures() == []


def test_an_outage_of_all_gateways_takes_nothing_and_begins_the_idle_time_anew(kit, chat, bar):
    kit.ask(chat, stream=True)
    before, away = uids(kit), time.time()
    with kit.without_gateways():
        kit.eventually(lambda: time.time() - away, lambda seconds: seconds > IDLE_AFTER + 15)
        assert (uids(kit), kit.row("chat")["STATUS"]) == (before, "Serving")
        back = time.time()
    sleeps(kit)
    bar("zero outage", away=back - away, idle_after_return=time.time() - back)
    assert time.time() - back > IDLE_AFTER - 1


def sleeps(kit):
    """Wait until it has gone to zero."""
    kit.reaches("chat", "ScaledToZero", IDLE_AFTER + 180)
    kit.eventually(lambda: pods(kit), lambda left: left == [])


def pods(kit, name="chat"):
    return kit.get("pods", f"{PODS}{name}")["items"]


def uids(kit, name="chat"):
    return {pod["metadata"]["uid"] for pod in pods(kit, name)}
