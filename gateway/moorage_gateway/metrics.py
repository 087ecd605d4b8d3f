"""What the gateway measures, for Prometheus.

Labels take only values that the route table knows or that are a closed set, so that no client can grow them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from moorage_gateway.table import Model

_LABELS: Final = ("namespace", "deployment", "revision")
_FIRST_TOKEN: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
_DURATION: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)

_Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Series:
    """The figures of one revision, with its labels bound."""

    labels: _Name
    in_flight: Gauge
    first_token: Histogram
    duration: Histogram


class Metrics:
    """Every figure of this process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "moorage_gateway_requests_total",
            "Requests that were routed to a replica and ended, by the status that the client got.",
            (*_LABELS, "code"),
            registry=registry,
        )
        self._errors = Counter(
            "moorage_gateway_errors_total",
            "Failures between gateway and replica by kind: connect, reset, timeout, unavailable, cut (in mid-stream), "
            "client_gone. A retried request can count here and succeed.",
            (*_LABELS, "kind"),
            registry=registry,
        )
        self._first_token = Histogram(
            "moorage_gateway_time_to_first_token_seconds",
            "From a streaming request's arrival to the first byte of its answer's body.",
            _LABELS,
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self._duration = Histogram(
            "moorage_gateway_request_duration_seconds",
            "From a request's arrival to the last byte of its answer.",
            _LABELS,
            buckets=_DURATION,
            registry=registry,
        )
        self._in_flight = Gauge(
            "moorage_gateway_requests_in_flight",
            "Requests sent to a replica and not answered in full yet.",
            _LABELS,
            registry=registry,
        )
        self._refused = Counter(
            "moorage_gateway_refused_total",
            "Requests that reached no replica, by reason.",
            ("reason",),
            registry=registry,
        )
        self.ejections = Counter(
            "moorage_gateway_ejections_total",
            "Times that a replica was left out after consecutive connection failures.",
            registry=registry,
        )
        self._series: dict[_Name, Series] = {}

    def series(self, model: Model, revision: int) -> Series:
        """The figures of one revision of a model."""
        name = (model.namespace, model.deployment, str(revision))
        found = self._series.get(name)
        if found is None:
            found = self._series[name] = Series(
                name,
                in_flight=self._in_flight.labels(*name),
                first_token=self._first_token.labels(*name),
                duration=self._duration.labels(*name),
            )
        return found

    def ended(self, series: Series, code: int) -> None:
        """A routed request is over."""
        if self._is_kept(series):
            self._requests.labels(*series.labels, str(code)).inc()

    def failed(self, series: Series, kind: str) -> None:
        """Something went wrong between gateway and replica."""
        if self._is_kept(series):
            self._errors.labels(*series.labels, kind).inc()

    def _is_kept(self, series: Series) -> bool:
        """A request may outlive its revision: counting it would bring back labels that nobody removes again."""
        return self._series.get(series.labels) is series

    def refused(self, reason: str) -> None:
        """A request reached no replica."""
        self._refused.labels(reason).inc()

    def keep(self, models: Iterable[Model]) -> None:
        """Drop the series of every revision that the table no longer has."""
        kept = {(m.namespace, m.deployment, str(revision.number)) for m in models for revision in m.revisions}
        for name in [name for name in self._series if name not in kept]:
            del self._series[name]
            labels = dict(zip(_LABELS, name, strict=True))
            for metric in (self._requests, self._errors, self._first_token, self._duration, self._in_flight):
                metric.remove_by_labels(labels)

    def text(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)
