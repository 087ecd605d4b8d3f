"""A canary gets exactly the share of each step, once its gates have been measured, and all requests in the end."""

import pytest

BUSY = 600
"""Seconds that anything may take on a machine that is busy with other things."""
ASKED = 25
WORKERS = 4
SKEW = 8
"""Requests by which a step's count may miss its share: those that were under way at its ends, or came before a gateway
had heard of the weight."""


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat", BUSY)
    return f"{kit.namespace}/chat"


def test_a_canary_goes_step_by_step_and_is_promoted(kit, chat, bar):
    with kit.load(chat, workers=WORKERS) as load:
        load.goes_on()
        kit.patch("chat", model={"contextLength": 512})
        first = at_step(kit, 1)
        row, available = kit.row("chat"), kit.condition("chat", "Available")
        second = at_step(kit, 2)
        kit.wait_ready("chat", BUSY)
        load.goes_on()
    assert load.failures() == []
    assert (row["STATUS"], row["REVISION"], available["status"]) == ("RollingOut", "1", "True")
    assert row["MESSAGE"].startswith("Revision 2: ")
    assert row["MESSAGE"].endswith("Revision 1 goes on serving with 2 replicas.")

    old, new = counted_between(first, second, 1), counted_between(first, second, 2)
    share = 100 * new / (old + new)
    bar("canary", asked=ASKED, got=share, of=old + new, requests=len(load.records), failed=len(load.failures()))
    assert abs(new - (old + new) * ASKED / 100) <= SKEW, (old, new)
    assert [first["rollout"]["steps"], second["rollout"]["steps"]] == [3, 3]


def test_what_was_decided_can_be_read_afterwards(kit, chat):
    status = kit.eventually(lambda: kit.status("chat"), lambda status: len(status["revisions"]) == 1)
    assert (status["revision"], status["revisions"][0]["weight"]) == ({"stable": 2}, 100)
    assert [(one["kind"], one["from"], one["to"]) for one in status["decisions"]] == [
        ("Weight", "r1: 100 %", "r1: 75 %, r2: 25 %"),
        ("Weight", "r1: 75 %, r2: 25 %", "r1: 50 %, r2: 50 %"),
        ("Scale", "r2: 1", "r2: 2"),
        ("Weight", "r1: 50 %, r2: 50 %", "r2: 100 %"),
        ("Promote", "r1", "r2"),
    ]
    assert all(one["reason"] for one in status["decisions"])
    assert kit.eventually(lambda: kit.events("Promoted"), bool) == [
        "Revision 2 has all requests now, instead of revision 1: its replicas are routable, and its gates hold."
    ]
    assert kit.get("service", "chat")["spec"]["selector"]["moorage.dev/revision"] == "2"
    kit.eventually(
        lambda: [one["metadata"]["name"] for one in kit.get("deployments")["items"]], lambda found: found == ["chat-r2"]
    )
    row = kit.eventually(lambda: kit.row("chat"), lambda row: row["READY"] == "2/2")
    assert (row["STATUS"], row["REVISION"]) == ("Serving", "2")


def at_step(kit, step):
    """The status once the weight of that step is set."""
    return kit.eventually(
        lambda: kit.status("chat"),
        lambda status: (rollout := status.get("rollout", {})).get("step") == step and "stepSince" in rollout,
        BUSY,
    )


def counted_between(first, second, number):
    """Requests of a revision between the beginnings of two steps, by all gateways."""
    before, after = (
        {one["gateway"]: one["requests"] for one in status["rollout"]["window"] if one["number"] == number}
        for status in (first, second)
    )
    assert set(before) == set(after), "a gateway came or went"
    return sum(after.values()) - sum(before.values())
