"""What a pod's status says: ready, on its way and how far, or in trouble and why.

Sources: the pod's conditions and container statuses, and the termination messages of its two containers.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from moorage_api import names
from moorage_api.conditions import PODS_ON_THE_WAY, Reason
from moorage_operator.manifest import Manifest, dig, has_ended, is_deleting, revision_of, uid_of
from moorage_operator.plan.times import from_text

_PULL_FAILURES: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_BACK_OFF: Final = re.compile(r'^Back-off pulling image "[^"]*": \w+: ')
_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "[^"]+" not found')
_FULL: Final = re.compile(r"\bInsufficient |\bToo many pods\b")
"""What the scheduler says of nodes that other pods have filled (its plugin NodeResourcesFit); other words are about
nodes that would not do if they were empty, too."""
_FETCH_REASONS: Final = (
    Reason.MODEL_NOT_FOUND,
    Reason.DIGEST_MISMATCH,
    Reason.INVALID_SOURCE,
    Reason.UNAUTHORIZED,
    Reason.FETCH_FAILED,
)
_SERVER_REASONS: Final = (Reason.INSUFFICIENT_MEMORY, Reason.UNSUPPORTED_MODEL, Reason.ENGINE_FAILED)
_CONTAINERS: Final = (names.FETCH_CONTAINER, names.SERVER_CONTAINER)
CRASH_LOOP: Final = 3
"""Ends of containers after which a replica is not expected to come up any more."""
_MESSAGE_LIMIT: Final = 500  # characters of a container's own words; a stack trace would drown the rest


@dataclass(frozen=True)
class Trouble:
    """Why a replica does not come up, in one word and in the words of whoever found out."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Replica:
    """One pod, or all pods of one group, as far as decisions need it."""

    revision: int
    ready: bool
    phase: Reason
    """How far its start has come; meaningless when it is ready."""
    trouble: Trouble | None = None
    model_digest: str | None = None
    uid: str = ""
    """Of the pod that requests go to; empty while a group has none."""
    restarts: int = 0
    """How often its containers ended and were tried again."""
    unschedulable_since: datetime | None = None
    """Since when no node takes it."""
    crowded_since: datetime | None = None
    """The same, where the scheduler finds nodes full: one that takes it once a replica there gives way may be among
    them, unless it asks for more than any has. (It does not say since when they are full.)"""
    group: int | None = None
    """Which group of its revision it is; None: it is one pod."""
    born: datetime | None = None
    """When it was made."""
    ready_since: datetime | None = None
    """When it became ready; None while it is not."""

    @property
    def crashes(self) -> bool:
        """Whether trying again has shown to be of no use: a container ended on an error often enough."""
        return not self.ready and self.trouble is not None and self.restarts >= CRASH_LOOP


def counts(pod: Manifest) -> bool:
    """Whether a pod is neither on its way out nor given up, as evicted ones are."""
    return not is_deleting(pod) and not has_ended(pod)


def is_placed(pod: Manifest) -> bool:
    """Whether a pod has a node, and what it asks for there."""
    return counts(pod) and condition_of(pod, "PodScheduled").get("status") == "True"


def furthest(among: Iterable[Replica]) -> Reason:
    """The phase of the replica that will be ready first."""
    phases = [replica.phase for replica in among if not replica.ready]
    return max(phases, key=PODS_ON_THE_WAY.index, default=Reason.SCHEDULING)


def replica_of(pod: Manifest) -> Replica:
    """What one pod says."""
    ready = condition_of(pod, "Ready").get("status") == "True"
    unschedulable_since = _unschedulable_since(pod)
    return Replica(
        revision=revision_of(pod),
        ready=ready,
        phase=_phase(pod),
        trouble=None if ready else trouble_of(pod),
        model_digest=_digest(pod),
        uid=uid_of(pod),
        restarts=sum(container_of(pod, name).get("restartCount", 0) for name in _CONTAINERS),
        unschedulable_since=unschedulable_since,
        crowded_since=unschedulable_since if _FULL.search(scheduler_said(pod)) else None,
        born=_time(dig(pod, "metadata", "creationTimestamp")),
        ready_since=_time(condition_of(pod, "Ready").get("lastTransitionTime")) if ready else None,
    )


def trouble_of(pod: Manifest) -> Trouble | None:
    """What keeps a pod from doing what it is for; None when nothing is known to."""
    return next(_troubles(pod), None)


def said_of(pod: Manifest) -> Manifest | None:
    """What the fetch container of a pod said when it ended well; None before."""
    end = dig(container_of(pod, names.FETCH_CONTAINER), "state", "terminated")
    return _said(end.get("message", "")) if end is not None and end.get("exitCode") == 0 else None


def _unschedulable_since(pod: Manifest) -> datetime | None:
    scheduled = condition_of(pod, "PodScheduled")
    since = scheduled.get("lastTransitionTime")  # the API server keeps it as null where it was not said
    if scheduled.get("reason") != "Unschedulable" or since is None or _MISSING_CLAIM.search(scheduler_said(pod)):
        return None  # a claim that is missing is no lack of room: waiting for nodes brings it no nearer
    return from_text(since)


def _time(text: str | None) -> datetime | None:
    return None if text is None else from_text(text)


def scheduler_said(pod: Manifest) -> str:
    """Why a pod has no node yet, in the scheduler's words; empty where it said nothing."""
    return str(condition_of(pod, "PodScheduled").get("message", ""))


def condition_of(pod: Manifest, kind: str) -> Manifest:
    """A condition of a pod; empty when it has none of that kind."""
    conditions = dig(pod, "status", "conditions", default=())
    return next((condition for condition in conditions if condition["type"] == kind), {})


def container_of(pod: Manifest, name: str) -> Manifest:
    """The status of a pod's container; empty when the kubelet has not told of it."""
    status = dig(pod, "status", default={})
    both = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return next((container for container in both if container["name"] == name), {})


def _phase(pod: Manifest) -> Reason:
    if condition_of(pod, "PodScheduled").get("status") != "True":
        return Reason.SCHEDULING
    server = container_of(pod, names.SERVER_CONTAINER)
    if dig(server, "state", "running") is None and server.get("restartCount", 0) == 0:
        return Reason.FETCHING_MODEL
    return Reason.WARMING_UP if server.get("started") else Reason.LOADING_WEIGHTS


def _troubles(pod: Manifest) -> Iterator[Trouble]:
    """What keeps the pod from being ready, the earliest in its life first."""
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        yield _unschedulable(scheduled.get("message", ""))
    for name, known, otherwise in (
        (names.FETCH_CONTAINER, _FETCH_REASONS, Reason.FETCH_FAILED),
        (names.SERVER_CONTAINER, _SERVER_REASONS, Reason.ENGINE_FAILED),
    ):
        container = container_of(pod, name)
        yield from _waiting(dig(container, "state", "waiting", default={}))
        yield from _terminated(container, known, otherwise)


def _unschedulable(message: str) -> Trouble:
    """No node will do; where the model's claim is missing, that is a model that is not there."""
    return Trouble(Reason.MODEL_NOT_FOUND if _MISSING_CLAIM.search(message) else Reason.UNSCHEDULABLE, message)


def _waiting(waiting: Manifest) -> Iterator[Trouble]:
    """Troubles before a container could start."""
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _PULL_FAILURES:
        # The kubelet says the same cause in turns with and without this beginning.
        yield Trouble(Reason.IMAGE_PULL_FAILED, _BACK_OFF.sub("", message) or reason)
    elif reason == "CreateContainerConfigError":
        secret = "secret" in message.lower()
        yield Trouble(Reason.SECRET_NOT_FOUND if secret else Reason.ENGINE_FAILED, message or reason)
    elif reason in {"CreateContainerError", "RunContainerError"}:
        yield Trouble(Reason.ENGINE_FAILED, message or reason)


def _terminated(container: Manifest, known: tuple[Reason, ...], otherwise: Reason) -> Iterator[Trouble]:
    """Why a container ended, from its last end; it stays true while the container is tried again."""
    for state in ("state", "lastState"):
        end = dig(container, state, "terminated")
        if end is None:
            continue
        if end.get("exitCode") == 0 and otherwise is Reason.FETCH_FAILED:
            return  # it has done its work, however many tries that took
        if end.get("reason") == "OOMKilled":
            limit = f"Container {container['name']} was killed at its memory limit"
            yield Trouble(Reason.OUT_OF_MEMORY, limit)
            return
        said = _said(end.get("message", ""))
        reason = next((one for one in known if one == said.get("reason")), otherwise)
        words = said.get("error") or end.get("message") or f"exit code {end.get('exitCode')}"
        yield Trouble(reason, _last_words(str(words)))
        return


def _last_words(text: str) -> str:
    """On one line, and of a long text the end: errors come last."""
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LIMIT else "…" + line[-_MESSAGE_LIMIT:]


def _said(message: str) -> dict[str, Any]:
    """The JSON object of a termination message; empty when it is none, such as the end of a log."""
    try:
        said = json.loads(message)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _digest(pod: Manifest) -> str | None:
    digest = (said_of(pod) or {}).get("digest")
    return digest if isinstance(digest, str) else None
