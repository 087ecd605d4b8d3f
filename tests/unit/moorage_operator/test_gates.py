"""Percentiles and gates, and what counts when gateways come, go and start anew."""

import math
from datetime import UTC, datetime

import pytest

from moorage_api.rollout import Gate
from moorage_operator.plan.figures import Gateway, RevisionFigures
from moorage_operator.plan.gates import (
    Blocked,
    Failed,
    Totals,
    all_along,
    completed,
    judge,
    percentile,
    since,
    unmeasured,
    until,
    window,
)

BOUNDS = (0.1, 0.5, 1.0)
BEGUN = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE, AFTER = "2026-01-01T11:00:00Z", "2026-01-01T12:30:00Z"


def gateway(name="g", started=BEFORE, bounds=BOUNDS, **counted):
    return Gateway(name, started, revisions=(RevisionFigures(2, **counted),), ttft_bounds=bounds, itl_bounds=bounds)


@pytest.mark.parametrize(
    ("counts", "share", "found"),
    [
        ((0, 0, 0, 0), 0.5, None),
        ((), 0.5, None),
        ((10, 0, 0, 0), 0.5, 0.05),
        ((10, 10, 0, 0), 0.75, 0.3),
        ((0, 0, 4, 0), 1.0, 1.0),
        ((1, 0, 0, 1), 0.95, math.inf),
    ],
)
def test_percentiles_are_interpolated_inside_their_bucket(counts, share, found):
    assert percentile(BOUNDS, counts, share) == (None if found is None else pytest.approx(found))


def totals(requests=100, errors=0, ttft=(100, 0, 0, 0)):
    return Totals(requests, errors, ttft, ttft, BOUNDS, BOUNDS)


SLOW, FAST = totals(ttft=(0, 0, 100, 0)), totals()
APART = Totals(100, 0, (100, 0, 0, 0), (0, 0, 100, 0), BOUNDS, BOUNDS)
"""Soon the first token, late all others."""


@pytest.mark.parametrize(
    ("gate", "candidate", "stable", "outcome"),
    [
        ({"metric": "ErrorRate", "max": "1%"}, totals(errors=1), FAST, None),
        ({"metric": "ErrorRate", "max": "1%"}, totals(errors=2), FAST, Failed),
        ({"metric": "ErrorRate", "max": "1%"}, totals(requests=19, errors=19), FAST, Blocked),
        ({"metric": "TimeToFirstTokenP95", "max": "1s"}, SLOW, FAST, None),
        ({"metric": "TimeToFirstTokenP95", "max": "900ms"}, SLOW, FAST, Failed),
        ({"metric": "TimeToFirstTokenP95", "maxRegression": "20%"}, SLOW, SLOW, None),
        ({"metric": "TimeToFirstTokenP95", "maxRegression": "20%"}, SLOW, FAST, Failed),
        ({"metric": "InterTokenLatencyP99", "maxRegression": "20%"}, FAST, SLOW, None),
        ({"metric": "TimeToFirstTokenP95", "maxRegression": "20%"}, SLOW, totals(ttft=(3, 0, 0, 0)), Blocked),
        ({"metric": "TimeToFirstTokenP95", "max": "1s"}, totals(ttft=(0, 0, 0, 0)), FAST, Blocked),
        # Requests without a stream have no times: few streams are too few, however many requests there are.
        ({"metric": "TimeToFirstTokenP95", "max": "100ms"}, totals(ttft=(0, 0, 19, 0)), FAST, Blocked),
        ({"metric": "InterTokenLatencyP95", "max": "100ms"}, totals(ttft=(0, 0, 19, 0)), FAST, Blocked),
        ({"metric": "TimeToFirstTokenP95", "max": "1s"}, totals(ttft=(0, 0, 0, 100)), FAST, Failed),
        ({"metric": "ErrorRate", "max": "1s"}, FAST, FAST, Blocked),
        ({"metric": "TimeToFirstTokenP95", "max": "1%"}, FAST, FAST, Blocked),
        # Exactly as many as are needed, and exactly as much as is allowed.
        ({"metric": "ErrorRate", "max": "1%"}, totals(requests=20, errors=20), FAST, Failed),
        ({"metric": "TimeToFirstTokenP50", "max": "750ms"}, SLOW, FAST, None),
        ({"metric": "TimeToFirstTokenP50", "max": "749ms"}, SLOW, FAST, Failed),
        ({"metric": "TimeToFirstTokenP50", "maxRegression": "30%"}, totals(ttft=(80, 20, 0, 0)), FAST, None),
        ({"metric": "TimeToFirstTokenP50", "maxRegression": "20%"}, totals(ttft=(80, 20, 0, 0)), FAST, Failed),
        # Each percentile is another one.
        ({"metric": "TimeToFirstTokenP50", "max": "100ms"}, totals(ttft=(98, 0, 2, 0)), FAST, None),
        ({"metric": "TimeToFirstTokenP95", "max": "100ms"}, totals(ttft=(98, 0, 2, 0)), FAST, None),
        ({"metric": "TimeToFirstTokenP99", "max": "100ms"}, totals(ttft=(98, 0, 2, 0)), FAST, Failed),
        # Neither are times to first tokens those between tokens.
        ({"metric": "TimeToFirstTokenP95", "max": "100ms"}, APART, FAST, None),
        ({"metric": "InterTokenLatencyP95", "max": "100ms"}, APART, FAST, Failed),
        ({"metric": "TimeToFirstTokenP95", "maxRegression": "20%"}, APART, SLOW, None),
        ({"metric": "InterTokenLatencyP95", "maxRegression": "20%"}, SLOW, APART, None),
        # One answer of one token has no time between tokens.
        ({"metric": "InterTokenLatencyP95", "max": "1s"}, Totals(20, 0, (20, 0), (), (1.0,), (1.0,)), FAST, Blocked),
    ],
)
def test_a_gate_holds_blocks_or_fails(gate, candidate, stable, outcome):
    judged = judge(Gate.model_validate(gate), candidate, stable)
    assert judged is None if outcome is None else isinstance(judged, outcome)
    if judged is not None:
        assert gate["metric"] in judged.message


@pytest.mark.parametrize(("needed", "words"), [(15, 15), (100, 20), (1_000_000, 20)])
def test_what_is_awaited_is_told_in_a_few_different_words(needed, words):
    gate = Gate.model_validate({"metric": "ErrorRate", "max": "1%", "minRequests": needed})
    said = {judge(gate, totals(requests=needed * part // 300), FAST).message for part in range(300)}
    assert len(said) <= words
    assert f"ErrorRate: 0 of {needed} requests seen" in said


def test_only_what_came_after_the_beginning_counts_and_gateways_add_up():
    begun = window((gateway("a", requests=10, errors=1), gateway("b", requests=5)), (2,))
    now = (gateway("a", requests=30, errors=2, ttft=(1, 0, 0, 0)), gateway("b", requests=6, ttft=(0, 2, 0, 0)))
    found = since(now, 2, begun, BEGUN)
    assert (found.requests, found.errors, found.ttft) == (21, 1, (1, 2, 0, 0))


@pytest.mark.parametrize(
    ("now", "requests"),
    [
        (gateway("a", AFTER, requests=7), 7),  # it started anew: everything is new
        (gateway("c", AFTER, requests=7), 7),  # another one came
        (gateway("c", BEFORE, requests=7), 0),  # it had not answered then: nobody knows how much is older
    ],
)
def test_a_gateway_that_was_not_written_down_counts_if_it_is_younger(now, requests):
    assert since((now,), 2, window((gateway("a", requests=100),), (2,)), BEGUN).requests == requests


def test_latencies_in_other_buckets_are_left_aside():
    other = gateway("b", bounds=(1.0,), requests=1, ttft=(9, 9))
    begun = window((gateway("a"), gateway("b", bounds=(1.0,))), (2,))
    found = since((gateway("a", requests=1, ttft=(1, 0, 0, 0)), other), 2, begun, BEGUN)
    assert (found.requests, found.ttft) == (2, (1, 0, 0, 0))


@pytest.mark.parametrize("bounds", [((0.2, 0.5, 1.0), BOUNDS), (BOUNDS, (0.2, 0.5, 1.0))])
def test_buckets_are_the_same_only_if_both_are(bounds):
    figures = RevisionFigures(2, requests=1, ttft=(9, 0, 0, 0), itl=(9, 0, 0, 0))
    other = Gateway("b", AFTER, revisions=(figures,), ttft_bounds=bounds[0], itl_bounds=bounds[1])
    found = since((gateway("a", AFTER, requests=1, ttft=(1, 0, 0, 0), itl=(2, 0, 0, 0)), other), 2, (), BEGUN)
    assert (found.requests, found.ttft, found.itl) == (2, (1, 0, 0, 0), (2, 0, 0, 0))


def test_a_gateway_that_started_at_the_very_moment_counts_whole():
    young = gateway("c", "2026-01-01T12:00:00Z", requests=7, ttft=(7, 0, 0, 0))
    assert completed((), (young,), (2,), BEGUN) == ()
    assert since((young,), 2, (), BEGUN).requests == 7


def test_what_goes_back_is_no_negative_count():
    begun = window((gateway("a", requests=10, errors=5, ttft=(5, 5, 0, 0)),), (2,))
    found = since((gateway("a", requests=8, errors=4, ttft=(4, 6, 0, 0)),), 2, begun, BEGUN)
    assert (found.requests, found.errors, found.ttft) == (0, 0, (0, 1, 0, 0))


def test_who_answers_late_or_was_another_one_counts_from_then_on():
    """`a` was there, and has started anew since, but before; `b` did not answer then."""
    begun = window((gateway("a", "2026-01-01T10:00:00Z", requests=1),), (2,))
    now = gateway("a", requests=7, errors=3, ttft=(7, 0, 0, 0), itl=(3, 0, 0, 0)), gateway("b", requests=5)
    whole = completed(begun, now, (2, 1), BEGUN)
    assert whole[:1] == begun
    assert [(one.gateway, one.number, one.requests) for one in whole[1:]] == [
        ("a", 2, 7),
        ("a", 1, 0),
        ("b", 2, 5),
        ("b", 1, 0),
    ]
    assert completed(whole, now, (2, 1), BEGUN) == whole
    later = gateway("a", requests=9, errors=4, ttft=(9, 0, 0, 0), itl=(5, 0, 0, 0)), gateway("b", requests=5)
    found = since(later, 2, whole, BEGUN)
    assert (found.requests, found.errors, found.ttft, found.itl) == (2, 1, (2, 0, 0, 0), (2, 0, 0, 0))


def test_what_had_been_counted_by_then_is_the_sum_of_what_was_written_down():
    counted = {"requests": 3, "errors": 1, "ttft": (3, 0, 0, 0), "itl": (0, 4, 0, 0)}
    begun = window((gateway("a", **counted), gateway("b", **counted)), (2, 1))
    assert until((gateway("c"),), 2, begun) == Totals(6, 2, (6, 0, 0, 0), (0, 8, 0, 0), BOUNDS, BOUNDS)
    assert until((), 1, begun).requests == 0


def test_what_is_to_be_compared_with_is_known_once_it_was_counted():
    regression = Gate.model_validate({"metric": "TimeToFirstTokenP95", "maxRegression": "20%", "minRequests": 20})
    fixed = Gate.model_validate({"metric": "TimeToFirstTokenP95", "max": "1s", "minRequests": 20})
    few = all_along((gateway("a", requests=50, ttft=(10, 0, 0, 0)), gateway("b", AFTER, ttft=(9, 0, 0, 0))), 2)
    short = unmeasured((fixed, regression), few)
    assert short == Blocked("TimeToFirstTokenP95: more than 18 of 20 streams seen of the revision to compare with")
    assert unmeasured((fixed,), few) is None
    assert unmeasured((regression,), totals(ttft=(20, 0, 0, 0))) is None


def test_what_is_beyond_the_last_bucket_is_told_so():
    gate = Gate.model_validate({"metric": "TimeToFirstTokenP95", "maxRegression": "20%"})
    assert judge(gate, totals(ttft=(0, 0, 0, 100)), FAST) == Failed(
        "TimeToFirstTokenP95 is above the largest bucket, more than 95ms and 20%"
    )
