"""What the gateway counts, per revision: plain numbers, because they are written for every request and every token.

`metrics` shows them to Prometheus and `view` to the operator. All of it grows only, but `in_flight` and `held`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from moorage_gateway.table import Key, Model


def _steps(first: int, last: int) -> tuple[float, ...]:
    """Bounds in six steps for each power of ten: no two are further apart than 5 to 3."""
    return tuple(round(10.0**power * step, 9) for power in range(first, last) for step in (1, 1.5, 2, 3, 5, 7.5))


FIRST_TOKEN_SECONDS: Final = _steps(-2, 2)
BETWEEN_TOKENS_SECONDS: Final = _steps(-3, 1)
DURATION_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
WAIT_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 120.0, 300.0, 600.0)

CLIENT_GONE: Final = "client_gone"
"""The one kind of failure that is not the replica's."""


class Histogram:
    """Observations by bucket.

    Attributes:
        bounds: Upper bounds in seconds, which belong to their bucket; one more bucket takes what is above.
        counts: Observations of each bucket alone, not summed up.
        total: The sum of all observations.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count one value, or the same value several times."""
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.total += seconds * times


@dataclass(slots=True)
class Figures:
    """The figures of one revision. What counts is the attempt: a request that is tried again elsewhere is two.

    Attributes:
        in_flight: Requests sent to a replica and not over yet.
        ended: Requests that are over, by the status that the replica answered with; `none` where it gave none.
        failed: Of these, those that went wrong, by kind; each once.
        tokens: Generated ones: what an answer says of itself, else the events of its stream.
        first_token: From when the attempt began to the first byte of its stream.
        between_tokens: Between the events of a stream.
        duration: From when the attempt began to the last byte of its answer.
    """

    in_flight: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_SECONDS))
    between_tokens: Histogram = field(default_factory=lambda: Histogram(BETWEEN_TOKENS_SECONDS))
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_SECONDS))

    @property
    def requests(self) -> int:
        """All that are over."""
        return sum(self.ended.values())

    @property
    def errors(self) -> int:
        """Those of them that went wrong at the replica."""
        return sum(count for kind, count in self.failed.items() if kind != CLIENT_GONE)

    def end(self, status: int, failure: str = "") -> None:
        """One more is over; `failure` says what went wrong."""
        code = str(status) if status else "none"
        self.ended[code] = self.ended.get(code, 0) + 1
        if failure:
            self.failed[failure] = self.failed.get(failure, 0) + 1


class Book:
    """The figures of every model and revision. No more than the route table ever has, so that no client can grow it.

    Attributes:
        pages: By model and revision.
        held: How many requests of a model wait for a replica; no entry where none does.
        waits: How long they did, by model and by how it ended.
        demand: When a request of a model ended last, or had waited, or a replica of it said that it has some, whoever
            sent them; no entry where none ever did.
    """

    def __init__(self) -> None:
        self.pages: dict[Key, dict[int, Figures]] = {}
        self.held: dict[Key, int] = {}
        self.waits: dict[Key, dict[str, Histogram]] = {}
        self.demand: dict[Key, float] = {}

    def of(self, model: Model, revision: int) -> Figures:
        """The figures of one revision, to count in."""
        page = self.pages.setdefault(model.key, {})
        found = page.get(revision)
        if found is None:
            found = page[revision] = Figures()
        return found

    def waited(self, key: Key, outcome: str) -> Histogram:
        """The waits of one model that ended so, to count in."""
        return self.waits.setdefault(key, {}).setdefault(outcome, Histogram(WAIT_SECONDS))

    def asked(self, models: Iterable[Model], busy: Mapping[str, float]) -> None:
        """Their replicas have had requests, which may have come past this gateway: by target, when one said so last."""
        for model in models:
            moments = [busy[each.key] for revision in model.revisions for each in revision.targets if each.key in busy]
            if moments:
                self.demand[model.key] = max(self.demand.get(model.key, 0.0), *moments)

    def keep(self, models: Iterable[Model]) -> None:
        """Drop what is not theirs, but for revisions that have a request in flight."""
        kept = {model.key: {revision.number for revision in model.revisions} for model in models}
        for key, page in list(self.pages.items()):
            numbers = kept.get(key, ())
            for number in [n for n, figures in page.items() if n not in numbers and not figures.in_flight]:
                del page[number]
            if not page:
                del self.pages[key]
        self.waits = {key: waits for key, waits in self.waits.items() if key in kept}
        self.demand = {key: moment for key, moment in self.demand.items() if key in kept}
