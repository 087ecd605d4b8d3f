"""Events are told once, and not before the API server has them."""

import pytest

from moorage_operator.cluster.client import ConflictError, UnreachableError
from moorage_operator.cluster.events import Events


class ApiServer:
    """Is away for the first `away` requests, then keeps what it gets, one of a name."""

    def __init__(self, away=0):
        self.away = away
        self.kept = []
        self.names = set()

    async def create(self, path, body):
        if self.away:
            self.away -= 1
            raise UnreachableError("timed out")
        name = body["metadata"]["name"]
        if name in self.names:
            raise ConflictError(409, "already exists", path)
        self.names.add(name)
        self.kept.append(body["reason"])
        return body


async def test_an_event_is_told_once(make):
    server = ApiServer()
    events = Events(server, "us", lambda: 0.0)
    assert await events.tell(make.deployment(), "Warning", "Wrong", "It is wrong.")
    assert not await events.tell(make.deployment(), "Warning", "Wrong", "It is wrong.")
    assert await events.tell(make.deployment(generation=2), "Warning", "Wrong", "It is wrong.")
    assert server.kept == ["Wrong", "Wrong"]


async def test_what_a_process_told_before_it_died_the_next_one_does_not_tell_again(make):
    server = ApiServer()
    await Events(server, "one", lambda: 0.0).tell(make.deployment(), "Normal", "Promoted", "Revision 2 has all.")
    later = Events(server, "two", lambda: 9.0)
    await later.tell(make.deployment(), "Normal", "Promoted", "Revision 2 has all.")
    await later.tell(make.deployment(), "Normal", "Promoted", "Revision 3 has all.")
    assert server.kept == ["Promoted", "Promoted"]


async def test_an_event_that_did_not_arrive_may_be_told_again(make):
    server = ApiServer(away=1)
    events = Events(server, "us", lambda: 0.0)
    with pytest.raises(UnreachableError):
        await events.tell(make.deployment(), "Warning", "Wrong", "It is wrong.")
    assert await events.tell(make.deployment(), "Warning", "Wrong", "It is wrong.")
    assert server.kept == ["Wrong"]


async def test_a_rollout_that_is_tried_again_may_fail_again(make):
    server = ApiServer()
    events = Events(server, "us", lambda: 0.0)
    assert await events.tell(make.deployment(), "Warning", "RolledBack", "r2 -> r1")
    again = make.deployment()
    again["metadata"]["annotations"] = {"moorage.dev/action": "retry/r2"}
    assert await events.tell(again, "Warning", "RolledBack", "r2 -> r1")
    assert not await events.tell(again, "Warning", "RolledBack", "r2 -> r1")
