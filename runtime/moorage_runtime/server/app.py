"""The HTTP surface: OpenAI's routes, and those that Kubernetes, Prometheus and the gateway ask.

Bodies are parsed by `requests`, not by FastAPI's models: clients of OpenAI's API expect its own errors.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage_api import names
from moorage_runtime.server.answer import Answer, Delta
from moorage_runtime.server.bodies import Bodies
from moorage_runtime.server.cpu import CpuMeter
from moorage_runtime.server.errors import ApiError, InvalidRequestError
from moorage_runtime.server.events import DONE, Events, event
from moorage_runtime.server.fields import Fields
from moorage_runtime.server.formats import ChatFormat, CompletionFormat, Format
from moorage_runtime.server.generation import Generation
from moorage_runtime.server.gpu import GpuMonitor
from moorage_runtime.server.logprobs import TokenNames
from moorage_runtime.server.requests import ChatRequest, CompletionRequest, parse_body, parse_chat, parse_completion
from moorage_runtime.server.service import Service
from moorage_runtime.server.sse import DIRECT_SEND, ClientLeftError, EventStream, unless_client_leaves

log = logging.getLogger(__name__)
_COMPLETIONS = ("/v1/chat/completions", "/v1/completions")
_CLIENT_CLOSED_REQUEST = 499
Asked = TypeVar("Asked", ChatRequest, CompletionRequest)


def create_app(service: Service, gpus: GpuMonitor, bodies: Bodies) -> ASGIApp:
    """The application."""
    app = FastAPI(title="Moorage runtime", docs_url=None, redoc_url=None, openapi_url=None)
    _add_openai_routes(app, service, bodies)
    _add_status_routes(app, service, gpus)
    _add_error_handlers(app)
    return InFlight(app, service)


class InFlight:
    """Counts requests until their last byte, and says on each answer how busy the server is."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] not in _COMPLETIONS:
            await self._app(scope, receive, send)
            return

        async def send_with_load(message: Message) -> None:
            if message["type"] == "http.response.start":
                load = self._service.load()
                value = f"running={load.running},waiting={load.waiting}".encode()
                message["headers"] = [*message["headers"], (names.LOAD_HEADER.encode(), value)]
            await send(message)

        # Events skip the frameworks' layers, each of which would cost a coroutine per token; headers go through them.
        scope[DIRECT_SEND] = send
        try:
            with self._service.state.request():
                await self._app(scope, receive, send_with_load)
        finally:
            del scope[DIRECT_SEND]  # it refers to the scope: only the garbage collector would find the two


def _add_openai_routes(app: FastAPI, service: Service, bodies: Bodies) -> None:
    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _respond(request, await begin(request, parse_chat, service.chat), ChatFormat)

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        return await _respond(request, await begin(request, parse_completion, service.complete), CompletionFormat)

    async def begin(
        request: Request, parse: Callable[[Fields], Asked], start: Callable[[Asked], Awaitable[Answer]]
    ) -> _Begun:
        """Nothing of a request's body is kept while its answer is made."""
        service.state.require_ready()
        async with bodies.read(request) as body:
            asked = parse(parse_body(body))
            name = service.public_name(asked.model, request.headers.get(names.MODEL_HEADER))
            return _Begun(name, service.names, asked.generation, await start(asked))

    @app.get("/v1/models")
    async def models() -> Response:
        return _json({"object": "list", "data": [_model(service)]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service.public_name(name, None)
        return _json(_model(service))


def _model(service: Service) -> dict[str, object]:
    model = {"id": service.name, "object": "model", "created": service.started_at, "owned_by": "moorage"}
    engine = service.state.engine
    return model if engine is None else model | {"max_model_len": engine.context_length}


def _add_status_routes(app: FastAPI, service: Service, gpus: GpuMonitor) -> None:
    state, cpu = service.state, CpuMeter()

    @app.get(names.HEALTH_PATH)
    async def healthz() -> Response:
        if state.alive:
            return _json({"status": "ok"})
        return _json({"reason": state.phase, "message": state.message}, 503)

    @app.get(names.READY_PATH)
    async def readyz() -> Response:
        if state.phase in ("Ready", "Joined"):
            return _json({"status": "ok"})
        return _json({"reason": state.phase, "message": state.message}, 503)

    @app.get(names.METRICS_PATH)
    async def metrics() -> Response:
        load = service.load()
        text = service.metrics.render(
            running=load.running, waiting=load.waiting, kv_utilization=service.client.stats.kv_utilization
        )
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get(names.TELEMETRY_PATH)
    async def telemetry() -> Response:
        load, stats, used = service.load(), service.client.stats, cpu.utilization()
        return _json(
            {
                "running": load.running,
                "waiting": load.waiting,
                "kvCacheUtilization": round(stats.kv_utilization, 4),
                **({} if used is None else {"cpuUtilization": round(used, 4)}),
                "tokensPerSecond": round(stats.tokens_per_second, 2),
                "phase": state.phase,
                "message": state.message,
                "kernels": state.engine.kernels if state.engine else None,
                "gpu": gpus.latest(),
            }
        )


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refuse(_request: Request, error: ApiError) -> Response:
        return _error(error)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        refusal = InvalidRequestError(f"{error.detail}: {request.method} {request.url.path}", code="unknown_url")
        return _json(refusal.body(), error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(ClientLeftError)
    async def nobody_reads(_request: Request, _error: Exception) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        log.error("fault while answering %s", request.url.path, exc_info=error)
        return _error(ApiError("An internal error happened; it is in the server's log.", code="internal_error"))


@dataclass(frozen=True, slots=True)
class _Begun:
    """An answer that is being made."""

    model: str
    """The name to answer with."""
    tokens: TokenNames
    how: Generation
    answer: Answer


async def _respond(request: Request, begun: _Begun, kind: type[ChatFormat | CompletionFormat]) -> Response:
    how = begun.how
    form = kind(begun.model, begun.tokens, how.logprobs is not None, how.include_usage)
    if how.stream:
        return EventStream(_events(begun.answer, form, include_usage=how.include_usage), {}, _error)
    return _json(await unless_client_leaves(request.receive, _whole(begun.answer, form)))


async def _events(answer: Answer, form: Format, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
    """The answer's events; all that one step of the engine brought leaves in one write."""
    events = Events(form)
    try:
        before = b"".join(event(chunk) for chunk in form.first(len(answer.prompt_tokens)))
        async for batch in answer.deltas():
            yield before + b"".join([events.event(delta) for delta in batch])
            before = b""
        yield (event(form.usage(answer.usage)) if include_usage else b"") + DONE
    finally:
        answer.close()


async def _whole(answer: Answer, form: Format) -> Mapping[str, object]:
    choices: list[list[Delta]] = [[] for _ in answer.prompt_tokens]
    try:
        async for batch in answer.deltas():
            for delta in batch:
                choices[delta.index].append(delta)
    finally:
        answer.close()
    return form.whole(choices, answer.usage)


def _json(value: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _error(error: ApiError) -> Response:
    return _json(error.body(), error.status, error.headers)
