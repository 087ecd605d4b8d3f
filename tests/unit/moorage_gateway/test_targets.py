"""Load, reports and ejection, on a clock that the test holds."""

import pytest

from moorage_gateway.report import Report
from moorage_gateway.targets import EJECTED_SECONDS, EJECTED_SECONDS_MOST, FAILURES_TO_EJECT, REPORT_SECONDS, Targets

IDLE = Report({}, None)


@pytest.fixture
def targets():
    return Targets()


@pytest.fixture
def ejected(targets):
    for _ in range(FAILURES_TO_EJECT):
        targets.failed("a", now=0, connected=False)
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


def test_it_is_looked_at_often_while_it_is_new_or_in_use(targets):
    assert targets.scrape_often("a", 0)
    targets.note("a", IDLE, now=1)
    assert not targets.scrape_often("a", 0)
    targets.begin("a", now=5)
    assert targets.scrape_often("a", 100)
    targets.end("a", now=6)
    assert targets.scrape_often("a", 6)
    assert not targets.scrape_often("a", 7)


def test_a_report_counts_until_it_is_too_old(targets):
    assert targets.last_report("a", now=0) is None
    targets.note("a", IDLE, now=5)
    assert targets.last_report("a", now=5 + REPORT_SECONDS) == (IDLE, 5)
    assert targets.last_report("a", now=6 + REPORT_SECONDS) is None


def test_a_report_gives_the_load_if_it_says_so(targets):
    targets.note("a", IDLE, now=0)
    targets.note("b", Report({"running": 3, "waiting": 4}, None), now=0)
    assert targets.load == {"b": 7}


@pytest.mark.parametrize("connected", [True, False])
def test_it_takes_consecutive_failures_to_eject(targets, connected):
    for _ in range(FAILURES_TO_EJECT - 1):
        assert not targets.failed("a", now=0, connected=connected)
    targets.succeeded("a")
    for _ in range(FAILURES_TO_EJECT - 1):
        assert not targets.failed("a", now=0, connected=connected)
    assert not targets.ejected
    assert targets.failed("a", now=0, connected=connected)
    assert targets.ejected == {"a"}
    assert not targets.failed("a", now=0, connected=connected)  # already is
    assert targets.ejections == 1


def test_a_connection_that_works_forgives_those_that_did_not_but_no_unanswered_request(targets):
    for connected in (True, False):
        for _ in range(FAILURES_TO_EJECT - 1):
            targets.failed("a", now=0, connected=connected)
    targets.reached("a")
    targets.failed("a", now=0, connected=False)
    assert not targets.ejected
    assert targets.failed("a", now=0, connected=True)


def test_one_success_brings_it_back(ejected):
    ejected.succeeded("a")
    assert not ejected.ejected
    for _ in range(FAILURES_TO_EJECT - 1):
        ejected.failed("a", now=9, connected=False)
    assert not ejected.ejected


def test_a_probe_is_due_after_its_time_and_each_failed_one_doubles_it(ejected):
    assert not ejected.probe_due("a", EJECTED_SECONDS / 2)
    now, wait = 0.0, EJECTED_SECONDS
    for _ in range(10):
        assert not ejected.probe_due("a", now + wait * 0.99)
        now += wait
        assert ejected.probe_due("a", now)
        ejected.failed("a", now, connected=False)
        wait = min(wait * 2, EJECTED_SECONDS_MOST)
    assert wait == EJECTED_SECONDS_MOST
    assert not ejected.probe_due("b", 1e9)


def test_failures_before_the_probe_do_not_push_it_away(ejected):
    for _ in range(20):
        ejected.failed("a", now=EJECTED_SECONDS / 2, connected=True)
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
