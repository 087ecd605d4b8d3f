"""`custom.metrics.k8s.io/v1beta2` for autoscalers: figures of LLMDeployments, over all gateways.

Types: https://github.com/kubernetes/metrics/blob/master/pkg/apis/custom_metrics/v1beta2/types.go. Errors are
`meta/v1 Status`, as of any Kubernetes API.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs

import orjson

from moorage_api import names
from moorage_gateway import measure, selector
from moorage_gateway.answers import Answer, Receive, Scope, Send, send_answer
from moorage_gateway.front_proxy import FrontProxy
from moorage_gateway.measure import Unknown
from moorage_gateway.protocol import PEER
from moorage_gateway.table import Model, Table

_JSON: Final = (b"content-type", b"application/json")
_GROUP_VERSION: Final = f"{names.METRICS_GROUP}/{names.METRICS_VERSION}"
_ROOT: Final = f"/apis/{_GROUP_VERSION}"
_RESOURCE: Final = f"{names.PLURAL}.{names.GROUP}"
_ALL: Final = "*"
_PARTS: Final = 5  # "namespaces", the namespace, the resource, the name, the metric

Figure = Callable[[Model, str], float | Unknown]


class _Failure(Exception):  # noqa: N818 - the outcome of a request
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.answer = _status(code, reason, message)


class CustomMetrics:
    """A raw ASGI application.

    Args:
        front_proxy: How the API server is known, which alone gets an answer.
        table: Gives the current route table, None while there is none yet.
        figure: Gives a figure of a model.
    """

    def __init__(self, front_proxy: FrontProxy, table: Callable[[], Table | None], figure: Figure) -> None:
        self._front_proxy, self._table, self._figure = front_proxy, table, figure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - no request has a body
        """Answer one request."""
        try:
            answer = self._answer(scope)
        except _Failure as failure:
            answer = failure.answer
        await send_answer(send, answer)

    def _answer(self, scope: Scope) -> Answer:
        if not self._front_proxy.admits(scope["state"].get(PEER)):
            raise _Failure(401, "Unauthorized", "This API answers the API server only. Ask it there.")
        if scope["method"] != "GET":
            raise _Failure(405, "MethodNotAllowed", f"Metrics can be read only, so there is no {scope['method']}.")
        path: str = scope["path"]
        if path == _ROOT:
            return _DISCOVERY
        parts = path.removeprefix(f"{_ROOT}/").split("/")
        if len(parts) != _PARTS or not path.startswith(f"{_ROOT}/namespaces/") or parts[2] != _RESOURCE:
            raise _Failure(404, "NotFound", "the server could not find the requested resource")
        return _listed(self._items(parts[1], parts[3], parts[4], scope["query_string"].decode("latin-1")))

    def _items(self, namespace: str, name: str, metric: str, query: str) -> list[dict[str, object]]:
        fields = parse_qs(query)
        if metric not in measure.METRICS or not _selects(fields.get("metricLabelSelector"))({}):
            raise _not_found(metric, name, f"there are {', '.join(measure.METRICS)}, without labels")
        table = self._table()
        if table is None:
            raise _Failure(503, "ServiceUnavailable", "this gateway has not read its routes yet")
        if name != _ALL:
            model = table.by_key.get((namespace, name))
            if model is None:
                raise _not_found(metric, name, "there is no such LLMDeployment")
            found = self._figure(model, metric)
            if isinstance(found, Unknown):
                raise _not_found(metric, name, found.reason)
            return [_value(model, metric, found)]
        selects = _selects(fields.get("labelSelector"))
        models = sorted((each for each in table.by_key.values() if each.namespace == namespace), key=lambda m: m.key)
        chosen = [(each, self._figure(each, metric)) for each in models if selects(dict(each.labels))]
        return [_value(each, metric, found) for each, found in chosen if not isinstance(found, Unknown)]


def _selects(values: list[str] | None) -> selector.Selects:
    try:
        return selector.parse(values[0] if values else "")
    except selector.BadSelectorError as error:
        raise _Failure(400, "BadRequest", str(error)) from error


def _value(model: Model, metric: str, value: float) -> dict[str, object]:
    described = {
        "kind": names.KIND,
        "namespace": model.namespace,
        "name": model.deployment,
        "apiVersion": names.API_VERSION,
    }
    return {
        "describedObject": described,
        "metric": {"name": metric, "selector": None},
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": measure.quantity(value),
    }


def _listed(items: Iterable[dict[str, object]]) -> Answer:
    found = {"kind": "MetricValueList", "apiVersion": _GROUP_VERSION, "metadata": {}, "items": list(items)}
    return Answer(200, [_JSON], orjson.dumps(found))


def _not_found(metric: str, name: str, why: str) -> _Failure:
    """In the words of other metrics APIs: https://github.com/kubernetes-sigs/custom-metrics-apiserver."""
    message = f"the server could not find the metric {metric} for {_RESOURCE} {name}: {why}"
    return _Failure(404, "NotFound", message)


def _status(code: int, reason: str, message: str) -> Answer:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return Answer(code, [_JSON], orjson.dumps(status))


_DISCOVERY: Final = Answer(
    200,
    [_JSON],
    orjson.dumps(
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": _GROUP_VERSION,
            "resources": [
                {
                    "name": f"{_RESOURCE}/{metric}",
                    "singularName": "",
                    "namespaced": True,
                    "kind": "MetricValueList",
                    "verbs": ["get"],
                }
                for metric in measure.METRICS
            ],
        }
    ),
)
