"""`moor rollout`: a person stops a rollout, lets it go on, hastens it, gives it up, tries it again, restarts pods."""

import pytest

from e2e.stack import CommandError

BUSY = 600
"""Seconds that anything may take on a machine that is busy with other things."""


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat", BUSY)
    return f"{kit.namespace}/chat"


@pytest.fixture(scope="module", autouse=True)
def load(kit, chat, bar):
    """Clients who are asked all the while whether they noticed."""
    with kit.load(chat, workers=1) as load:
        load.goes_on(1)
        yield load
    bar("actions", requests=len(load.records), failed=len(load.failures()))


@pytest.fixture(autouse=True)
def nobody_notices(load):
    yield
    load.goes_on(2)
    assert load.failures() == []


def test_pause_and_resume(kit, chat):
    kit.patch("chat", model={"contextLength": 512})
    holds(kit, 2)
    assert moor(kit, "pause") == "chat: pause of revision 2\n"
    assert kit.row("chat")["STATUS"] == "Paused"
    ready = kit.condition("chat")
    assert (ready["status"], kit.condition("chat", "Available")["status"]) == ("Unknown", "True")
    assert ready["message"].startswith("Revision 2: A person paused it (resume/r2 lets it go on)")
    assert kit.weights("chat") == {1: 50, 2: 50}, "it stops where it is"
    assert moor(kit, "resume") == "chat: resume of revision 2\n"
    assert kit.row("chat")["STATUS"] == "RollingOut"
    assert last_action(kit).startswith("resume/r2/")


def test_promote(kit, chat):
    holds(kit, 2)
    moor(kit, "promote")
    followed = moor(kit, "status").splitlines()
    assert followed[-1].endswith("Serving: 1 of 1 replica answers requests."), followed
    assert kit.status("chat")["revision"] == {"stable": 2}
    assert kit.eventually(lambda: kit.events("Promoted"), bool) == [
        "Revision 2 has all requests now, instead of revision 1: a person promoted it."
    ]
    with pytest.raises(CommandError, match="no rollout of chat is under way"):
        moor(kit, "promote")


def test_abort(kit, chat):
    kit.patch("chat", model={"contextLength": 256})
    holds(kit, 3)
    moor(kit, "abort")
    assert kit.row("chat")["STATUS"] == "RolledBack"
    assert kit.weights("chat") == {2: 100, 3: 0}
    with pytest.raises(
        CommandError, match="RolledBack: Revision 3 was given up: Aborted: A person aborted the rollout"
    ):
        moor(kit, "status")
    assert kit.eventually(lambda: kit.events("RolledBack"), bool) == [
        "Revision 3 was given up, revision 2 has all requests: Aborted: A person aborted the rollout."
    ]


def test_retry(kit, chat):
    moor(kit, "retry")
    holds(kit, 3)
    moor(kit, "promote")
    kit.wait_ready("chat", BUSY)
    assert kit.status("chat")["revision"] == {"stable": 3}


def test_restart_replaces_the_pods_and_makes_no_revision(kit, chat):
    kit.eventually(lambda: pods(kit), lambda found: len(found) == 1, BUSY)  # those of earlier revisions have gone
    before = pods(kit)
    moor(kit, "restart")
    kit.eventually(lambda: pods(kit), lambda found: len(found) == 1 and found.isdisjoint(before), BUSY)
    kit.wait_ready("chat", BUSY)
    status = kit.status("chat")
    assert (status["revision"], len(status["revisions"])) == ({"stable": 3}, 1)
    assert last_action(kit).startswith("restart/r3/")


def test_an_action_that_is_not_understood_is_answered(kit, chat):
    kit.kubectl("annotate", "--overwrite", "llmdeployment", "chat", "moorage.dev/action=promote")
    accepted = kit.eventually(
        lambda: kit.condition("chat", "Accepted"), lambda found: "promote" in found["message"], 30
    )
    assert accepted["message"] == (
        "The annotation moorage.dev/action is not understood; write promote|abort|pause|resume|retry|restart, "
        "then /rN with the number of a revision, and /NONCE to repeat it."
    )
    assert (accepted["status"], kit.row("chat")["STATUS"]) == ("True", "Serving")


def moor(kit, verb):
    return kit.moor("rollout", verb, "chat", f"--timeout={BUSY}")


def holds(kit, number):
    """Wait until the rollout of that revision holds its step."""
    return kit.eventually(
        lambda: kit.status("chat"),
        lambda status: (
            status.get("revision", {}).get("candidate") == number and status["rollout"].get("reason") == "StepHolding"
        ),
        BUSY,
    )


def last_action(kit):
    return kit.status("chat")["rollout"]["lastAction"]


def pods(kit):
    """UIDs of the serving pods, those on their way out, too."""
    return {one["metadata"]["uid"] for one in kit.get("pods", "--selector=moorage.dev/rank=0")["items"]}
