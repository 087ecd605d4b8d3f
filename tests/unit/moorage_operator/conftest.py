"""Objects for the operator's tests, made as the API server would show them."""

import json
from datetime import UTC, datetime

import pytest

from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTEXT = Context("moorage/runtime:1", "http://gateway/v1")


class Make:
    """Builders; every one returns a fresh object."""

    now = NOW
    context = CONTEXT

    @staticmethod
    def deployment(status=None, generation=1, **spec):
        metadata = {
            "name": "chat",
            "namespace": "team",
            "uid": "u1",
            "generation": generation,
            "creationTimestamp": "2026-01-01T10:00:00Z",
        }
        made = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata}
        made["spec"] = {"model": {"source": "python://model==1"}, "replicas": 1, **spec}
        return made if status is None else {**made, "status": status}

    @staticmethod
    def pod(revision=1, name="p", **status):
        labels = {"moorage.dev/deployment": "chat", "moorage.dev/revision": str(revision)}
        metadata = {"name": name, "namespace": "team", "labels": labels, "creationTimestamp": "2026-01-01T11:00:00Z"}
        return {"kind": "Pod", "metadata": metadata, "status": status}

    @classmethod
    def ready(cls, revision=1, name="p"):
        return cls.pod(revision, name, conditions=[{"type": "Ready", "status": "True"}])

    @classmethod
    def on_node(cls, *, fetch=None, server=None, revision=1, name="p"):
        """A scheduled pod with these container statuses."""
        return cls.pod(
            revision,
            name,
            conditions=[{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
            initContainerStatuses=[{"name": "fetch", "restartCount": 0, "state": {}, **(fetch or {})}],
            containerStatuses=[{"name": "server", "restartCount": 0, "state": {}, **(server or {})}],
        )

    @staticmethod
    def ended(said="", code=1, reason="Error"):
        """A container that ended and is about to be tried again."""
        message = said if isinstance(said, str) else json.dumps(said)
        terminated = {"exitCode": code, "reason": reason, "message": message}
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
        return {"restartCount": 1, "state": {"waiting": waiting}, "lastState": {"terminated": terminated}}

    @staticmethod
    def snapshot(deployment, *children, now=NOW):
        kinds = ("ControllerRevision", "Deployment", "Service", "PodDisruptionBudget", "Pod")
        return Snapshot(deployment, {kind: tuple(c for c in children if c["kind"] == kind) for kind in kinds}, now)

    @classmethod
    def running(cls, deployment, *pods):
        """The children that the plan for `deployment` makes, with these pods, and what it then plans and reports."""
        made = [apply.manifest for apply in plan(cls.snapshot(deployment), CONTEXT).applies]
        born = "2026-01-01T11:00:00Z"
        made = [{**one, "metadata": {**one["metadata"], "creationTimestamp": born}} for one in made]
        return cls.snapshot(deployment, *made, *pods)


@pytest.fixture
def make():
    return Make


@pytest.fixture
def ready_condition():
    """The `Ready` condition of the status that is planned for a snapshot."""

    def find(snapshot):
        status = plan(snapshot, CONTEXT).status
        return next(one for one in status["conditions"] if one["type"] == "Ready")

    return find
