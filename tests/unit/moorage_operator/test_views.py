"""Lines of a gateway's telemetry, put together."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from moorage_operator.cluster.lines import lines
from moorage_operator.manifest import Key
from moorage_operator.plan.figures import Device
from moorage_operator.shell.views import NOTHING, BadLineError, View

CHAT, CODE = Key("team", "chat"), Key("team", "code")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GPU = {"index": 0, "uuid": "GPU-1", "name": "H", "utilization": 40, "memoryUtilization": 5}
GPU |= {"memoryUsedMiB": 1000, "memoryTotalMiB": 2000, "temperature": 50, "powerWatts": None}


def revision(number=1, weight=100, targets=("p1",), **figures):
    counted = {"inFlight": 0, "requests": 0, "errors": 0, "tokens": 0, "ttft": [0, 0], "itl": [0]}
    return {"number": number, "weight": weight, "targets": list(targets), **counted, **figures}


def model(*revisions, name="chat", pods=()):
    return {"namespace": "team", "deployment": name, "revisions": list(revisions), "pods": list(pods)}


def line(*models, whole=False, removed=(), started="2026-01-01T00:00:00.000Z"):
    about = {"gateway": "g", "started": started, "buckets": {"ttft": [0.5], "itl": []}}
    return json.dumps({**about, "whole": whole, "models": models, "removed": list(removed)}).encode()


def timed(told, **demand):
    """A line that says what time it is there, about one model."""
    return json.dumps({**json.loads(line({**model(revision()), **demand})), "time": told}).encode()


@pytest.fixture
def view():
    view = View()
    view.take(line(model(revision()), model(revision(), name="code"), whole=True), NOW)
    return view


def test_the_first_line_tells_of_everything(view):
    assert len(view) == 2
    (found,) = view.of(CHAT).revisions
    assert (found.number, found.weight, found.targets, found.ttft) == (1, 100, {"p1"}, (0, 0))
    assert (view.started, view.ttft_bounds, view.itl_bounds) == ("2026-01-01T00:00:00.000Z", (0.5,), ())
    assert view.of(Key("team", "other")) == NOTHING


def test_a_line_replaces_what_it_speaks_of_and_leaves_the_rest(view):
    news = view.take(line(model(revision(requests=7))), NOW)
    assert view.of(CHAT).revisions[0].requests == 7
    assert len(view) == 2
    assert (news.facts, news.figures) == (frozenset(), {CHAT})


@pytest.mark.parametrize("other", [revision(weight=0), revision(targets=()), revision(targets=("p1", "p2"))])
def test_weights_and_targets_are_facts(view, other):
    news = view.take(line(model(other)), NOW)
    assert (news.facts, news.figures) == ({CHAT}, frozenset())


def test_a_heartbeat_is_no_news(view):
    news = view.take(line(), NOW)
    assert not news.facts | news.figures


def test_what_is_removed_is_gone(view):
    assert view.take(line(removed=["team/chat", "team/unknown"]), NOW).facts == {CHAT}
    assert (view.of(CHAT), len(view)) == (NOTHING, 1)


def test_a_whole_view_corrects_everything(view):
    news = view.take(line(model(revision(), name="code"), whole=True), NOW)
    assert news.facts == {CHAT}
    assert len(view) == 1


def test_a_restarted_gateway_has_to_begin_with_the_whole(view):
    later = "2026-01-01T01:00:00.000Z"
    with pytest.raises(BadLineError, match="never told as a whole"):
        view.take(line(model(revision()), started=later), NOW)
    view.take(line(model(revision(requests=1)), whole=True, started=later), NOW)
    assert view.started == later


def test_gpus_that_stop_answering_are_facts_and_how_busy_they_are_is_a_figure(view):
    pod = {"uid": "p1", "running": 2, "gpu": {"available": True, "devices": [GPU]}}
    assert view.take(line(model(revision(), pods=[pod])), NOW).facts == {CHAT}
    assert view.of(CHAT).pods[0].gpu.devices == (Device(40, 1000, 2000, 50, 0),)
    busier = {**pod, "gpu": {"available": True, "devices": [{**GPU, "utilization": 90}]}}
    assert view.take(line(model(revision(), pods=[busier])), NOW).figures == {CHAT}
    lost = {**pod, "gpu": {"available": False, "reason": "GPULost", "message": "Xid 79"}}
    assert view.take(line(model(revision(), pods=[lost])), NOW).facts == {CHAT}


@pytest.mark.parametrize("gpu", [{}, {"available": True, "devices": [{}]}, {"available": True, "devices": 7}, {"a": 1}])
def test_an_engine_that_says_nonsense_of_its_gpus_hides_nobody(view, gpu):
    view.take(line(model(revision(), pods=[{"uid": "p1", "running": 2, "gpu": gpu}])), NOW)
    assert (view.of(CHAT).pods[0].running, view.of(CHAT).pods[0].gpu) == (2, None)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        line({"namespace": "team"}),
        line(model({"number": 1})),
        line(removed=["chat"]),
        timed("noon"),
    ],
)
def test_what_is_no_line_changes_nothing(view, bad):
    with pytest.raises(BadLineError):
        view.take(bad, NOW)
    assert len(view) == 2


def test_that_requests_begin_or_cease_to_wait_is_a_fact_and_how_many_do_is_a_figure(view):
    assert view.take(timed("2026-01-01T12:00:00.000Z", held=1), NOW).facts == {CHAT}
    assert view.of(CHAT).held == 1
    assert view.take(timed("2026-01-01T12:00:00.100Z", held=2), NOW).figures == {CHAT}
    assert view.take(timed("2026-01-01T12:00:00.200Z", held=0), NOW).facts == {CHAT}


def test_the_last_request_is_told_on_our_clock_whatever_theirs_says(view):
    view.take(timed("2031-05-05T05:05:05.000Z", lastDemand="2031-05-05T05:04:55.000Z"), NOW)
    assert view.of(CHAT).quiet_since == NOW - timedelta(seconds=10)
    view.take(line(), NOW + timedelta(hours=1))
    assert view.of(CHAT).quiet_since == NOW - timedelta(seconds=10), "what is not told anew has not changed"
    again = timed("2031-05-05T06:05:05.004Z", lastDemand="2031-05-05T05:04:55.000Z")
    assert not view.take(again, NOW + timedelta(hours=1)).figures, "a moment more or less is no news"
    view.take(timed("2026-01-01T12:00:00Z", lastDemand="2026-01-01T12:00:09Z"), NOW)
    assert view.of(CHAT).quiet_since == NOW, "nobody has asked tomorrow"


def test_a_gateway_that_does_not_tell_of_demand_is_believed_in_everything_else(view):
    view.take(line(model(revision(requests=7))), NOW)
    assert (view.of(CHAT).quiet_since, view.of(CHAT).revisions[0].requests) == (None, 7)


async def pieces(*given):
    for one in given:
        yield one


async def test_lines_come_together_from_pieces():
    assert [one async for one in lines(pieces(b"a", b"b\nc", b"\n\nd\ne"))] == [b"ab", b"c", b"", b"d"]


async def test_a_line_without_end_is_refused():
    with pytest.raises(ValueError, match="more than 3 bytes"):
        [one async for one in lines(pieces(b"ab", b"cd"), longest=3)]


def test_a_certificate_is_what_was_told_last(view):
    assert view.certificate == ""
    first = {**json.loads(line(whole=True)), "certificate": "PEM 1"}
    view.take(json.dumps(first).encode(), NOW)
    assert view.certificate == "PEM 1"
    view.take(json.dumps({**first, "certificate": "PEM 2"}).encode(), NOW)
    assert view.certificate == "PEM 2"
    view.take(line(), NOW)
    assert view.certificate == "", "every line tells it while metrics are served"
