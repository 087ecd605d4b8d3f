"""A leader stops before anybody else may start, also when the API server answers late. In virtual time."""

import base64
import json

import pytest

from moorage_operator.cluster.client import ConflictError, NotFoundError, RejectedError, UnreachableError
from moorage_operator.cluster.lease import Lease, LeaseLostError, LeaseTimes
from moorage_operator.shell.account import owner

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


class ApiServer:
    """Keeps one Lease, by its version; `broken` once it no longer answers. Owners may be set at birth only."""

    def __init__(self, lease=None):
        self.lease, self.broken, self.version, self.asked = lease, False, 1, []

    def edit(self, **spec):
        """Somebody writes it."""
        self._store({**self.lease, "spec": {**self.lease["spec"], **spec}})

    async def get(self, path):
        self._answer("get")
        if self.lease is None:
            raise NotFoundError(404, "not found", path)
        return self.lease

    async def create(self, path, body):
        self._answer("create")
        return self._store(body)

    async def replace(self, path, body):
        self._answer("replace")
        if self.lease is None or body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError(409, "it has been modified", path)
        if body["metadata"].get("ownerReferences") != self.lease["metadata"].get("ownerReferences"):
            raise RejectedError(403, "cannot set an ownerRef on a resource you can't delete", path)
        return self._store(body)

    def _answer(self, method):
        self.asked.append(method)
        if self.broken:
            raise UnreachableError("timed out")

    def _store(self, lease):
        self.version += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


def free():
    """One whose Lease nobody holds."""
    return ApiServer({"metadata": {"name": "l", "resourceVersion": "1"}, "spec": {}})


async def test_a_leader_that_sees_another_one_in_its_place_ends_at_once():
    now, server = 0.0, free()
    lease = Lease(server, "ns", "l", "us", monotonic=lambda: now, times=LeaseTimes(retry=0))
    await lease.acquire()
    server.edit(holderIdentity="them", leaseDurationSeconds=15)
    with pytest.raises(LeaseLostError):
        await lease.keep()


async def test_a_cluster_that_was_restored_from_a_backup_is_read_anew():
    """Versions begin again at lower numbers, so that nothing new would ever look newer than what is known."""
    now, server = 0.0, free()
    lease = Lease(server, "ns", "l", "us", monotonic=lambda: now, times=LeaseTimes(retry=0))
    server.version = 49
    await lease.acquire()
    assert lease.version == 50
    server.version = 39
    server.edit()
    with pytest.raises(LeaseLostError, match="restored from a backup"):
        await lease.keep()


async def test_a_lease_counts_as_held_only_until_the_deadline_after_its_last_renewal():
    """A process that was stopped does not know of it: what it does next has to ask first whether it still leads."""
    now, server = 0.0, free()
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


ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "moorage-operator", "uid": "u9"}


async def test_a_lease_that_we_make_goes_with_the_service_account():
    server = ApiServer()
    lease = Lease(server, "ns", "l", "us", monotonic=lambda: 0.0, owner=ACCOUNT)
    await lease.acquire()
    assert server.lease["metadata"]["ownerReferences"] == [ACCOUNT]
    await lease.release()
    assert server.lease["metadata"]["ownerReferences"] == [ACCOUNT]
    assert server.lease["spec"]["holderIdentity"] == ""


@pytest.mark.parametrize("owners", [{}, {"ownerReferences": [{**ACCOUNT, "uid": "the one before"}]}])
async def test_a_lease_that_is_there_keeps_its_owners(owners):
    """To change them takes the right to delete it where a cluster enforces that: nobody would lead."""
    server = ApiServer({"metadata": {"name": "l", "resourceVersion": "1", **owners}, "spec": {}})
    await Lease(server, "ns", "l", "us", monotonic=lambda: 0.0, owner=ACCOUNT).acquire()
    assert server.lease["spec"]["holderIdentity"] == "us"


async def test_a_renewal_is_one_write_until_somebody_else_has_written():
    server = free()
    lease = Lease(server, "ns", "l", "us", monotonic=lambda: 0.0)
    await lease.acquire()
    server.asked.clear()
    assert await lease._attempt()
    assert await lease._attempt()
    assert server.asked == ["replace", "replace"]
    server.edit()  # as by `kubectl annotate`
    assert await lease._attempt()
    assert server.asked[2:] == ["replace", "get", "replace"]
    server.lease = None
    assert await lease._attempt()
    assert server.asked[5:] == ["replace", "get", "create"]
    assert await lease._attempt()
    assert server.asked[8:] == ["replace"]


def token(claims):
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


def bound(namespace):
    """The claims of a bound token, as the API server makes them."""
    pod = {"name": "moorage-operator-x", "uid": "u8"}
    account = {"name": "moorage-operator", "uid": "u9"}
    return {"sub": "s", "kubernetes.io": {"namespace": namespace, "pod": pod, "serviceaccount": account}}


def test_a_token_names_its_service_account():
    assert owner(token(bound("ns")), "ns") == ACCOUNT


@pytest.mark.parametrize(
    "other",
    [None, "", "opaque", "a.b.c", "a.%%%.c", token([]), token({"sub": "a-person"}), token(bound("elsewhere"))],
)
def test_other_tokens_name_nobody(other):
    assert owner(other, "ns") is None
