"""Prometheus metrics under vLLM's names and buckets, so that dashboards and autoscalers made for vLLM read them.

Source: `vllm/v1/metrics/loggers.py`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from moorage_runtime.engine.messages import Stats

_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_CHOICES = (1, 2, 5, 10, 20)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


class Tally(Collector):
    """A histogram that is written for every token: the library's takes a lock and walks over its buckets each time."""

    def __init__(self, name: str, text: str, labels: Mapping[str, str], bounds: Sequence[float]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The counts of all values up to each bound, as Prometheus wants them."""
        family = HistogramMetricFamily(self._name, self._text, labels=list(self._labels))
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(map(float, self._counts)), strict=True))
        family.add_metric(list(self._labels.values()), buckets, self._sum)
        yield family


class Metrics:
    """All metrics of one server; its own registry, so that two servers in one process do not mix."""

    def __init__(self, model_name: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._labels = {"model_name": model_name, "engine": "0"}
        self._running = self._gauge("num_requests_running", "Requests that are computed.")
        self._waiting = self._gauge("num_requests_waiting", "Requests that wait to be computed.")
        self._cache = self._gauge("kv_cache_usage_perc", "Share of the KV cache in use; 1 is all of it.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens processed, computed or from the cache.")
        self._generated = self._counter("generation_tokens", "Tokens generated.")
        self._preemptions = self._counter("num_preemptions", "Requests that lost their place to others.")
        self._queries = self._counter("prefix_cache_queries", "Prompt tokens that were looked up in the prefix cache.")
        self._hits = self._counter("prefix_cache_hits", "Prompt tokens that were found there.")
        self._iteration = self._histogram("iteration_tokens_total", "Prompt and answer tokens in a step.", _STEP_TOKENS)
        self._ttft = self._histogram("time_to_first_token_seconds", "Arrival to first token.", _TTFT)
        self._queued = self._histogram("request_queue_time_seconds", "Time of a request in the queue.", _LATENCY)
        self._itl = Tally("vllm:inter_token_latency_seconds", "Between tokens of one request.", self._labels, _ITL)
        self._registry.register(self._itl)
        self._e2e = self._histogram("e2e_request_latency_seconds", "Arrival to last token.", _LATENCY)
        self._request_prompt = self._histogram("request_prompt_tokens", "Prompt tokens of a request.", _TOKENS)
        self._request_output = self._histogram("request_generation_tokens", "Tokens generated for it.", _TOKENS)
        self._choices = self._histogram("request_params_n", "Choices that a request asks for.", _CHOICES)
        self._max_tokens = self._histogram("request_params_max_tokens", "Tokens that it allows.", _TOKENS)
        self._finished = Counter(
            "vllm:request_success",
            "Requests that ended, by reason.",
            (*self._labels, "finished_reason"),
            registry=self._registry,
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, tuple(self._labels), registry=self._registry).labels(**self._labels)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, tuple(self._labels), registry=self._registry).labels(**self._labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        metric = Histogram(f"vllm:{name}", text, tuple(self._labels), registry=self._registry, buckets=buckets)
        return metric.labels(**self._labels)

    def stepped(self, stats: Stats) -> None:
        """The engine has made a step."""
        looked_up = stats.prompt_tokens + stats.cached_prompt_tokens
        self._prompt_tokens.inc(looked_up)
        self._queries.inc(looked_up)
        self._hits.inc(stats.cached_prompt_tokens)
        self._iteration.observe(stats.prompt_tokens + stats.generated_tokens)
        self._generated.inc(stats.generated_tokens)
        self._preemptions.inc(stats.preemptions)

    def asked(self, *, choices: int, max_tokens: int) -> None:
        """A request was taken."""
        self._choices.observe(choices)
        self._max_tokens.observe(max_tokens)

    def first_token(self, seconds: float, *, queued: float) -> None:
        """A sequence has its first token, this long after its request arrived; of that, it waited to be computed."""
        self._ttft.observe(seconds)
        self._queued.observe(queued)

    def next_token(self, seconds: float) -> None:
        """A sequence has another token, this long after the one before."""
        self._itl.observe(seconds)

    def finished(self, reason: str, *, seconds: float, prompt_tokens: int, generated: int) -> None:
        """A sequence has ended."""
        self._finished.labels(**self._labels, finished_reason=reason).inc()
        self._e2e.observe(seconds)
        self._request_prompt.observe(prompt_tokens)
        self._request_output.observe(generated)

    def render(self, *, running: int, waiting: int, kv_utilization: float) -> bytes:
        """The text format of Prometheus, with these current values."""
        self._running.set(running)
        self._waiting.set(waiting)
        self._cache.set(kv_utilization)
        return generate_latest(self._registry)
