"""What this gateway routes to and has counted, model by model, as the operator and the other gateways read it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from moorage_gateway.clock import Clock
from moorage_gateway.figures import BETWEEN_TOKENS_SECONDS, FIRST_TOKEN_SECONDS, Book, Figures
from moorage_gateway.report import Report
from moorage_gateway.table import Key, Model, Revision, Table
from moorage_gateway.targets import Targets

BUCKETS: Final = {"ttft": FIRST_TOKEN_SECONDS, "itl": BETWEEN_TOKENS_SECONDS}
_FRESH_SECONDS: Final = 0.5
_NOTHING: Final = Figures()

Parts = Mapping[str, bytes]
"""Each model's JSON by `namespace/deployment`."""


class View:
    """Gives the current parts.

    A model's is made anew after half a second, and at once when its targets change, or how many requests wait for one.
    """

    def __init__(self, table: Callable[[], Table], book: Book, targets: Targets, clock: Clock) -> None:
        self._table, self._book, self._targets, self._clock = table, book, targets, clock
        self._made: dict[Key, tuple[Model, int, bytes]] = {}
        self._made_at = float("-inf")
        self._ejected = targets.ejected

    def targets(self) -> object:
        """A value that differs when weights or targets do, or when requests begin or cease to wait for some."""
        revisions = {model.key: model.revisions for model in self._table().full.values()}
        return self._targets.ejected, revisions, frozenset(self._book.held)

    def parts(self, now: float) -> Parts:
        """All models of the table, and those that have left it with requests in flight."""
        parts = {"/".join(model.key): self.part(model, now) for model in self._table().full.values()}
        for key, page in self._book.pages.items():
            if "/".join(key) not in parts and any(figures.in_flight for figures in page.values()):
                parts["/".join(key)] = orjson.dumps(self._model(key, _left(page, frozenset()), []))
        return parts

    def part(self, model: Model, now: float) -> bytes:
        """One model of the table."""
        if now >= self._made_at + _FRESH_SECONDS or self._ejected is not self._targets.ejected:
            self._made, self._made_at, self._ejected = {}, now, self._targets.ejected
        made, held = self._made.get(model.key), self._book.held.get(model.key, 0)
        if made is None or made[0] is not model or made[1] != held:
            made = self._made[model.key] = (model, held, self._make(model, now))
        return made[2]

    def _make(self, model: Model, now: float) -> bytes:
        page = self._book.pages.get(model.key, {})
        ejected = self._targets.ejected
        revisions = [_revision(each, page.get(each.number, _NOTHING), ejected) for each in model.revisions]
        left = _left(page, {revision.number for revision in model.revisions})
        pods = [
            _pod(target.key, self._clock.text(heard[1]), heard[0])
            for revision in model.revisions
            for target in revision.targets
            if (heard := self._targets.last_report(target.key, now)) is not None
        ]
        return orjson.dumps(self._model(model.key, revisions + left, pods))

    def _model(self, key: Key, revisions: list[dict[str, Any]], pods: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "namespace": key[0],
            "deployment": key[1],
            "held": self._book.held.get(key, 0),
            "lastDemand": self._clock.text(self._book.demand.get(key, self._clock.started)),
            "revisions": revisions,
            "pods": pods,
        }


def _left(page: Mapping[int, Figures], known: frozenset[int] | set[int]) -> list[dict[str, Any]]:
    """Revisions that have left the table while requests of theirs run on."""
    return [
        _revision(Revision(number, 0, ()), figures, frozenset())
        for number, figures in page.items()
        if number not in known and figures.in_flight
    ]


def _revision(revision: Revision, figures: Figures, ejected: frozenset[str]) -> dict[str, Any]:
    return {
        "number": revision.number,
        "weight": revision.weight,
        "targets": [target.key for target in revision.targets if target.key not in ejected],
        "inFlight": figures.in_flight,
        "requests": figures.requests,
        "errors": figures.errors,
        "tokens": figures.tokens,
        "ttft": figures.first_token.counts,
        "itl": figures.between_tokens.counts,
    }


def _pod(uid: str, heard: str, report: Report) -> dict[str, Any]:
    return {"uid": uid, "at": heard, **report.figures, **({} if report.gpu is None else {"gpu": report.gpu})}
