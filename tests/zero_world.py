"""A simulated deployment that may go to zero, and the laws of that, told without the words of the code that keeps them.

It falls asleep only when every gateway that clients are sent to answers and has seen no request for `idleAfter`. While
one that answers has a request, nothing is taken to zero, and what is at zero is started at once, with as many replicas
as the requests ask for.
"""

import math
from datetime import datetime, timedelta

from tests.rollout_laws import LawfulWorld, seconds

ASLEEP, WOKEN = "moorage.dev/asleep", "moorage.dev/woken"
MEASURED = timedelta(seconds=60)
TARGETS = [{"metric": "RequestsInFlight", "averageValue": "8"}]
AUTOSCALING = {"minReplicas": 0, "maxReplicas": 8, "targets": TARGETS, "idleAfter": "2m"}


class ZeroWorld(LawfulWorld):
    """See the module."""

    def __init__(self, replicas=1, **spec):
        super().__init__(replicas=replicas, **{"autoscaling": AUTOSCALING, **spec})
        self.slept = ""

    # What happens.

    def ask(self, which=0, count=1):
        """Requests come to a gateway, and stay there until `end`."""
        self.gateways[which % len(self.gateways)].ask(count, self.now)

    def end(self):
        """All requests are over, wherever they were."""
        for gateway in self.gateways:
            gateway.end(self.now)

    def unready(self, which):
        """Clients are not sent to a gateway any more."""
        self.gateways[which % len(self.gateways)].ready = False

    def serve(self):
        """Everybody is answered, and others come; where nothing serves they wait."""
        self.end()
        super().serve()
        for gateway in self.gateways:
            if not any(gateway.table.values()):
                gateway.ask(1, self.now)

    def quiet(self, duration, step=10.0):
        """Nobody asks for so long, and everybody does their part."""
        self.end()
        for _ in range(round(duration / step)):
            self.tick(step, traffic=False)

    def settle(self, rounds=300):
        """Requests come until all serve; then none, until it sleeps."""
        super().settle(rounds)
        self.end()
        self.until(self.sleeps, rounds, seconds=6.0, traffic=False)

    def sleeps(self):
        """Whether nothing is there, at rest, and that is as it should be."""
        return not self.pods and self.ready == ("True", "ScaledToZero") and not self._idle() and not self.step()

    # The laws.

    @property
    def idle_after(self):
        return seconds(self.deployment["spec"]["autoscaling"]["idleAfter"])

    @property
    def stopped(self):
        """Whether a person has said so."""
        return not self.deployment["spec"]["replicas"]

    @property
    def asked(self):
        """Requests that gateways tell of."""
        return sum(one.held + one.in_flight for one in self.gateways if one.answering)

    @property
    def may_sleep(self):
        answering = [one for one in self.gateways if one.answering]
        if not answering or self.asked or any(one.ready and not one.answering for one in self.gateways):
            return False
        return self.now - max(one.quiet_since for one in answering) >= self.idle_after

    @property
    def asleep(self):
        """Since when, as the newest stable record says; empty when it does not sleep."""
        stable = self._stable()
        return "" if stable is None else stable["metadata"]["annotations"].get(ASLEEP, "")

    @property
    def waking(self):
        """Whether it was made or woken, and nothing that came up then can have been measured yet."""
        stable = self._stable()
        if stable is None:
            return not self.stopped
        woken = WOKEN in stable["metadata"]["annotations"]
        up = [one.ready_since for one in self.pods if one.ready]
        return woken and not self.stopped and (not up or self.now - min(up) < MEASURED)

    @property
    def enough(self):
        """So many shall serve until then, as the operator tells."""
        return int(self.decided.get("ready", "0/1").partition("/")[2])

    def _stable(self):
        stable = [one for one in self._records() if _role(one) == "stable"]
        return max(stable, key=lambda one: one["metadata"]["annotations"]["moorage.dev/role-since"], default=None)

    @property
    def wanted(self):
        """What the laws of rollouts count with."""
        if self.stopped or not self.asleep:
            return min(super().wanted, self.enough) if self.waking else super().wanted
        rests = self.decided.get("rollout", {}).get("reason") == "ScaledToZero"
        return 0 if rests or self._under_way() is None else 1

    @property
    def promise(self):
        """Nothing to nobody, until the plan that was made in sleep has been followed."""
        return 0 if self.asleep or self.slept else super().promise

    def decide(self):
        self.slept = self.asleep
        return super().decide()

    def _apply(self, manifest, *, live):
        slept = self.asleep
        written = super()._apply(manifest, live=live)
        if live and self.asleep and not slept:
            self._falls_asleep()
        return written

    def _falls_asleep(self):
        assert self.may_sleep, "it falls asleep, and somebody asks, or did so a moment ago, or may have"
        up = [pod.ready_since for pod in self.pods if pod.ready]
        assert not up or self.now - min(up) >= self.idle_after, "it had hardly come up"
        assert datetime.fromisoformat(self.asleep) == self.now

    def _nothing_is_proven_at_zero(self, record):
        """In sleep, who takes the place of the stable revision has a replica that answers, or has served before."""
        number, old = _revision(record), self._stable()
        if not self.asleep or self.stopped or _role(record) != "stable" or number == _revision(old):
            super()._nothing_is_proven_at_zero(record)
            return
        before = next((one["metadata"]["annotations"] for one in self._records() if _revision(one) == number), {})
        answers = any(pod.ready for pod in self.pods if pod.revision == number)
        assert answers or before.get("moorage.dev/promoted"), f"r{number} is not proven"

    def _control(self):
        before = any(pod.ready for pod in self.pods)
        super()._control()
        if before and not any(pod.ready for pod in self.pods) and not self.stopped:
            assert not self.promise, "the last replica went, and it is not asleep"
            assert not (self.asleep and self.asked), "the last replica went while somebody asks"

    def run(self):
        super().run()
        if self.asked and not self.stopped and self._stable() is not None:
            there = sum(self.workloads().values())
            assert there, "somebody waits, and nothing is started"
            if self.slept and self._under_way() is None:
                assert there <= max(1, math.ceil(self.asked / 8)), "more is started than is asked for"

    def check(self):
        super().check()
        if self.asleep and not self.stopped:
            assert self.condition("Available") == "True", "a request would wake it"


def _revision(record):
    return int(record["metadata"]["labels"]["moorage.dev/revision"])


def _role(record):
    return record["metadata"]["labels"]["moorage.dev/role"]
