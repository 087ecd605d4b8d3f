"""Times that others subtract."""

import time
from datetime import UTC, datetime, timedelta

from moorage_gateway.clock import Clock


def test_it_tells_the_machines_time_in_milliseconds():
    before = datetime.now(UTC)
    text = Clock().text(time.monotonic())
    assert text.endswith("Z")
    assert len(text) == len("2026-11-22T08:00:00.000Z")
    assert before - timedelta(milliseconds=2) <= datetime.fromisoformat(text) <= datetime.now(UTC)


def test_a_step_of_the_machines_clock_is_none_of_its(monkeypatch):
    clock = Clock()
    before = clock.text(clock.started)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.text(clock.started) == before
    later = datetime.fromisoformat(clock.text(clock.started + 90))
    assert later - datetime.fromisoformat(before) == timedelta(seconds=90)
