"""All requests move to the new colour at once; the old one stays whole until the gates hold, and takes them back."""

import re
from datetime import datetime, timedelta

import pytest

BUSY = 600
"""Seconds that anything may take on a machine that is busy with other things."""
LONG = 40
WARM = 2  # seconds, as in chat.yaml
SLOWER = [{"metric": "TimeToFirstTokenP95", "maxRegression": "100%", "minRequests": 6}]


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat", BUSY)
    return f"{kit.namespace}/chat"


def test_all_requests_move_at_once_and_the_old_colour_goes_after_the_gates(kit, chat, bar):
    with kit.load(chat, workers=2) as load:
        load.goes_on()
        kit.patch("chat", model={"contextLength": 512})
        kit.wait_ready("chat", BUSY)
        load.goes_on()
    assert load.failures() == []
    status = kit.eventually(lambda: kit.status("chat"), lambda status: len(status["revisions"]) == 1)
    # No decision takes a replica from the old colour between the two, so it was there in full.
    assert [(one["kind"], one["from"], one["to"]) for one in status["decisions"]] == [
        ("Weight", "r1: 100 %", "r2: 100 %"),
        ("Promote", "r1", "r2"),
    ]
    switched, promoted = (datetime.fromisoformat(one["time"]) for one in status["decisions"])
    assert promoted - switched >= timedelta(seconds=WARM), "it was kept for as long as spec says"
    assert len(kit.eventually(lambda: kit.events("Promoted"), bool)) == 1
    bar("bluegreen", requests=len(load.records), failed=len(load.failures()))


def test_a_slower_colour_hands_the_requests_back_after_the_switch_and_loses_none(kit, chat, bar):
    with kit.load(chat, workers=3, tokens=LONG) as load:
        load.goes_on()
        # One request at a time: the others wait for a whole answer before their first token.
        kit.patch("chat", engine={"scheduling": {"maxRunning": 1}}, rollout={"gates": SLOWER})
        ready = kit.reaches("chat", "RolledBack", BUSY)
        load.goes_on()
    assert load.failures() == []
    said = re.search(
        r"^Revision 3 was given up: GateFailed: TimeToFirstTokenP95 is (\S+), more than (\S+) and 100%\.",
        ready["message"],
    )
    assert said, ready["message"]
    bar("bluegreen back", candidate=said[1], stable=said[2], requests=len(load.records), failed=len(load.failures()))
    status = kit.status("chat")
    assert status["revision"] == {"stable": 2}
    moved = [one["to"] for one in status["decisions"] if one["kind"] in ("Weight", "Rollback")]
    assert moved[-3:] in (["r3: 100 %", "r2", "r2: 100 %"], ["r3: 100 %", "r2: 100 %", "r2"])
    assert len(kit.eventually(lambda: kit.events("RolledBack"), bool)) == 1
    row = kit.row("chat")
    assert (row["STATUS"], row["REVISION"]) == ("RolledBack", "2")
    # The service, for those who come past the gateway, never left the old colour.
    assert kit.get("service", "chat")["spec"]["selector"]["moorage.dev/revision"] == "2"
