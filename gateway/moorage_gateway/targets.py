"""What this gateway knows about each target beyond the table: its load, its last report, and whether it fails."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from moorage_gateway.report import Report

FAILURES_TO_EJECT: Final = 3
"""Consecutive failures after which a target is left out."""
EJECTED_SECONDS: Final = 1.0
"""How long it is left out the first time; it doubles with every failed probe."""
EJECTED_SECONDS_MOST: Final = 30.0
REPORT_SECONDS: Final = 15.0
"""An older report says nothing about now. A target that is not in use gives one every 10 seconds."""


@dataclass(slots=True)
class _State:
    in_flight: int = 0
    others: int = 0  # requests that the replica reported beyond ours: those of other gateways and of direct clients
    unreachable: int = 0  # connections that failed in a row
    faults: int = 0  # requests in a row that it took and did not answer
    used: float = float("-inf")
    probe_at: float = 0.0
    ejected_for: float = 0.0
    report: Report | None = None
    reported: float = float("-inf")


class Targets:
    """Load, reports and failures by target key. The clock is an argument everywhere.

    A target is ejected after consecutive failures: connections to it that failed, or requests that it did not answer.
    It comes back when a request or a probe succeeds: a probe of its readiness is made once `probe_due` says so, so that
    no client's request has to be the one that finds out.

    Attributes:
        load: Requests in flight from here plus those that the replica reports beyond them; what `balance.choose` reads.
        ejected: Keys of targets to leave out.
        ejections: How many times one was ejected.
        busy: When a target last said that it has requests, whoever sent them; no entry where it never did.
    """

    def __init__(self) -> None:
        self.load: dict[str, int] = {}
        self.ejected: frozenset[str] = frozenset()
        self.ejections = 0
        self.busy: dict[str, float] = {}
        self._states: dict[str, _State] = {}

    def begin(self, key: str, now: float) -> None:
        """A request goes to this target."""
        state = self._state(key)
        state.in_flight += 1
        state.used = now
        self.load[key] = state.in_flight + state.others

    def end(self, key: str, now: float) -> None:
        """That request is over, however it ended."""
        if (state := self._states.get(key)) is not None:
            state.in_flight -= 1
            state.used = now
            self.load[key] = state.in_flight + state.others

    def report(self, key: str, requests: int) -> None:
        """The replica itself says that it has so many requests, running and waiting, ours among them."""
        state = self._state(key)
        state.others = max(0, requests - state.in_flight)
        self.load[key] = state.in_flight + state.others

    def note(self, key: str, report: Report, now: float) -> None:
        """Keep what the replica says of itself."""
        state = self._state(key)
        state.report, state.reported = report, now
        if (requests := report.requests) is not None:
            self.report(key, requests)
            if requests:
                self.busy[key] = now

    def last_report(self, key: str, now: float) -> tuple[Report, float] | None:
        """What it said of itself, and when; None where that was too long ago."""
        state = self._states.get(key)
        if state is None or state.report is None or state.reported < now - REPORT_SECONDS:
            return None
        return state.report, state.reported

    def scrape_often(self, key: str, moment: float) -> bool:
        """Whether this gateway has yet to hear of it, or uses it: has a request there, or had one since."""
        state = self._states.get(key)
        return state is None or state.in_flight > 0 or state.used >= moment

    def is_new(self, key: str) -> bool:
        """Whether nothing is known of it yet."""
        return key not in self._states

    def reached(self, key: str) -> None:
        """A connection to it worked."""
        self._state(key).unreachable = 0

    def succeeded(self, key: str) -> None:
        """It answered a request, or says that it takes some."""
        state = self._states.get(key)
        if state is None or not (state.unreachable or state.faults):
            return
        state.unreachable, state.faults, state.ejected_for = 0, 0, 0.0
        if key in self.ejected:
            self.ejected -= {key}

    def failed(self, key: str, now: float, *, connected: bool) -> bool:
        """A connection to it failed, or it did not answer on one; True when this ejects it."""
        state = self._state(key)
        if connected:
            state.faults += 1
        else:
            state.unreachable += 1
        newly = max(state.unreachable, state.faults) >= FAILURES_TO_EJECT and key not in self.ejected
        if newly or (key in self.ejected and now >= state.probe_at):
            state.ejected_for = min(state.ejected_for * 2 or EJECTED_SECONDS, EJECTED_SECONDS_MOST)
            state.probe_at = now + state.ejected_for
            self.ejected |= {key}
        self.ejections += newly
        return newly

    def probe_due(self, key: str, now: float) -> bool:
        """Whether it is ejected and its time is up: the next connection decides."""
        return key in self.ejected and now >= self._states[key].probe_at

    def keep(self, keys: Iterable[str]) -> None:
        """Forget every target but these and those that still carry a request of ours."""
        kept = set(keys)
        for key in [key for key, state in self._states.items() if key not in kept and not state.in_flight]:
            del self._states[key]
            self.load.pop(key, None)
            self.busy.pop(key, None)
        self.ejected &= frozenset(self._states)

    def _state(self, key: str) -> _State:
        return self._states.setdefault(key, _State())
