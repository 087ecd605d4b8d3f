"""Load and ejection, on a clock that the test holds."""

import pytest

from moorage_gateway.targets import EJECTED_SECONDS, EJECTED_SECONDS_MOST, FAILURES_TO_EJECT, Targets


@pytest.fixture
def targets():
    return Targets()


@pytest.fixture
def ejected(targets):
    for _ in range(FAILURES_TO_EJECT):
        targets.failed("a", now=0)
    return targets


def test_load_is_our_own_requests_and_what_the_replica_reports_beyond_them(targets):
    targets.begin("a", now=0)
    targets.begin("a", now=0)
    assert targets.load == {"a": 2}
    targets.report("a", 5)
    assert targets.load == {"a": 5}
    targets.end("a", now=1)
    assert targets.load == {"a": 4}
    targets.report("a", 0)  # reported before it saw ours
    assert targets.load == {"a": 1}


def test_used_means_a_request_lately_or_now(targets):
    assert not targets.used_since("a", 0)
    targets.begin("a", now=5)
    assert targets.used_since("a", 100)
    targets.end("a", now=6)
    assert targets.used_since("a", 6)
    assert not targets.used_since("a", 7)


def test_it_takes_consecutive_failures_to_eject(targets):
    for _ in range(FAILURES_TO_EJECT - 1):
        assert not targets.failed("a", now=0)
    targets.succeeded("a")
    for _ in range(FAILURES_TO_EJECT - 1):
        assert not targets.failed("a", now=0)
    assert not targets.ejected
    assert targets.failed("a", now=0)
    assert targets.ejected == {"a"}
    assert not targets.failed("a", now=0)  # already is


def test_one_success_brings_it_back(ejected):
    ejected.succeeded("a")
    assert not ejected.ejected
    for _ in range(FAILURES_TO_EJECT - 1):
        ejected.failed("a", now=9)
    assert not ejected.ejected


def test_a_probe_is_due_after_its_time_and_each_failed_one_doubles_it(ejected):
    assert not ejected.probe_due("a", EJECTED_SECONDS / 2)
    now, wait = 0.0, EJECTED_SECONDS
    for _ in range(10):
        assert not ejected.probe_due("a", now + wait * 0.99)
        now += wait
        assert ejected.probe_due("a", now)
        ejected.failed("a", now)
        wait = min(wait * 2, EJECTED_SECONDS_MOST)
    assert wait == EJECTED_SECONDS_MOST
    assert not ejected.probe_due("b", 1e9)


def test_failures_before_the_probe_do_not_push_it_away(ejected):
    for _ in range(20):
        ejected.failed("a", now=EJECTED_SECONDS / 2)
    assert ejected.probe_due("a", EJECTED_SECONDS)


def test_what_left_the_table_is_forgotten_once_its_last_request_ended(ejected):
    ejected.begin("b", now=0)
    ejected.keep([])
    assert ejected.load == {"b": 1}
    assert not ejected.ejected
    ejected.end("b", now=1)
    ejected.keep([])
    assert ejected.load == {}
    ejected.end("b", now=1)  # an end that comes late changes nothing
    assert ejected.load == {}
