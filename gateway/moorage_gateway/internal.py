"""The internal door: probes and metrics, for the kubelet and for Prometheus."""

from collections.abc import Callable
from typing import Final

from moorage_api import names
from moorage_gateway import answers
from moorage_gateway.answers import Answer, Receive, Scope, Send
from moorage_gateway.metrics import Metrics

_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_PROMETHEUS: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class InternalApp:
    """A raw ASGI application; `unready` gives the reason why no request should come here, or an empty string."""

    def __init__(self, metrics: Metrics, unready: Callable[[], str]) -> None:
        self._metrics, self._unready = metrics, unready

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        await answers.send_answer(send, self._answer(scope["path"]))

    def _answer(self, path: str) -> Answer:
        if path == names.HEALTH_PATH:
            return Answer(200, [_TEXT], b"ok\n")
        if path == names.READY_PATH:
            reason = self._unready()
            return Answer(503 if reason else 200, [_TEXT], f"{reason or 'ok'}\n".encode())
        if path == names.METRICS_PATH:
            return Answer(200, [_PROMETHEUS], self._metrics.text())
        return Answer(404, [_TEXT], b"There are /healthz, /readyz and /metrics here.\n")
