"""A leader stops before anybody else may start, also when the API server answers late. In virtual time."""

import pytest

from moorage_operator.cluster.client import UnreachableError
from moorage_operator.cluster.lease import Lease, LeaseLostError, LeaseTimes

LEASE = {"metadata": {"name": "l", "resourceVersion": "1"}, "spec": {"holderIdentity": "us"}}


class LateThenGone:
    """An API server whose one answer comes after `late` seconds; later requests time out after as long."""

    def __init__(self, late):
        self.now = 0.0
        self.written = None
        self._late = late

    async def get(self, path):
        return LEASE

    async def replace(self, path, body):
        if self.written is None:
            self.written = self.now
            self.now += self._late
            return body
        self.now += self._late
        raise UnreachableError("timed out")


@pytest.mark.parametrize("late", [0.1, 2.0, 4.9])
async def test_a_leader_that_cannot_renew_ends_while_the_lease_still_keeps_others_out(late):
    server = LateThenGone(late)
    times = LeaseTimes(retry=0)
    lease = Lease(server, "ns", "l", "us", monotonic=lambda: server.now, times=times)
    with pytest.raises(LeaseLostError):
        await lease.keep()
    assert times.deadline <= server.now - server.written < times.duration


class Free:
    """An API server whose Lease is free for us; `broken` once it no longer answers."""

    def __init__(self):
        self.broken, self.spec = False, {}

    async def get(self, path):
        if self.broken:
            raise UnreachableError("timed out")
        return {"metadata": {"name": "l", "resourceVersion": "1"}, "spec": self.spec}

    async def replace(self, path, body):
        return body


async def test_a_leader_that_sees_another_one_in_its_place_ends_at_once():
    now, server = 0.0, Free()
    lease = Lease(server, "ns", "l", "us", monotonic=lambda: now, times=LeaseTimes(retry=0))
    await lease.acquire()
    server.spec = {"holderIdentity": "them", "leaseDurationSeconds": 15}
    with pytest.raises(LeaseLostError):
        await lease.keep()


async def test_a_lease_counts_as_held_only_until_the_deadline_after_its_last_renewal():
    """A process that was stopped does not know of it: what it does next has to ask first whether it still leads."""
    now, server = 0.0, Free()
    lease = Lease(server, "ns", "l", "us", monotonic=lambda: now, times=LeaseTimes(retry=0))
    assert not lease.held()
    await lease.acquire()
    assert lease.held()
    now = 9.9
    assert lease.held()
    now = 10.0
    assert not lease.held()
    await lease.acquire()
    assert lease.held()
    server.broken, now = True, 21.0
    with pytest.raises(LeaseLostError):
        await lease.keep()
    assert not lease.held()
