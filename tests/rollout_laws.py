"""Laws of rollouts, each told once more without the words of the code that has to keep them.

`LawfulWorld` checks them at every write, beside what `World` checks: whatever the way, whoever dies on it.
"""

import math
from datetime import timedelta

from moorage_operator.render.workload import template_of
from tests.rollout_world import GROUP_KINDS, WORKLOADS, World, replicas_of

RESTARTED = "moorage.dev/restarted"
DRAIN = timedelta(seconds=5)
UNITS = {"s": 1, "m": 60, "h": 3600}


def _revision(manifest):
    return int(manifest["metadata"]["labels"]["moorage.dev/revision"])


def seconds(text):
    """Of a duration with one unit."""
    return timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])


class LawfulWorld(World):
    """See the module."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.clock = Clock()
        self.decided = {}
        self.shares = {}
        """(Revision, role) -> weight, as last reported."""
        self.put_aside = {}
        """Revision -> when it was told that it takes no part any more."""
        self.before = {}
        """Revision -> role, when the plan was made that is being followed."""

    @property
    def rollout(self):
        return self.deployment["spec"].get("rollout", {})

    def workloads(self, *more):
        """Revision -> replicas that its workload, or its groups, ask for; with `more` as if that were there, too.

        Of groups those of the last restart count, and of which no pod was told to go: others are about to be replaced.
        """
        found, groups, going = {}, {}, {pod.workload for pod in self.pods if pod.ends is not None}
        for one in [*self.objects.values(), *more]:
            if one["kind"] == "Deployment":
                found[_revision(one)] = one["spec"]["replicas"]
            elif one["kind"] in GROUP_KINDS and one["metadata"]["name"] not in going:
                annotations = template_of(one)["metadata"]["annotations"]
                groups.setdefault(_revision(one), {})[one["metadata"]["name"]] = annotations.get(RESTARTED, "")
        for number, restarts in groups.items():
            found[number] = list(restarts.values()).count(max(restarts.values()))
        return found

    # Where the laws are looked at.

    def lose_status(self):
        super().lose_status()
        self.shares = {}

    def wait(self, seconds):
        self.clock.spend(timedelta(seconds=seconds))
        super().wait(seconds)

    def decide(self):
        self.before = self.roles()
        decided = super().decide()
        self.decided = decided.status or {}
        return decided

    def _apply(self, manifest, *, live):
        if live and manifest["kind"] in WORKLOADS:
            self._no_growth_while_it_stands(manifest)
            self._no_more_than_the_surge(manifest)
            self._whole_until_promotion(manifest)
        if live and manifest["kind"] == "ControllerRevision":
            self._roles_change(manifest)
            self._nothing_is_proven_at_zero(manifest)
        return super()._apply(manifest, live=live)

    def _control(self):
        before = list(self.pods)
        super()._control()
        gone = {one.revision for one in replicas_of(before) if one.ready} - {pod.revision for pod in self.pods}
        for number in gone if self.wanted else ():
            self._drained(number)
        self._kept_warm(before)

    def check(self):
        super().check()
        self._weights_of_the_step()
        self._no_deadline_before_its_time()
        self._nothing_moves_in_silence()

    def _roles_change(self, record):
        labels = record["metadata"]["labels"]
        number = int(labels["moorage.dev/revision"])
        if labels["moorage.dev/role"] in ("stable", "candidate"):
            self.put_aside.pop(number, None)
        else:
            self.put_aside.setdefault(number, self.now)

    # The laws.

    def _under_way(self):
        """The candidate that is rolled out by this plan; None where none is."""
        pointers = self.decided.get("revision", {})
        return pointers.get("candidate") if pointers.get("stable") is not None else None

    def _nothing_is_proven_at_zero(self, record):
        """Without replicas none that was on trial, or was given up, takes the place of the one that serves."""
        labels = record["metadata"]["labels"]
        if self.wanted or labels["moorage.dev/role"] != "stable":
            return
        serves = self.status.get("revision", {}).get("stable") or "stable" in self.before.values()
        number = int(labels["moorage.dev/revision"])
        assert not serves or self.before.get(number) not in ("candidate", "failed"), f"r{number} is not proven"

    def _no_growth_while_it_stands(self, manifest):
        """Paused, without gateways, before a gate, after a failure: a RollingUpdate adds no replica."""
        number, rollout = _revision(manifest), self.decided.get("rollout", {})
        if number != self._under_way() or rollout.get("strategy") != "RollingUpdate":
            return
        if rollout.get("reason") != "RollingOut":
            there = self.workloads().get(number, 0)
            assert self.workloads(manifest)[number] <= there, "it grows although it stands"

    def _no_more_than_the_surge(self, manifest):
        """Stable and candidate together: no further replica beyond spec.replicas and what may be above it."""
        number, candidate = _revision(manifest), self._under_way()
        if number != candidate or self.decided["rollout"].get("strategy") != "RollingUpdate":
            return
        there, asked = self.workloads(), self.workloads(manifest)[number]
        if asked > there.get(number, 0):
            together = asked + there.get(self.decided["revision"]["stable"], 0)
            assert together <= self.wanted + self._surge(), f"{together} for {self.wanted}"

    def _surge(self):
        surge, unavailable = self.rollout.get("maxSurge"), self.rollout.get("maxUnavailable")
        if isinstance(surge, str):
            return math.ceil(int(surge[:-1]) * self.wanted / 100)
        return surge if surge is not None else 0 if unavailable else 1

    def _whole_until_promotion(self, manifest):
        """During a canary, and in blue and green, nothing is taken from the stable revision.

        Of groups nothing is taken by applying one; what is deleted is looked at beside the promise.
        """
        number = _revision(manifest)
        if manifest["kind"] != "Deployment" or self._under_way() is None:
            return
        if self.decided["rollout"].get("strategy") not in ("Canary", "BlueGreen"):
            return
        if number == self.decided["revision"]["stable"]:
            assert self.workloads(manifest)[number] >= min(self.wanted, self.workloads().get(number, 0))

    def _drained(self, number):
        """What served goes only once each answering gateway sends it nothing more, and a moment later."""
        if number not in self.put_aside:
            return  # pruned from history long after; or the last of a rollout without surge has taken its place
        for gateway in self.gateways if self.gateways_installed else ():
            assert not gateway.answering or not gateway.weights.get(number), (
                f"{gateway.name} still sends r{number} some"
            )
        assert self.now - self.put_aside[number] >= DRAIN, f"r{number} was put aside a moment ago"

    def _kept_warm(self, before):
        """Of the one that was stable last, what is ready stays without requests for as long as spec says."""
        keep = self.rollout.get("keepWarm")
        if keep is None or self.rollout.get("strategy") == "BlueGreen" or not self.wanted:
            return
        unusable = self.deployment["spec"]["model"]["source"].startswith("ftp:")
        warm = {number: self.put_aside[number] for number, role in self.roles().items() if role == "warm"}
        if unusable or not warm:
            return
        number = max(warm, key=lambda one: warm[one])
        if self.now - warm[number] < seconds(keep.get("for", "30m")):
            had, has = (
                sum(one.ready and one.revision == number for one in replicas_of(pods)) for pods in (before, self.pods)
            )
            assert has >= min(had, keep.get("replicas", 1)), f"r{number} is to be kept warm"

    def _weights_of_the_step(self):
        """A candidate has nothing, or exactly what its step or an earlier one says: steps may be skipped."""
        rollout, candidate = self.status.get("rollout", {}), self.status["revision"].get("candidate")
        if candidate is None or self.status["revision"].get("stable") is None:
            return
        if rollout.get("reason") == "GatewayUnreachable":
            return  # nothing moves, whatever spec says by now
        weight = self.weights.get(candidate, 0)
        if rollout.get("strategy") == "BlueGreen":
            assert weight in (0, 100)
        elif rollout.get("strategy") == "Canary":
            steps = [0, *(step["weight"] for step in self.rollout.get("steps", ())), 100]
            step = min(rollout.get("step", 0), len(steps) - 1)
            assert weight in steps[: step + 1], f"{weight} % in step {step} of {steps}"

    def _nothing_moves_in_silence(self):
        """While no gateway answers, those that had requests keep their shares."""
        rows = self.status.get("revisions", ())
        shares = {(row["number"], row["role"]): row["weight"] for row in rows if row["weight"]}
        silent = self.gateways_installed and not any(gateway.answering for gateway in self.gateways)
        if silent and self.shares.keys() <= {(row["number"], row["role"]) for row in rows}:
            assert shares == self.shares or not self.shares, "requests were moved, and nobody could hear of it"
        self.shares = shares

    def _no_deadline_before_its_time(self):
        """Time counts only while a further replica is awaited and nodes have room for it."""
        deadline, rows = seconds(self.rollout.get("progressDeadline", "15m")), self.status.get("revisions", ())
        reasons = {row["number"]: row.get("reason") for row in rows if row["role"] == "failed"}
        if self.clock.watches and reasons.get(self.clock.number) == "ProgressDeadlineExceeded":
            assert self.clock.spent >= deadline, f"given up after {self.clock.spent} of {deadline}"
        candidate = next((row for row in rows if row["number"] == self.status["revision"].get("candidate")), None)
        waits = any(pod.unschedulable and candidate and pod.revision == candidate["number"] for pod in self.pods)
        self.clock.look(candidate, self.status.get("rollout", {}), waits=waits)


class Clock:
    """No less than the time that a candidate has had without a further routable replica."""

    def __init__(self):
        self.number, self.began, self.routable, self.spent = None, None, 0, timedelta()
        self.watches = self.runs = False

    def look(self, candidate, rollout, *, waits):
        """A status was written."""
        self.watches, self.runs = candidate is not None, False
        if candidate is None:
            return
        if (candidate["number"], rollout.get("began")) != (self.number, self.began):
            self.number, self.began = candidate["number"], rollout.get("began")
            self.routable, self.spent = 0, timedelta()
        if candidate["routable"] > self.routable:
            self.routable, self.spent = candidate["routable"], timedelta()
        self.runs = rollout.get("reason") == "RollingOut" and not waits

    def spend(self, time):
        if self.runs:
            self.spent += time
