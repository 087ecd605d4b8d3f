"""What was written earlier, read back: what is not understood is as if it had not been there."""

from datetime import UTC, datetime

import pytest

from moorage_api.status import Decision
from moorage_operator.plan.passing import passes
from moorage_operator.plan.remembered import Row, all_remembered, remembered, remembered_moment


@pytest.mark.parametrize(
    ("raw", "moment"),
    [
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T01:00:00+01:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00", None),
        ("yesterday", None),
        (7, None),
        (None, None),
    ],
)
def test_a_time(raw, moment):
    assert remembered_moment(raw) == moment


def test_of_a_list_what_is_understood():
    row = {"number": 2, "weight": 10, "role": "invented later", "modelDigest": "sha256:0"}
    assert all_remembered(Row, [row, {"weight": 1}, "r2", None]) == (Row(number=2, weight=10, model_digest="sha256:0"),)
    assert all_remembered(Row, None) == all_remembered(Row, {"number": 1}) == ()


def test_a_part():
    assert remembered(Decision, None) is None
    assert remembered(Decision, {"kind": "Promote"}) is None


def test_a_damaged_condition_is_no_passing_phase():
    assert not passes({"conditions": [{"type": "Ready"}]}, {"conditions": []})
