"""The internal door: probes for the kubelet, metrics for Prometheus, telemetry for the operator."""

from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from moorage_api import names
from moorage_gateway import answers
from moorage_gateway.answers import Answer, Receive, Scope, Send
from moorage_gateway.metrics import Metrics
from moorage_gateway.telemetry import Telemetry

_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_PROMETHEUS: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class InternalApp:
    """A raw ASGI application.

    Args:
        metrics: For `/metrics`.
        telemetry: For `/telemetry`.
        synced: Whether the routes have been read: what is not known is not told as nothing.
        draining: Whether no new request should come here.
    """

    def __init__(
        self, metrics: Metrics, telemetry: Telemetry, *, synced: Callable[[], bool], draining: Callable[[], bool]
    ) -> None:
        self._metrics, self._telemetry = metrics, telemetry
        self._synced, self._draining = synced, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] == names.TELEMETRY_PATH and self._synced() and _wants_watch(scope):
            await self._telemetry.watch(receive, send)
        else:
            await answers.send_answer(send, self._answer(scope["path"]))

    def _answer(self, path: str) -> Answer:
        if path == names.HEALTH_PATH:
            return Answer(200, [_TEXT], b"ok\n")
        if path == names.READY_PATH:
            return self._ready()
        if path == names.METRICS_PATH:
            return Answer(200, [_PROMETHEUS], self._metrics.text())
        if path == names.TELEMETRY_PATH:
            return Answer(200, [_JSON], self._telemetry.whole()) if self._synced() else _NOT_SYNCED
        return Answer(404, [_TEXT], b"There are /healthz, /readyz, /metrics and /telemetry here.\n")

    def _ready(self) -> Answer:
        if self._draining():
            return Answer(503, [_TEXT], b"draining\n")
        return Answer(200, [_TEXT], b"ok\n") if self._synced() else _NOT_SYNCED


_NOT_SYNCED: Final = Answer(503, [_TEXT], b"the routes have not been read yet\n")


def _wants_watch(scope: Scope) -> bool:
    return "watch" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
