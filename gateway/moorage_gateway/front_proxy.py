"""Who may ask for custom metrics: the API server, which tells how it is known. Pure, but for the store.

It answers for whoever asked it and has checked that they may; all others get nothing.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from moorage_gateway.signal import Signal
from moorage_gateway.watch import Object, Resource

log = logging.getLogger(__name__)

CONFIG_MAP: Final = Resource(
    "/api/v1/namespaces/kube-system/configmaps", field_selector="metadata.name=extension-apiserver-authentication"
)
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How the API server is known.

    Attributes:
        authorities: Certificates, as PEM, one of which has signed its own.
        names: What its certificate may be called; empty: anything.
    """

    authorities: str
    names: frozenset[str]

    def admits(self, peer: Mapping[str, Any] | None) -> bool:
        """Whether a client is it, by the certificate that it has shown and the authorities have signed.

        Args:
            peer: As `ssl` tells of it; None or empty: it has shown none.
        """
        return bool(peer) and (not self.names or not self.names.isdisjoint(_common_names(peer or {})))


def read(config_map: Mapping[str, Any]) -> FrontProxy | None:
    """Read what the API server says; None where no aggregation is set up.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it makes no sense.
    """
    data = config_map.get("data") or {}
    authorities = data.get("requestheader-client-ca-file") or ""
    names = orjson.loads(data.get("requestheader-allowed-names") or "[]")
    authorities.encode("ascii")  # as TLS takes it
    return FrontProxy(authorities, frozenset(str(name) for name in names)) if authorities else None


class Trust:
    """Sink of that one object.

    Attributes:
        now: What it says; None: nothing yet, or nothing that can be used.
        changes: Told when that is another.
    """

    def __init__(self) -> None:
        self.now: FrontProxy | None = None
        self.changes = Signal()

    def replace(self, found: Sequence[Object]) -> None:
        """What there is of it."""
        self._set(_read(found[0]) if found else None)

    def put(self, obj: Object) -> None:
        """It is new or has changed."""
        self._set(_read(obj))

    def remove(self, obj: Object) -> None:  # noqa: ARG002 - there is only one
        """It is gone: what it said is no longer true of anybody."""
        self._set(None)

    def _set(self, now: FrontProxy | None) -> None:
        if now != self.now:
            self.now = now
            self.changes.tell()


def _read(obj: Object) -> FrontProxy | None:
    try:
        return read(obj)
    except _UNREADABLE as error:
        log.warning("the API server's own authorities make no sense: %s: %s", type(error).__name__, error)
        return None


def _common_names(peer: Mapping[str, Any]) -> set[str]:
    return {value for part in peer.get("subject", ()) for name, value in part if name == "commonName"}
