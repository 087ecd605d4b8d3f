"""Prometheus metrics under controller-runtime's and client-go's names, so that existing dashboards show them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from moorage_operator.shell.queue import QueueMetrics

CONTROLLER = "llmdeployment"


class Metrics:
    """All of the operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Register them."""
        self.registry = CollectorRegistry()
        self.queue = QueueMetrics(self.registry, CONTROLLER)
        by_controller = ("controller",)
        self.reconciled = Counter(
            "controller_runtime_reconcile",
            "Reconciliations by result",
            ("controller", "result"),
            registry=self.registry,
        )
        self.errors = Counter(
            "controller_runtime_reconcile_errors", "Failed reconciliations", by_controller, registry=self.registry
        ).labels(CONTROLLER)
        self.seconds = Histogram(
            "controller_runtime_reconcile_time_seconds", "Seconds each took", by_controller, registry=self.registry
        ).labels(CONTROLLER)
        self.active = Gauge(
            "controller_runtime_active_workers", "Workers that have a key", by_controller, registry=self.registry
        ).labels(CONTROLLER)
        self.leading = Gauge(
            "leader_election_master_status", "1 while this process leads", ("name",), registry=self.registry
        )
        self.requests = Counter(
            "rest_client_requests", "Requests to the API server", ("method", "code"), registry=self.registry
        )
        self.objects = Gauge("moorage_operator_known_objects", "Objects in memory", registry=self.registry)

    def observe_request(self, method: str, code: str) -> None:
        """Count a request to the API server."""
        self.requests.labels(method, code).inc()

    def observe_result(self, result: str) -> None:
        """Count a reconciliation: `success`, `requeue`, `requeue_after` or `error`."""
        self.reconciled.labels(CONTROLLER, result).inc()
