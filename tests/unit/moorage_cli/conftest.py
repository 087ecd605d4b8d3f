"""LLMDeployments as the operator reports on them."""

import copy

import pytest

CANARY = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "chat", "namespace": "team-a", "uid": "u1", "generation": 2},
    "spec": {"model": {"source": "hf://org/model"}, "replicas": 2},
    "status": {
        "observedGeneration": 2,
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "observedGeneration": 2,
                "reason": "RollingOut",
                "message": "Revision 7: ErrorRate: 41 of 100 requests seen. Revision 6 goes on with 2 replicas.",
            },
            {"type": "Stalled", "status": "False", "observedGeneration": 2, "reason": "RollingOut", "message": "…"},
            {"type": "Accepted", "status": "True", "observedGeneration": 2, "reason": "Valid", "message": "…"},
        ],
        "revision": {"stable": 6, "candidate": 7},
        "revisions": [
            {"number": 6, "role": "stable", "weight": 95, "replicas": 2, "ready": 2, "routable": 2},
            {"number": 7, "role": "candidate", "weight": 5, "replicas": 1, "ready": 1, "routable": 1},
        ],
        "rollout": {
            "strategy": "Canary",
            "step": 1,
            "steps": 3,
            "reason": "GateHolding",
            "message": "ErrorRate: 41 of 100 requests seen",
            "next": "2026-01-01T12:02:10Z",
        },
        "startup": {"phase": "LoadingWeights", "estimatedReady": "2026-01-01T12:00:12Z"},
        "decisions": [
            {
                "time": "2026-01-01T11:58:00Z",
                "kind": "Weight",
                "from": "r6: 100 %",
                "to": "r6: 95 %, r7: 5 %",
                "reason": "step 1 of 3",
            },
        ],
        "traffic": {"tokensPerSecond": 310, "running": 5, "waiting": 0},
        "measured": "2026-01-01T11:59:00Z",
        "ready": "2/2",
    },
}


@pytest.fixture
def canary():
    """A canary at its first step."""
    return copy.deepcopy(CANARY)


@pytest.fixture
def ended(canary):
    """`ended(reason, ready=…, stalled=…)`: the same once nothing is under way."""

    def make(reason, ready="False", stalled="False", **status):
        ready_condition, stalled_condition, _ = canary["status"]["conditions"]
        ready_condition.update(reason=reason, status=ready, message=f"what {reason} means")
        stalled_condition.update(reason=reason, status=stalled)
        canary["status"].update({"revision": {"stable": 6}, "rollout": {}, **status})
        return canary

    return make
