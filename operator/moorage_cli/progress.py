"""How a rollout stands, as lines of text: from the object alone, so that what is shown is what the operator said."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from moorage_cli.paint import Paint, bar
from moorage_operator.manifest import Manifest, dig, name_of, namespace_of

_DECISIONS: Final = 5
_ROLES: Final = {"stable": "green", "candidate": "cyan", "failed": "red", "warm": "yellow"}
_MINUTE: Final = 60


@dataclass(frozen=True)
class Outcome:
    """Where it all stands: `done` True or False at an end, None on the way."""

    done: bool | None
    reason: str
    message: str

    def __str__(self) -> str:
        """Both, such as `Serving: 2 of 2 replicas answer requests.`."""
        return f"{self.reason}: {self.message}"


def outcome(deployment: Manifest) -> Outcome:
    """Whether what spec asks for serves, never will by itself, or is on its way."""
    generation = dig(deployment, "metadata", "generation", default=0)
    ready, stalled = condition(deployment, "Ready"), condition(deployment, "Stalled")
    if not ready or ready.get("observedGeneration", 0) < generation:
        return Outcome(None, "NotSeenYet", f"the operator has not seen generation {generation} yet")
    reason, message = ready["reason"], ready["message"]
    if stalled.get("status") == "True":
        return Outcome(done=False, reason=reason, message=message)
    return Outcome(True if ready["status"] == "True" else None, reason, message)


def condition(deployment: Manifest, kind: str) -> Mapping[str, Any]:
    """A condition of the status; empty when it is not there."""
    conditions: list[dict[str, Any]] = dig(deployment, "status", "conditions", default=[])
    return next((one for one in conditions if one["type"] == kind), {})


def summary(deployment: Manifest) -> str:
    """All of it in one line, for logs: printed whenever it changes."""
    stands = outcome(deployment)
    shares = [f"r{row['number']} {row['weight']} %" for row in _rows(deployment)]
    parts = [name_of(deployment), _step(deployment), ", ".join(shares), str(stands)]
    return "  ".join(part for part in parts if part)


def view(deployment: Manifest, now: datetime, paint: Paint, width: int = 10_000) -> list[str]:
    """The whole picture: head, revisions, what it waits for, the last decisions.

    Sentences are broken at `width` columns; the rest is narrow, or may be cut.
    """
    stands = outcome(deployment)
    colour = {True: "green", False: "red", None: "yellow"}[stands.done]
    head = [paint(f"{namespace_of(deployment)}/{name_of(deployment)}", "bold"), _step(deployment)]
    return [
        "  ".join(part for part in (*head, paint(stands.reason, colour)) if part),
        *(_revision(row, paint) for row in _rows(deployment)),
        *_waits(deployment, now, paint),
        *textwrap.wrap(stands.message, width, initial_indent="  ", subsequent_indent="  "),
        *_decisions(deployment, paint),
    ]


def _rows(deployment: Manifest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dig(deployment, "status", "revisions", default=[])
    return rows


def _step(deployment: Manifest) -> str:
    rollout = dig(deployment, "status", "rollout", default={})
    if not rollout.get("strategy"):
        return ""
    step, steps = rollout.get("step"), rollout.get("steps")
    place = "" if not steps else f" step {step or 0} of {steps}"
    return f"{rollout['strategy']}{place}"


def _revision(row: Mapping[str, Any], paint: Paint) -> str:
    role = str(row.get("role", ""))
    shown = paint(f"r{row['number']:<3} {role:<9}", *([_ROLES[role]] if role in _ROLES else []))
    counts = f"{row.get('ready', 0)}/{row.get('replicas', 0)} ready  {row.get('routable', 0)} routable"
    why = f"  {row['reason']}" if row.get("reason") else ""
    return f"  {shown} {bar(row['weight'])} {row['weight']:>3} %  {counts}{why}"


def _waits(deployment: Manifest, now: datetime, paint: Paint) -> list[str]:
    rollout = dig(deployment, "status", "rollout", default={})
    lines = []
    if rollout.get("reason"):
        lines.append(f"  {paint(rollout['reason'], 'yellow')}: {rollout.get('message', '')}")
    if rollout.get("next"):
        lines.append(f"  holds for another {_left(rollout['next'], now)}")
    startup = dig(deployment, "status", "startup", default={})
    if startup.get("phase"):
        due = startup.get("estimatedReady")
        estimate = f", ready in about {_left(due, now)}" if due else ""
        lines.append(f"  the next replica: {startup['phase']}{estimate}")
    return lines


def _decisions(deployment: Manifest, paint: Paint) -> list[str]:
    last: list[dict[str, Any]] = dig(deployment, "status", "decisions", default=[])[-_DECISIONS:]
    lines = [
        f"    {one['time'][11:19]}  {one['kind']:<8} {one['from']} -> {one['to']}: {one['reason']}" for one in last
    ]
    return [paint("  decisions (UTC)", "grey"), *lines] if lines else []


def _left(moment: str, now: datetime) -> str:
    return seconds((datetime.fromisoformat(moment) - now).total_seconds())


def seconds(count: float) -> str:
    """A span of time as Kubernetes writes it: `90s`, `5m`, `5m10s`."""
    whole = max(0, round(count))
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    minutes, rest = divmod(whole, _MINUTE)
    return f"{minutes}m{rest}s" if rest else f"{minutes}m"


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)
