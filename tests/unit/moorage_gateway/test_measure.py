"""What autoscalers are told, and when they are told nothing."""

from dataclasses import replace
from typing import get_args

import pytest

from moorage_api.autoscaling import Metric
from moorage_gateway import measure
from moorage_gateway.measure import Told, Unknown, quantity
from moorage_gateway.table import Model, Revision, Target

GPU = {"available": True, "devices": [{"index": 0, "utilization": 80}, {"index": 1, "utilization": 40}]}
BUSY = {
    "running": 3,
    "waiting": 1,
    "kvCacheUtilization": 0.25,
    "cpuUtilization": 0.5,
    "tokensPerSecond": 88.5,
    "gpu": GPU,
}
IDLE = {"running": 0, "waiting": 0, "kvCacheUtilization": 0, "cpuUtilization": 0, "tokensPerSecond": 0, "gpu": GPU}


def chat(*replicas):
    """A model with so many replicas in each revision, the first of which has the weight."""
    revisions = (
        Revision(number, 0 if number > 1 else 100, tuple(_target(number, n) for n in range(count)))
        for number, count in enumerate(replicas, 1)
    )
    return Model("team-a", "chat", "chat", 0, "Serving", "", tuple(revisions))


def _target(number, n):
    return Target(f"r{number}-{n}", "pod", "10.0.0.1:8000")


def told(held=0, in_flight=0, revision=1, **pods):
    return Told(held, {revision: in_flight}, {uid.replace("_", "-"): pod for uid, pod in pods.items()})


def figure(metric, model, *gateways, silent=()):
    return measure.figure(metric, model, gateways, silent=silent)


def test_there_is_each_figure_that_the_resource_names():
    assert set(measure.METRICS) == set(get_args(Metric))


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("RequestsInFlight", 8),
        ("QueueDepth", 2),
        ("KVCacheUtilization", 50),
        ("GPUUtilization", 120),
        ("CPUUtilization", 100),
        ("TokensPerSecond", 177),
    ],
)
def test_a_figure_is_the_sum_over_the_replicas_whichever_gateway_knows_them(metric, value):
    one, other = told(r1_0=BUSY), told(r1_1=BUSY)
    assert figure(metric, chat(2), one, other) == value
    assert figure(metric, chat(2), other, one) == value


def test_of_what_several_gateways_know_of_a_replica_the_latest_counts():
    """One that does not use it asks now and then only, and has its answer for a while."""
    old = replace(told(r1_0=BUSY), heard={"r1-0": 10.0})
    new = replace(told(r1_0=IDLE), heard={"r1-0": 20.0})
    older = told(r1_0=BUSY)  # a gateway of an older version does not say when
    for gateways in ((older, old, new), (new, older, old)):
        assert figure("RequestsInFlight", chat(1), *gateways) == 0
        assert figure("KVCacheUtilization", chat(1), *gateways) == 0
    assert figure("RequestsInFlight", chat(1), told(in_flight=3, r1_0=BUSY), new) == 3  # what was sent is no hearsay


def test_of_what_is_equally_late_the_largest_counts():
    assert figure("RequestsInFlight", chat(1), told(r1_0=IDLE), told(r1_0=BUSY)) == 4


def test_what_waits_at_the_gateways_counts_as_requests_and_as_a_queue():
    gateways = told(held=5, r1_0=BUSY), told(held=2)
    assert figure("RequestsInFlight", chat(1), *gateways) == 4 + 7
    assert figure("QueueDepth", chat(1), *gateways) == 1 + 7
    assert figure("TokensPerSecond", chat(1), *gateways) == 88.5


def test_what_the_gateways_have_sent_counts_before_the_replicas_have_told():
    assert figure("RequestsInFlight", chat(1), told(in_flight=6, r1_0=BUSY), told(in_flight=3)) == 9
    assert figure("RequestsInFlight", chat(1), told(in_flight=1, r1_0=BUSY)) == 4  # others come past the gateways


def test_replicas_without_requests_do_not_serve():
    """Those that are kept warm, or come up for a rollout."""
    gateway = told(r1_0=BUSY, r2_0=BUSY, in_flight=50, revision=2)
    assert figure("RequestsInFlight", chat(1, 1), gateway) == 4
    assert figure("KVCacheUtilization", chat(1, 1), told(r1_0=BUSY)) == 25


@pytest.mark.parametrize("metric", ["RequestsInFlight", "QueueDepth", "TokensPerSecond"])
def test_where_none_with_weight_has_a_replica_the_load_of_those_without_counts(metric):
    """They get the requests then: a rollout whose stable revision has lost its replicas."""
    gateway = told(r2_0=BUSY, in_flight=2, revision=2)
    assert figure(metric, chat(0, 1), gateway) == figure(metric, chat(1), told(r1_0=BUSY)) > 0
    assert figure("RequestsInFlight", chat(0, 1), told(r2_0=IDLE, in_flight=40, revision=2)) == 40
    assert isinstance(figure(metric, chat(0, 1), told(held=1)), Unknown)


def test_while_no_revision_has_weight_all_may_serve():
    model = Model("a", "b", "c", 0, "", "", (Revision(1, 0, (_target(1, 0),)), Revision(2, 0, (_target(2, 0),))))
    assert figure("QueueDepth", model, told(r1_0=BUSY, r2_0=BUSY)) == 2


@pytest.mark.parametrize("metric", measure.METRICS)
def test_up_to_a_fifth_of_the_replicas_is_filled_with_the_mean_of_the_others(metric):
    pods = {f"r1_{n}": BUSY for n in range(5)}
    whole = figure(metric, chat(5), told(**pods))
    del pods["r1_3"]
    assert figure(metric, chat(5), told(**pods)) == pytest.approx(whole)
    del pods["r1_4"]
    missing = figure(metric, chat(5), told(**pods))
    assert missing == Unknown("2 of 5 replicas have told no such figure lately")


@pytest.mark.parametrize("metric", measure.METRICS)
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_silent_one_of_few_hides_the_figure(metric, replicas):
    pods = {f"r1_{n}": BUSY for n in range(1, replicas)}
    assert isinstance(figure(metric, chat(replicas), told(in_flight=3, held=1, **pods)), Unknown)


@pytest.mark.parametrize(
    ("metric", "pod"),
    [
        ("RequestsInFlight", {"running": 3}),
        ("QueueDepth", {"running": 3}),
        ("KVCacheUtilization", {"kvCacheUtilization": "much"}),
        ("CPUUtilization", {"cpuUtilization": float("nan")}),
        ("TokensPerSecond", {"tokensPerSecond": -1}),
        ("GPUUtilization", {}),
        ("GPUUtilization", {"gpu": {"available": False, "reason": "GPULost"}}),
        ("GPUUtilization", {"gpu": {"available": True, "devices": []}}),
        ("GPUUtilization", {"gpu": {"available": True, "devices": [{"utilization": 80}, {"index": 1}]}}),
        ("GPUUtilization", {"gpu": {"available": True, "devices": "two"}}),
        ("GPUUtilization", {"gpu": "no"}),
    ],
)
def test_what_is_no_figure_is_none_and_never_zero(metric, pod):
    assert isinstance(figure(metric, chat(1), told(r1_0=pod)), Unknown)


def test_without_replicas_only_what_waits_is_known():
    assert figure("RequestsInFlight", chat(0), told(held=2), told(held=1)) == 3
    assert figure("QueueDepth", chat(0), told(held=2)) == 2
    assert figure("KVCacheUtilization", chat(0), told(held=2)) == Unknown("no replica serves")
    assert isinstance(figure("QueueDepth", chat(0), told(held=2), silent=[None]), Unknown)


@pytest.mark.parametrize("metric", measure.METRICS)
def test_that_all_replicas_are_lost_is_not_that_nobody_asks(metric):
    """Who waited has given up: eight replicas on lost nodes would come back as one."""
    assert figure(metric, chat(0, 0), told(), told()) == Unknown("no replica serves")


def test_requests_of_replicas_that_go_are_known():
    """Such as those of replicas that are not ready for a moment because they have too many."""
    assert figure("RequestsInFlight", chat(0), told(in_flight=9)) == 9
    assert isinstance(figure("QueueDepth", chat(0), told(in_flight=9)), Unknown)


def test_what_waits_at_a_gateway_that_is_silent_is_not_known():
    assert figure("QueueDepth", chat(1), told(r1_0=BUSY), silent=[None, told()]) == 1  # the replica itself has told
    assert figure("KVCacheUtilization", chat(1), told(r1_0=BUSY), silent=[told(held=1)]) == 25
    for metric in ("RequestsInFlight", "QueueDepth"):
        assert isinstance(figure(metric, chat(1), told(r1_0=BUSY), silent=[None, told(held=1)]), Unknown)


@pytest.mark.parametrize("metric", measure.METRICS)
def test_what_sleeps_is_known_to_do_nothing_so_that_an_autoscaler_may_scale_it_down(metric):
    """An HPA that misses one of its metrics keeps the number of before the sleep, by which it is woken."""
    model = replace(chat(0), reason="ScaledToZero")
    assert figure(metric, model, told()) == 0
    waking = replace(chat(1), reason="ScaledToZero")  # a replica is there before the status says so
    assert isinstance(figure(metric, waking, told()), Unknown)


def test_requests_that_wait_for_what_sleeps_are_not_known_while_a_gateway_is_silent():
    model = replace(chat(0), reason="ScaledToZero")
    assert figure("RequestsInFlight", model, told(held=2)) == 2
    assert isinstance(figure("RequestsInFlight", model, told(), silent=[told()]), Unknown)


def test_a_model_of_a_view_is_read_as_an_older_gateway_tells_it_too():
    raw = {"revisions": [{"number": 1, "inFlight": 4, "weight": 100}], "pods": [{"uid": "u", "running": 1}]}
    assert measure.read(raw, "", 5) == Told(0, {1: 4}, {"u": {"uid": "u", "running": 1}})
    assert measure.read(raw | {"held": 3}, "", 5).held == 3


def test_when_a_replica_told_is_put_on_the_readers_clock():
    raw = {"revisions": [], "pods": [{"uid": "u", "at": "2026-11-22T08:00:00.500Z"}, {"uid": "v"}]}
    assert measure.read(raw, "2026-11-22T08:00:02.000Z", 100.0).heard == {"u": 98.5}


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12, "12"), (12.0, "12"), (0.5, "500m"), (23.3337, "23334m"), (0.0001, "0")]
)
def test_quantities(value, text):
    assert quantity(value) == text
