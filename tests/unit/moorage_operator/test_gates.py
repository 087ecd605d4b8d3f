"""Percentiles and gates, and what counts when gateways come, go and start anew."""

import math
from datetime import UTC, datetime

import pytest

from moorage_api.rollout import Gate
from moorage_operator.plan.figures import Gateway, RevisionFigures
from moorage_operator.plan.gates import Blocked, Failed, Totals, judge, percentile, since, window

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
