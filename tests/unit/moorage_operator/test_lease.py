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
    assert times.deadline < server.now - server.written < times.duration
