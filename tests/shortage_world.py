"""A simulated cluster whose accelerators are few: nodes of several sizes and products, and other people's pods on them.

What it checks beside the laws of rollouts: who lacks accelerators says so and names the nodes that have them, is never
given up for it, and takes nothing that serves where that gains nothing; what is kept warm goes first; and there are at
no moment more accelerators taken than the budget allows, those of pods that still end among them.
"""

import copy
import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from moorage_operator.plan.nodes import Nodes, nodes
from tests.budget_laws import WithinABudget
from tests.rollout_laws import DRAIN
from tests.rollout_ways import Trajectory
from tests.rollout_world import GRACE, World, replicas_of

GPU = "nvidia.com/gpu"
L4, H100 = "NVIDIA-L4", "NVIDIA-H100-80GB-HBM3"
DRAINS = "moorage.dev/drains"
READ_EVERY = timedelta(seconds=60)


@dataclass(frozen=True)
class Node:
    name: str
    product: str
    size: int
    others: int = 0
    """Accelerators that other people's pods have."""
    cordoned: bool = False

    def manifest(self):
        labels = {"nvidia.com/gpu.product": self.product} if self.product else {}
        amounts = {"cpu": "64", "memory": "512Gi", "pods": "110", **({GPU: str(self.size)} if self.size else {})}
        taints = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}] if self.cordoned else []
        return {
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"taints": taints},
            "status": {"allocatable": amounts},
        }


CLUSTER = (Node("cpus", "", 0), Node("small", L4, 2), Node("large", H100, 4), Node("other", H100, 2))


class ScarceWorld(WithinABudget, Trajectory):
    """See the module."""

    def __init__(self, budget=None, count=1, **how):
        super().__init__(accelerator={"count": count}, **how)
        self.cluster = {node.name: node for node in CLUSTER}
        self.read, self.seen, self.shown = None, {}, {}
        """When nodes were listed last, how they were, and what was free on which of them then."""
        self.listing = None
        self.waited, self.reasons = 0, set()
        """Pods that found no room, and what was ever said."""
        self.allow(budget)

    # What happens.

    def spec(self, **changes):
        """As people change it; never without accelerators, and a replica that needs more than the budget is refused."""
        before = self.deployment
        super().spec(**{name: value for name, value in changes.items() if (name, value) != ("accelerator", None)})
        spec = self.deployment["spec"]
        if spec["accelerator"]["count"] * (spec.get("sharding") or {}).get("pods", 1) > self.limit:
            self.deployment = before

    def allow(self, budget):
        """A budget, or none."""
        target = {"metric": "RequestsInFlight", "averageValue": "8"}
        wish = {"maxReplicas": 9, "targets": [target], "budget": {"accelerators": budget}}
        self.spec(autoscaling=None if budget is None else wish)

    def want(self, count, products):
        """Replicas shall have so many accelerators, of these products (none: any)."""
        self.spec(accelerator={"count": count, **({"products": list(products)} if products else {})})

    def shard(self, pods):
        self.spec(sharding=None if pods == 1 else {"tensorParallel": pods, "pods": pods})

    def keep_warm(self, duration):
        self.roll(keepWarm=None if duration is None else {"replicas": 1, "for": duration})

    def others(self, name, count):
        """Other people have so many of a node's accelerators, or all that are left."""
        node = self.cluster.get(name)
        if node is not None:
            left = node.size - self._ours()[name]
            self.cluster[name] = replace(node, others=max(0, min(count, left)))

    def crowd(self):
        """Other people have all that is left."""
        for name in tuple(self.cluster):
            self.others(name, self.cluster[name].size)

    def cordon(self, name, cordoned):
        if name in self.cluster:
            self.cluster[name] = replace(self.cluster[name], cordoned=cordoned)

    def lose(self, name):
        """A node is deleted, and all pods on it with it; their controllers make others."""
        self.cluster.pop(name, None)
        self.ending = [pod for pod in self.ending if getattr(pod, "node", None) != name]
        self.pods = [pod for pod in self.pods if getattr(pod, "node", None) != name]
        World._control(self)  # nobody's decision: what the laws say of decisions is not about it

    def join(self, name):
        """A node comes (back)."""
        self.cluster.setdefault(name, next(node for node in CLUSTER if node.name == name))

    def linger(self, count=15):
        """A minute or more goes by."""
        for _ in range(count):
            self.tick(6)

    def mend(self):
        """Others leave, and more nodes come."""
        self.allow(None)
        super().mend()
        self.cluster = {node.name: node for node in (*CLUSTER, Node("new-1", H100, 64), Node("new-2", L4, 64))}
        self.want(1, ())

    # The scheduler.

    def schedule(self):
        """Place what finds room, the oldest first; of a group as unlucky as can be."""
        for pod in sorted(self.pods, key=lambda one: (one.born, one.index)):
            if pod.scheduled:
                continue
            misses = {node.name: self._misses(pod, node) for node in self.cluster.values()}
            place = next((name for name, why in misses.items() if not why), None)
            if place is not None:
                pod.scheduled, pod.unschedulable, pod.node = True, None, place
                continue
            self.waited += pod.unschedulable is None
            pod.unschedulable = pod.unschedulable or self.now
            counted = ", ".join(f"{count} {why}" for why, count in sorted(Counter(misses.values()).items()))
            pod.scheduler_said = f"0/{len(misses)} nodes are available: {counted}."

    def _misses(self, pod, node):
        """In the words of the scheduler; nothing where it fits."""
        asked = self._accelerator(pod.revision)
        if node.cordoned:
            return "node(s) were unschedulable"
        if asked.get("products") and node.product not in asked["products"]:
            return "node(s) didn't match Pod's node affinity/selector"
        return "" if asked["count"] <= self._free()[node.name] else f"Insufficient {GPU}"

    def _accelerator(self, number):
        return self.objects["ControllerRevision", f"chat-r{number}"]["data"]["spec"]["accelerator"]

    def _ours(self):
        """Accelerators that our pods have, by node; those of pods that still end among them."""
        there = (pod for pod in (*self.pods, *self.ending) if pod.scheduled)
        found = Counter()
        for pod in there:
            found[pod.node] += pod.accelerators
        return found

    def _free(self):
        ours = self._ours()
        return {node.name: node.size - node.others - ours[node.name] for node in self.cluster.values()}

    # What the operator hears.

    def snapshot(self):
        self.short = any(map(self._lacks_accelerators, self.pods))
        if self.short and (self.read is None or self.now - self.read >= READ_EVERY):
            self.read, self.seen, self.shown = self.now, dict(self.cluster), self._free()
            taken = {name: {GPU: Decimal(node.size - self.shown[name])} for name, node in self.seen.items()}
            places = {pod.uid: pod.node for pod in self.pods if pod.scheduled}
            self.listing = Nodes(nodes([node.manifest() for node in self.seen.values()], taken), places=places)
        return replace(super().snapshot(), nodes=self.listing if self.short else None)

    @staticmethod
    def _lacks_accelerators(pod):
        return pod.unschedulable is not None and (GPU in pod.scheduler_said or "affinity" in pod.scheduler_said)

    def _pod(self, name, workload, more=None):
        pod = super()._pod(name, workload, more)
        pod.node, pod.accelerators = None, self._accelerator(pod.revision)["count"]
        return pod

    # The laws.

    @property
    def limit(self):
        return self.deployment["spec"].get("autoscaling", {}).get("budget", {}).get("accelerators", math.inf)

    @property
    def taken(self):
        """Accelerators that our pods have or wait for, those that still end among them."""
        return sum(pod.accelerators for pod in (*self.pods, *self.ending))

    def cost(self, number):
        """Of one replica."""
        spec = self.objects["ControllerRevision", f"chat-r{number}"]["data"]["spec"]
        return spec["accelerator"]["count"] * (spec.get("sharding") or {}).get("pods", 1)

    def _control(self):
        before, taken = list(self.pods), self.taken
        super()._control()
        there = {pod.uid for pod in self.pods}
        for pod in before:
            if pod.size == 1 and pod.uid not in there:
                ending = copy.copy(pod)
                ending.ends = self.now + GRACE
                self.ending.append(ending)
        assert self.taken <= max(taken, self.limit), f"{self.taken} accelerators, {self.limit} are allowed"

    def _apply(self, manifest, *, live):
        before = self._giving_way()
        written = super()._apply(manifest, live=live)
        for number in self._giving_way() - before:
            self._gains_by_it(number)
        return written

    def _giving_way(self):
        """The revisions for which others give way."""
        return {
            int(one["metadata"]["labels"]["moorage.dev/revision"])
            for one in self._records()
            if DRAINS in one["metadata"]["annotations"]
        }

    def _gains_by_it(self, number):
        """Of the stable revision one gives way for another: whichever goes, by what was known there was room then."""
        pods = [pod for pod in self.pods if pod.ready and self.roles().get(pod.revision) == "stable"]
        if self.limit < math.inf or any(pod.size > 1 for pod in self.pods):
            return
        for pod in pods:
            would_do = self._would_do(self._accelerator(number))
            left = {node.name: self.shown[node.name] + (node.name == pod.node) * pod.accelerators for node in would_do}
            enough = self._accelerator(number)["count"]
            assert any(free >= enough for free in left.values()), f"nothing is gained by the end of {pod.uid}: {left}"

    def _kept_warm(self, before):
        if not self.short and self.limit == math.inf:
            super()._kept_warm(before)

    def run(self):
        super().run()
        if self.short:
            self._warm_ones_went_first()

    def _warm_ones_went_first(self):
        """Nothing is kept warm, once its requests are over and others keep the promise."""
        serving = {self.status["revision"].get(role) for role in ("stable", "candidate")}
        tables = [gateway.table for gateway in self.gateways]
        routable = [one for one in replicas_of(self.pods) if one.ready and one.revision in serving]
        if any(sum(one.uid in table.get(one.revision, ()) for one in routable) < self.promise for table in tables):
            return
        for number, role in self.roles().items():
            silent = not any(gateway.weights.get(number) for gateway in self.gateways)
            if role == "warm" and silent and self.now - self.put_aside[number] >= DRAIN:
                assert not self.workloads().get(number), f"r{number} is kept warm, and somebody waits"

    def check(self):
        super().check()
        self.reasons.add(self.ready[1])
        assert "failed" not in self.roles().values(), "nothing is wrong with what has no room"
        assert self.condition("Stalled") == "False"
        pointers = self.status["revision"]
        target = pointers.get("candidate", pointers.get("stable"))
        theirs = [pod for pod in self.pods if pod.revision == target]
        ready = sum(one.ready for one in replicas_of(theirs))
        if any(map(self._lacks_accelerators, theirs)) and ("candidate" in pointers or ready < self.wanted):
            self._says_who_has_some(target)

    def _says_who_has_some(self, number):
        assert self.ready == ("False", "WaitingForGPU")
        asked = self._accelerator(number)
        assert f"Needs {asked['count']} x {GPU}" in self.message
        having = [node for node in self.seen.values() if node.size]
        would_do = self._would_do(asked)
        for node in would_do or having:
            assert f"{node.name} ({node.product}) " in self.message
        for node in would_do:
            assert f"{node.name} ({node.product}) has {self.shown[node.name]} of {node.size} free" in self.message

    def _would_do(self, asked):
        """The nodes that would take such a pod if they were empty, as they were listed last."""
        products = asked.get("products")
        there = (node for node in self.seen.values() if not node.cordoned and node.size >= asked["count"])
        return [node for node in there if not products or node.product in products]
