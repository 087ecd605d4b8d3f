"""A simulated cluster of one LLMDeployment: API server, controllers, nodes, kubelets and gateways, in virtual time.

It checks at every change what must always hold: no write takes away a replica that the promise needs, neither of those
that are ready, nor of those that any answering gateway has in its table; and whatever is decided has a reason.
"""

import copy
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from moorage_operator.cluster.slim import slim
from moorage_operator.plan.figures import Gateway, RevisionFigures
from moorage_operator.plan.nodes import Nodes, nodes
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context
from moorage_operator.render.workload import pods_made, template_of

START = datetime(2026, 1, 1, tzinfo=UTC)
GOOD, OTHER, CRASHING, SLOW, FAILING = "engine:good", "engine:other", "engine:crash", "engine:slow", "engine:fail"
STUCK = "engine:stuck"
FULL = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
BOUNDS = (0.1, 0.5, 1.0, 5.0)
GROUP_KINDS = ("StatefulSet", "LeaderWorkerSet")
WORKLOADS = ("Deployment", *GROUP_KINDS)
KINDS = ("ControllerRevision", *WORKLOADS, "Service", "NetworkPolicy", "PodDisruptionBudget")
GRACE = timedelta(seconds=30)
GPUS = {"nvidia.com/gpu": "8", "amd.com/gpu": "8"}
LISTED = (
    {"metadata": {"name": "gpus", "labels": {"nvidia.com/gpu.memory": "81559"}}, "status": {"allocatable": GPUS}},
    {"metadata": {"name": "cpus", "labels": {}}, "status": {"allocatable": {}}},
)


def text(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class SimulatedGateway:
    """Keeps a table of ready pods, counts requests."""

    def __init__(self, name, now):
        self.name, self.started, self.answering = name, text(now), True
        self.table, self.weights, self.counted = {}, {}, {}
        self.held, self.in_flight, self.quiet_since, self.heard, self.ready = 0, 0, now, now, True

    def sync(self, pods, status):
        """Hear of the pods and the weights."""
        self.table = {}
        for pod in pods:
            if pod.ready:
                self.table.setdefault(pod.revision, set()).add(pod.uid)
        self.weights = {one["number"]: one["weight"] for one in (status or {}).get("revisions", ())}
        self.pass_on()

    def serve(self, requests, image_of, now):
        self.quiet_since = now
        for number, weight in self.weights.items():
            if not weight or not self.table.get(number):
                continue
            count = max(1, requests * weight // 100)
            counts = self.counted.setdefault(number, {"requests": 0, "errors": 0, "ttft": [0] * 5})
            counts["requests"] += count
            image = image_of(number)
            counts["errors"] += count if image == FAILING else 0
            counts["ttft"][3 if image == SLOW else 0] += count

    def ask(self, count, now):
        """Requests come, and wait where nothing serves."""
        self.held, self.quiet_since = self.held + count, now
        self.pass_on()

    def pass_on(self):
        if any(self.table.values()):
            self.in_flight, self.held = self.in_flight + self.held, 0

    def end(self, now):
        """Every request is over: answered, or the client went away."""
        if self.held or self.in_flight:
            self.held, self.in_flight, self.quiet_since = 0, 0, now

    def view(self, now):
        if self.answering:
            self.heard = now
            self.quiet_since = now if self.held or self.in_flight else self.quiet_since
        numbers = sorted({*self.table, *self.weights, *self.counted})
        none = {"requests": 0, "errors": 0, "ttft": [0] * 5}
        rows = tuple(
            RevisionFigures(
                number=number,
                weight=self.weights.get(number, 0),
                targets=frozenset(self.table.get(number, ())),
                in_flight=self.in_flight if number == numbers[0] else 0,
                requests=self.counted.get(number, none)["requests"],
                errors=self.counted.get(number, none)["errors"],
                ttft=tuple(self.counted.get(number, none)["ttft"]),
            )
            for number in numbers
        )
        about = self.name, self.started, self.answering, rows, (), BOUNDS, BOUNDS
        demand = {"held": self.held, "quiet_since": self.quiet_since, "heard": self.heard}
        return Gateway(*about, ready=self.ready, **demand)


class SimulatedPod:
    def __init__(self, uid, workload, labels, image, now):
        self.uid, self.workload, self.labels, self.image = uid, workload, labels, image
        self.revision = int(labels["moorage.dev/revision"])
        self.size = int(labels.get("moorage.dev/group-size", 1))
        self.index = int(labels.get("apps.kubernetes.io/pod-index", 0))
        self.ends, self.stranded = None, False
        """When its grace period is over, once it was told to go; and whether nobody is there to end it."""
        self.born, self.ready, self.scheduled, self.unschedulable, self.restarts = now, False, False, None, 0
        self.scheduler_said = ""
        self.ready_since = now
        self.order = 0
        """The smaller, the longer it has been ready."""

    def manifest(self):
        since = text(self.ready_since)
        conditions = [{"type": "Ready", "status": "True" if self.ready else "False", "lastTransitionTime": since}]
        scheduled = {"type": "PodScheduled", "status": "True" if self.scheduled else "False"}
        if self.unschedulable is not None:
            scheduled |= {
                "reason": "Unschedulable",
                "message": self.scheduler_said,
                "lastTransitionTime": text(self.unschedulable),
            }
        server = {"name": "server", "restartCount": self.restarts, "state": {}}
        if self.restarts:
            server["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error", "message": "boom"}}
        return {
            "kind": "Pod",
            "metadata": {
                "name": f"{self.workload}-{self.uid if self.size == 1 else self.index}",
                "namespace": "team",
                "uid": self.uid,
                "labels": self.labels,
                "creationTimestamp": text(self.born),
                **({} if self.ends is None else {"deletionTimestamp": text(self.ends)}),
            },
            "status": {"conditions": [*conditions, scheduled], "containerStatuses": [server]},
        }


class SimulatedReplica(NamedTuple):
    """A pod, or the pods of one group."""

    revision: int
    uid: str
    """Of the pod that requests go to."""
    ready: bool
    hopeless: bool
    """A group without a node for all of its pods, or whose pod's node is lost: another one may take its place."""


def replicas_of(pods):
    """What takes requests: none of a group's pods without the others."""
    together = {}
    for pod in pods:
        together.setdefault(pod.workload if pod.size > 1 else pod.uid, []).append(pod)
    found = []
    for members in together.values():
        whole = len(members) == members[0].size and all(pod.ready and pod.ends is None for pod in members)
        leader = next((pod.uid for pod in members if pod.index == 0), "")
        hopeless = members[0].size > 1 and not all(pod.scheduled and pod.ends is None for pod in members)
        found.append(SimulatedReplica(members[0].revision, leader, whole, hopeless))
    return found


class World:
    """See the module."""

    def __init__(self, gateways=2, replicas=2, **spec):
        self.now = START
        self.context = Context("runtime:1", "http://gateway/v1")
        self.deployment = {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {
                "name": "chat",
                "namespace": "team",
                "uid": "u1",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"model": {"source": "python://model==1"}, "engine": {"image": GOOD}, "replicas": replicas, **spec},
        }
        self.objects, self.pods, self.lookups = {}, [], {}
        self.ending = []
        """Pods of groups that went; their names are taken until they have ended."""
        self.gateways = [SimulatedGateway(f"g{index}", self.now) for index in range(gateways)]
        self.gateways_installed = True
        self.room, self.short, self.count, self.events = 100, False, 0, []
        self.group_kind = "StatefulSet"
        self.requests = 100
        self.scheduler_says = FULL
        self.listing = Nodes(nodes(LISTED, {}))
        """What nodes have; None: it is being read."""
        self.lagging = set()
        """Gateways that hear of nothing for a while, and answer all the same."""

    # What people do.

    def spec(self, **changes):
        changed = {**self.deployment["spec"], **changes}
        changed = {name: value for name, value in changed.items() if value is not None}
        if changed != self.deployment["spec"]:
            metadata = self.deployment["metadata"] | {"generation": self.deployment["metadata"]["generation"] + 1}
            self.deployment = {**self.deployment, "spec": changed, "metadata": metadata}

    def edit(self, image):
        self.spec(engine={"image": image})

    def roll(self, **rollout):
        self.spec(rollout={**self.deployment["spec"].get("rollout", {}), **rollout})

    def act(self, verb, number=None, nonce=""):
        number = number or (self.status.get("revision", {}).get("candidate") or 1)
        action = f"{verb}/r{number}{'/' if nonce else ''}{nonce}"
        metadata = self.deployment["metadata"]
        self.deployment = {**self.deployment, "metadata": {**metadata, "annotations": {"moorage.dev/action": action}}}

    # What happens.

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    def schedule(self):
        """The scheduler places pods, the oldest first, while there is room."""
        used = sum(1 for pod in self.pods if pod.scheduled)
        for pod in sorted(self.pods, key=lambda one: one.born):
            if pod.scheduled:
                continue
            if used < self.room:
                pod.scheduled, pod.unschedulable, used = True, None, used + 1
            elif pod.unschedulable is None:
                pod.unschedulable, pod.scheduler_said = self.now, self.scheduler_says

    def start(self):
        """One pod of each workload comes up, or all of a group crash again; those that were told to go have gone."""
        self.schedule()
        self.ending = [pod for pod in self.ending if pod.stranded]
        seen = set()
        for pod in self.pods:
            members = [one for one in self.pods if one.size > 1 and one.workload == pod.workload] or [pod]
            if pod.ready or pod.workload in seen or not all(one.scheduled and one.ends is None for one in members):
                continue
            seen.add(pod.workload)
            if pod.image == CRASHING:
                for one in members:
                    one.restarts += 1
            elif not pod.image.startswith(STUCK):
                self.count += 1
                pod.ready, pod.order, pod.ready_since = True, self.count, self.now
        for asked in self.lookups.values():
            asked["done"] = True

    def fail(self, number):
        """One ready replica stops being ready."""
        ready = [pod for pod in self.pods if pod.ready]
        if ready:
            ready[number % len(ready)].ready = False

    def strand(self, number):
        """The node of a pod of some group is lost: the pod was told to go, and never will."""
        grouped = [pod for pod in self.pods if pod.size > 1 and pod.ends is None]
        if grouped:
            pod = grouped[number % len(grouped)]
            pod.ready, pod.stranded, pod.ends = False, True, self.now + GRACE

    def lose_status(self):
        self.deployment = {name: value for name, value in self.deployment.items() if name != "status"}

    def sync(self, which=None):
        for index, gateway in enumerate(self.gateways):
            if index == which or (which is None and index not in self.lagging):
                gateway.sync(replicas_of(self.pods), self.deployment.get("status"))

    def silence(self, which, *, answering):
        self.gateways[which % len(self.gateways)].answering = answering

    def restart_gateway(self, which):
        index = which % len(self.gateways)
        self.gateways[index] = SimulatedGateway(f"g{index}", self.now)

    def serve(self):
        for gateway in self.gateways:
            gateway.serve(self.requests, self.image_of, self.now)

    def image_of(self, number):
        record = self.objects.get(("ControllerRevision", f"chat-r{number}"))
        return record["data"]["template"]["spec"]["containers"][0]["image"] if record else GOOD

    # The operator.

    def snapshot(self):
        children = {kind: tuple(o for (k, _), o in sorted(self.objects.items()) if k == kind) for kind in KINDS}
        pods = [pod.manifest() for pod in (*self.pods, *self.ending)]
        pods += [self._lookup(one) for one in self.lookups.values()]
        gateways = tuple(one.view(self.now) for one in self.gateways) if self.gateways_installed else None
        known = {kind: tuple(map(slim, those)) for kind, those in {**children, "Pod": pods}.items()}
        return Snapshot(
            self.deployment,
            known,
            self.now,
            gateways=gateways,
            accelerators_short=self.short,
            nodes=self.listing if any(pod.unschedulable for pod in self.pods) else None,
            group_kind=self.group_kind,
        )

    @staticmethod
    def _lookup(asked):
        said = '{"source": "hf://org/model@' + "c" * 40 + '", "bytes": 1000}'
        ended = {"exitCode": 0, "message": said}
        state = {"terminated": ended} if asked["done"] else {"running": {}}
        return {**asked["pod"], "status": {"containerStatuses": [{"name": "fetch", "restartCount": 0, "state": state}]}}

    def decide(self):
        return plan(self.snapshot(), self.context)

    def step(self, survive=1000):
        """Reconcile once and die after `survive` writes. Returns how many were made."""
        decided = self.decide()
        writes = 0
        for apply in decided.applies:
            assert apply.reason
            writes += self._apply(apply.manifest, live=writes < survive)
        for delete in decided.deletes:
            assert delete.reason
            if writes < survive:
                self._delete(delete.manifest)
            writes += 1
        if not writes:
            self.events += [event for event in decided.events if event not in self.events]
            if decided.status is not None and decided.status != self.deployment.get("status"):
                self.deployment = {**self.deployment, "status": decided.status}
                self.check()
                writes += 1
        self.requeue_after = decided.requeue_after
        return min(writes, survive)

    def run(self):
        """Reconcile until nothing is left to do."""
        for _ in range(100):
            if not self.step():
                return
        raise AssertionError(f"the operator never rests: {self.status}")

    def _apply(self, manifest, *, live):
        key = manifest["kind"], manifest["metadata"]["name"]
        if manifest["kind"] == "Pod":
            assert key not in self.lookups, "a pod is made once"
            if live:
                born = {**manifest["metadata"], "creationTimestamp": text(self.now)}
                self.lookups[key] = {"pod": {**manifest, "metadata": born}, "done": False}
            return 1
        known = self.objects.get(key)
        if known is not None and _content(known) == _content(manifest):
            return 0
        if live:
            if known is not None and manifest["kind"] == "ControllerRevision":
                assert known["data"] == manifest["data"], "what a revision is made of never changes"
            if known is not None:
                assert manifest["kind"] not in GROUP_KINDS or known["spec"] == manifest["spec"], "a group never changes"
            created = known["metadata"]["creationTimestamp"] if known else self.now.isoformat()
            self.objects[key] = {**manifest, "metadata": {**manifest["metadata"], "creationTimestamp": created}}
            self._control()
        return 1

    def _delete(self, manifest):
        key = manifest["kind"], manifest["metadata"]["name"]
        (self.lookups if manifest["kind"] == "Pod" else self.objects).pop(key)
        self._control()

    # Controllers.

    def _control(self):
        """Pods follow their workloads; those that are not ready go first, then the latest, as ReplicaSets do it.

        So what goes is never what gateways have known for longer than what stays. Source: ActivePodsWithRanks in
        kubernetes/pkg/controller/controller_utils.go.
        """
        before = list(self.pods)
        workloads = {name: one for (kind, name), one in self.objects.items() if kind in WORKLOADS}
        for pod in before:
            if pod.size > 1 and pod.workload not in workloads:
                ending = copy.copy(pod)
                ending.ends = pod.ends or self.now + GRACE
                self.ending.append(ending)
        self.pods = []
        for name, workload in sorted(workloads.items()):
            pods = [pod for pod in before if pod.workload == name]
            if workload["kind"] in GROUP_KINDS:
                self.pods += self._members(name, workload, pods)
                continue
            pods.sort(key=lambda pod: (not pod.ready, not pod.scheduled, pod.order, pod.born))
            pods = pods[: workload["spec"]["replicas"]]
            while len(pods) < workload["spec"]["replicas"]:
                pods.append(self._pod(name, workload))
            self.pods += pods
        self._check_promise(before, self.pods)

    def _members(self, name, workload, pods):
        """All pods of a group at once, each under the name that it always has."""
        indexes = {pod.index for pod in pods}
        missing = [index for index in range(pods_made(workload)) if index not in indexes]
        assert not missing or name not in {pod.workload for pod in self.ending}, f"pods named {name} have yet to end"
        return [*pods, *(self._pod(name, workload, {"apps.kubernetes.io/pod-index": str(one)}) for one in missing)]

    def _pod(self, name, workload, more=None):
        self.count += 1
        template = template_of(workload)
        labels = {**template["metadata"]["labels"], **(more or {})}
        image = template["spec"]["containers"][0]["image"]
        return SimulatedPod(f"p{self.count}", name, labels, image, self.now)

    # What must hold.

    @property
    def wanted(self):
        return self.deployment["spec"]["replicas"]

    @property
    def promise(self):
        rollout = self.deployment["spec"].get("rollout", {})
        drains = any("moorage.dev/drains" in one["metadata"]["annotations"] for one in self._records())
        surge, unavailable, wanted = rollout.get("maxSurge"), rollout.get("maxUnavailable"), self.wanted
        if surge is None and unavailable is None:
            down = self.gives_way if drains else 0
        elif unavailable is None:
            down = int(not surge)
        elif isinstance(unavailable, str):
            down = math.floor(Fraction(unavailable.rstrip("%")) * wanted / 100) or int(not surge)
        else:
            down = unavailable
        return max(0, wanted - down)

    @property
    def gives_way(self):
        """Replicas that one of the candidate takes the place of, where there is no room for it beside them."""
        return 1

    def worth(self, number):
        """How many replicas of the revision that serves one of this revision stands for."""
        return 1

    def _records(self):
        return [one for (kind, _), one in self.objects.items() if kind == "ControllerRevision"]

    def roles(self):
        return {int(one["metadata"]["labels"]["moorage.dev/revision"]): _role(one) for one in self._records()}

    def _check_promise(self, before, after):
        given_up = {
            int(one["metadata"]["labels"]["moorage.dev/revision"])
            for one in self._records()
            if _role(one) == "failed" or "moorage.dev/reason" in one["metadata"]["annotations"]
        }
        tables = [one.table for one in self.gateways if one.answering and self.gateways_installed]
        for table in (None, *tables):
            was, left = (
                sum(
                    self.worth(one.revision)
                    for one in replicas_of(pods)
                    if one.revision not in given_up
                    if one.ready and (table is None or one.uid in table.get(one.revision, ()))
                )
                for pods in (before, after)
            )
            assert left >= min(was, self.promise), f"{was} were routable, {self.promise} are promised, {left} are left"

    @property
    def status(self):
        return self.deployment.get("status", {})

    def check(self):
        status = self.status
        assert sum(one["weight"] for one in status.get("revisions", ())) in (0, 100)
        for condition in status["conditions"]:
            assert condition["reason"]
            assert condition["message"]
            assert condition["observedGeneration"] == self.deployment["metadata"]["generation"]
        for decision in status.get("decisions", ()):
            assert decision["reason"]
        assert len(status.get("decisions", ())) <= 10

    # Reading it.

    @property
    def weights(self):
        return {one["number"]: one["weight"] for one in self.status["revisions"]}

    @property
    def ready(self):
        """Ready condition: status and reason."""
        found = next(one for one in self.status["conditions"] if one["type"] == "Ready")
        return found["status"], found["reason"]

    @property
    def message(self):
        return next(one for one in self.status["conditions"] if one["type"] == "Ready")["message"]

    def condition(self, kind):
        return next(one for one in self.status["conditions"] if one["type"] == kind)["status"]

    def there(self):
        """Revision -> replicas."""
        return dict(sorted(Counter(one.revision for one in replicas_of(self.pods)).items()))

    def tick(self, seconds=2.0, *, traffic=True):
        """A quiet moment in which everybody does their part."""
        self.start()
        self.wait(seconds)
        self.sync()
        if traffic:
            self.serve()
        self.run()

    def until(self, condition, rounds=300, seconds=2.0, *, traffic=True):
        for _ in range(rounds):
            if condition():
                return
            self.tick(seconds, traffic=traffic)
        raise AssertionError(f"it never came to that: {self.status}")

    def settle(self, rounds=300):
        self.until(self.settled, rounds, seconds=6.0)
        self.sync()
        self.run()

    def settled(self):
        if not self.status:
            return False
        wanted = self.wanted
        serving = self.there().get(self.status["revision"].get("stable"), 0)
        ready = sum(1 for one in replicas_of(self.pods) if one.ready)
        return (
            self.ready[0] == "True" and serving == wanted and ready >= wanted and not self._idle() and not self.step()
        )

    def _idle(self):
        return [row for row in self.status.get("revisions", ()) if row["role"] in ("retired", "candidate", "failed")]


def _role(record):
    return record["metadata"]["labels"].get("moorage.dev/role")


def _content(manifest):
    """What an apply is about."""
    return {**manifest, "metadata": {**manifest["metadata"], "creationTimestamp": ""}, "status": {}}
