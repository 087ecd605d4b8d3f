"""Events on an LLMDeployment: what was decided, for `kubectl describe` and `kubectl events`.

Told once for each decision, whoever dies in between: an event is told before the status that makes it old is written,
and its name follows from what it says, so that a second try, by whichever process, finds it told already.
"""

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from moorage_api import names
from moorage_operator.cluster.client import FIELD_MANAGER, Client, ConflictError
from moorage_operator.cluster.resources import EVENTS
from moorage_operator.manifest import Manifest, dig, name_of, namespace_of, uid_of

_Asked = tuple[str, int, str]
_Key = tuple[_Asked, str, str]
_REMEMBERED: Final = 4096
_NOTE_LIMIT: Final = 1024  # characters, the API's own


class Events:
    """Writes Events. `identity` is the instance that reports them."""

    def __init__(self, client: Client, identity: str, now: Callable[[], float]) -> None:
        """`now` gives seconds since 1970."""
        self._client = client
        self._identity = identity
        self._now = now
        self._told: OrderedDict[_Key, None] = OrderedDict()

    async def tell(self, deployment: Manifest, kind: str, reason: str, message: str) -> bool:
        """Record an Event of `kind` (`Normal` or `Warning`); False when it was told since a person asked for anything.

        Raises:
            ClusterError: it was not recorded, and may be told again.
        """
        key = (_asked(deployment), reason, message)
        if key in self._told:
            return False
        event = self._event(deployment, kind, reason, message, _suffix(key))
        with contextlib.suppress(ConflictError):  # it is there: told by a process that died before it wrote the status
            await self._client.create(EVENTS.path(namespace_of(deployment)), event)
        self._told[key] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return True

    def _event(self, deployment: Manifest, kind: str, reason: str, message: str, suffix: str) -> Manifest:
        now = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace, name = namespace_of(deployment), name_of(deployment)
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"{name}.{suffix}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION, "kind": names.KIND,
                "namespace": namespace, "name": name, "uid": uid_of(deployment),
            },
            "type": kind,
            "reason": reason,
            "message": message[:_NOTE_LIMIT],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._identity,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }  # fmt: skip


def _asked(deployment: Manifest) -> _Asked:
    """What people have asked for: spec, by its generation, and actions. A rollout that is retried may fail again."""
    generation = int(dig(deployment, "metadata", "generation", default=0))
    action = str(dig(deployment, "metadata", "annotations", names.ACTION_ANNOTATION, default=""))
    return uid_of(deployment), generation, action


def _suffix(key: _Key) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]
