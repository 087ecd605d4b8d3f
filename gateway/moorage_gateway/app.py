"""The public door: a raw ASGI application, because a framework would cost more than the proxying."""

from collections.abc import Callable
from typing import Final

from moorage_gateway import answers, request
from moorage_gateway.answers import Answer, Receive, Refused, Scope, Send
from moorage_gateway.metrics import Metrics
from moorage_gateway.proxy import Proxy
from moorage_gateway.request import ClientGoneError, Limits
from moorage_gateway.table import Ambiguous, Model, Table

_MODELS: Final = "/v1/models"
_COMPLETIONS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})


class App:
    """OpenAI's API over every model of a table.

    Args:
        table: Gives the current route table, None while there is none yet.
        proxy: Serves what is routed.
        metrics: Counts what is not.
        limits: What a client may send.
    """

    def __init__(self, table: Callable[[], Table | None], proxy: Proxy, metrics: Metrics, limits: Limits) -> None:
        self._table, self._proxy, self._metrics, self._limits = table, proxy, metrics, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if scope["path"] in _COMPLETIONS:
                await self._complete(scope, receive, send)
            else:
                await answers.send_answer(send, self._manage(scope))
        except Refused as refused:
            self._metrics.refused(refused.reason)
            if not refused.told:
                await answers.send_answer(send, _closing(scope, refused.answer))
        except ClientGoneError:
            self._metrics.refused("client_gone")

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise answers.wrong_method(scope["method"], scope["path"], "POST")
        inbound = await request.read(scope, receive, self._limits)
        await self._proxy.serve(self._model(inbound.name), inbound, receive, send)

    def _model(self, name: str) -> Model:
        found = self._routes().resolve(name)
        if found is None or isinstance(found, Ambiguous):
            raise answers.unknown_model(name, found)
        return found

    def _manage(self, scope: Scope) -> Answer:
        if scope["path"] != _MODELS:
            raise answers.unknown_path(scope["path"])
        if scope["method"] != "GET":
            raise answers.wrong_method(scope["method"], _MODELS, "GET")
        table = self._routes()
        return answers.ok({"object": "list", "data": [_listed(table, model) for model in _serving(table)]})

    def _routes(self) -> Table:
        table = self._table()
        if table is None:
            raise answers.no_routes()
        return table


def _serving(table: Table) -> list[Model]:
    return sorted((model for model in table.full.values() if model.can_serve), key=lambda model: model.full_name)


def _listed(table: Table, model: Model) -> dict[str, object]:
    name = table.shortest_name(model)
    return {"id": name, "object": "model", "created": model.created, "owned_by": model.namespace}


def _closing(scope: Scope, answer: Answer) -> Answer:
    """Close on a client that waits for leave to send its body: what its next bytes are would be anyone's guess."""
    if any(name == b"expect" for name, _ in scope["headers"]):
        return Answer(answer.status, [*answer.headers, (b"connection", b"close")], answer.body)
    return answer
