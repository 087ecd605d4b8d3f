"""What the gateway measures, for Prometheus.

Labels take only values that the route table knows or that are a closed set, so that no client can grow them.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from moorage_gateway.figures import Book, Figures, Histogram
from moorage_gateway.targets import Targets

_MODEL_LABELS: Final = ("namespace", "deployment")
_LABELS: Final = (*_MODEL_LABELS, "revision")
_Labelled = tuple[list[str], Figures]


class Metrics:
    """Every figure of this process, in a registry of its own."""

    def __init__(self, book: Book, targets: Targets) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Revisions(book))
        registry.register(_Waiting(book))
        registry.register(_Ejections(targets))
        self._refused = Counter(
            "moorage_gateway_refused_total",
            "Requests that reached no replica, by reason.",
            ("reason",),
            registry=registry,
        )

    def refused(self, reason: str) -> None:
        """A request reached no replica."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)


class _Ejections(Collector):
    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def collect(self) -> Iterable[Metric]:
        about = "Times that a replica was left out after consecutive failures."
        yield CounterMetricFamily("moorage_gateway_ejections", about, value=self._targets.ejections)


class _Revisions(Collector):
    def __init__(self, book: Book) -> None:
        self._book = book

    def collect(self) -> Iterator[Metric]:
        found = [
            ([*key, str(number)], figures) for key, page in self._book.pages.items() for number, figures in page.items()
        ]
        yield _by_word(
            "moorage_gateway_requests",
            "Requests that were sent to a replica and are over, by the status that it answered with; `none` where it "
            "gave none. A request that was tried again elsewhere is two.",
            "code",
            ((labels, figures.ended) for labels, figures in found),
        )
        yield _by_word(
            "moorage_gateway_errors",
            "Of these, those that went wrong, by kind: connect, reset, timeout and unavailable (before the first "
            "byte), cut (in mid-stream), error_event (a stream that ended with an error), server_error (any other "
            "status from 500 on), no_stream (a whole answer where the client waits for a stream), client_gone (no "
            "fault of the replica).",
            "kind",
            ((labels, figures.failed) for labels, figures in found),
        )
        yield from _plain(found)
        yield from _histograms(found)


class _Waiting(Collector):
    def __init__(self, book: Book) -> None:
        self._book = book

    def collect(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            "moorage_gateway_held_requests", "Requests that wait for a replica of their model.", labels=_MODEL_LABELS
        )
        waits = HistogramMetricFamily(
            "moorage_gateway_held_seconds",
            "How long requests waited for a replica, by how it ended: served, client_gone, or the reason of a refusal.",
            labels=(*_MODEL_LABELS, "outcome"),
        )
        for key in sorted(self._book.waits.keys() | self._book.held.keys()):
            held.add_metric(list(key), self._book.held.get(key, 0))
            for outcome, histogram in self._book.waits.get(key, {}).items():
                _add(waits, [*key, outcome], histogram)
        yield from (held, waits)


def _by_word(
    name: str, about: str, label: str, found: Iterable[tuple[list[str], dict[str, int]]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, about, labels=(*_LABELS, label))
    for labels, counts in found:
        for word, count in counts.items():
            family.add_metric([*labels, word], count)
    return family


def _plain(found: list[_Labelled]) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily(
        "moorage_gateway_requests_in_flight", "Requests sent to a replica and not over yet.", labels=_LABELS
    )
    tokens = CounterMetricFamily(
        "moorage_gateway_tokens",
        "Generated tokens: what an answer says of itself, else the events of its stream.",
        labels=_LABELS,
    )
    for labels, figures in found:
        in_flight.add_metric(labels, figures.in_flight)
        tokens.add_metric(labels, figures.tokens)
    yield in_flight
    yield tokens


def _histograms(found: list[_Labelled]) -> Iterator[Metric]:
    first = HistogramMetricFamily(
        "moorage_gateway_time_to_first_token_seconds",
        "From when a request is sent to a replica to the first byte of its stream.",
        labels=_LABELS,
    )
    between = HistogramMetricFamily(
        "moorage_gateway_inter_token_latency_seconds", "Between the events of a stream.", labels=_LABELS
    )
    duration = HistogramMetricFamily(
        "moorage_gateway_request_duration_seconds",
        "From when a request is sent to a replica to the last byte of its answer.",
        labels=_LABELS,
    )
    for labels, figures in found:
        _add(first, labels, figures.first_token)
        _add(between, labels, figures.between_tokens)
        _add(duration, labels, figures.duration)
    yield from (first, between, duration)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    """Prometheus sums its buckets up."""
    summed, buckets = 0, []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        summed += count
        buckets.append((bound, summed))
    family.add_metric(labels, buckets, histogram.total)
