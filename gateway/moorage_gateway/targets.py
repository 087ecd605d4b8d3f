"""What this gateway knows about each target beyond the table: its load and whether connections to it fail."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

FAILURES_TO_EJECT: Final = 3
"""Consecutive connection failures after which a target is left out."""
EJECTED_SECONDS: Final = 1.0
"""How long it is left out the first time; it doubles with every failed probe."""
EJECTED_SECONDS_MOST: Final = 30.0


@dataclass(slots=True)
class _State:
    in_flight: int = 0
    others: int = 0  # requests that the replica reported beyond ours: those of other gateways and of direct clients
    failures: int = 0
    used: float = float("-inf")
    probe_at: float = 0.0
    ejected_for: float = 0.0


class Targets:
    """Load and connection failures by target key. The clock is an argument everywhere.

    A target is ejected after consecutive connection failures. It comes back when any connection to it succeeds: the
    telemetry scrape is the half-open probe once `probe_due` says so, so that no client's request has to be the one that
    finds out.

    Attributes:
        load: Requests in flight from here plus those that the replica reports beyond them; what `balance.choose` reads.
        ejected: Keys of targets to leave out.
    """

    def __init__(self) -> None:
        self.load: dict[str, int] = {}
        self.ejected: frozenset[str] = frozenset()
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

    def used_since(self, key: str, moment: float) -> bool:
        """Whether this gateway has sent it a request since, or has one in flight."""
        state = self._states.get(key)
        return state is not None and (state.in_flight > 0 or state.used >= moment)

    def succeeded(self, key: str) -> None:
        """A connection to it worked."""
        state = self._states.get(key)
        if state is None or not state.failures:
            return
        state.failures, state.ejected_for = 0, 0.0
        self.ejected -= {key}

    def failed(self, key: str, now: float) -> bool:
        """A connection to it failed; True when this one ejects it."""
        state = self._state(key)
        state.failures += 1
        newly = state.failures >= FAILURES_TO_EJECT and key not in self.ejected
        if newly or (key in self.ejected and now >= state.probe_at):
            state.ejected_for = min(state.ejected_for * 2 or EJECTED_SECONDS, EJECTED_SECONDS_MOST)
            state.probe_at = now + state.ejected_for
            self.ejected |= {key}
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
        self.ejected &= frozenset(self._states)

    def _state(self, key: str) -> _State:
        return self._states.setdefault(key, _State())
