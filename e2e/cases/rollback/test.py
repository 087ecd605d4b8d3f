"""Going back takes moments to a warm revision, and a start to one whose pods are gone; clients never notice."""

import time

import pytest

from e2e.routed import routed


@pytest.fixture(scope="module")
def chat(kit):
    """Revision 2 serves, and a replica of revision 1 is kept warm."""
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    kit.patch("chat", model={"contextLength": 512})
    kit.wait_ready("chat")
    kit.eventually(lambda: roles(kit), lambda found: found == {1: "warm", 2: "stable"})
    return f"{kit.namespace}/chat"


def test_a_warm_revision_has_all_requests_within_moments(kit, chat, bar):
    template, pods = pod_template(kit, 1), pod_uids(kit)
    with kit.load(chat, workers=1) as load, routed(kit, "chat") as tables:
        load.goes_on(2)
        asked = time.time()
        kit.patch("chat", rollbackTo={"revision": 1})
        moved = tables.until(lambda view: view.weights == {1: 100, 2: 0}, since=asked)
        kit.wait_ready("chat")
        load.goes_on(2)
    requests, lost = len(load.records), len(load.failures())
    bar("rollback", to="warm", seconds_to_full_weight=moved - asked, requests=requests, lost=lost)
    assert load.failures() == []
    assert roles(kit) == {1: "stable", 2: "warm"}
    assert pod_uids(kit) == pods, "nothing was started, and nothing ended"
    assert pod_template(kit, 1) == template
    assert kit.get("service", "chat")["spec"]["selector"]["moorage.dev/revision"] == "1"


def test_a_revision_that_is_not_remembered_changes_nothing_and_says_so(kit, chat):
    kit.patch("chat", rollbackTo={"revision": 7})
    kit.reaches("chat", "RevisionNotFound")
    assert kit.row("chat")["MESSAGE"] == (
        "spec.rollbackTo: revision 7 is not remembered; there are 1, 2. Revision 1 goes on serving with 1 replica."
    )
    assert kit.condition("chat", "Accepted")["status"] == "False"
    assert kit.weights("chat") == {1: 100, 2: 0}


def test_without_rollback_to_spec_counts_again(kit, chat):
    kit.moor("rollback", "chat", "--undo")
    kit.wait_ready("chat")
    assert roles(kit) == {1: "warm", 2: "stable"}
    assert kit.weights("chat") == {1: 0, 2: 100}


def test_a_revision_whose_pods_are_gone_comes_back_as_it_was_to_the_byte(kit, chat, bar):
    template = pod_template(kit, 1)
    kit.patch("chat", rollout={"keepWarm": None})
    kit.eventually(lambda: workloads(kit), lambda found: found == ["chat-r2"])
    with kit.load(chat, workers=1) as load:
        load.goes_on(2)
        asked = time.time()
        kit.patch("chat", rollbackTo={"revision": 1})
        kit.eventually(lambda: workloads(kit), lambda found: "chat-r1" in found)
        wrote = time.time()
        assert kit.weights("chat")[2] == 100, "nothing moves before it is there"
        kit.wait_ready("chat")
        served = time.time()
        kit.eventually(lambda: workloads(kit), lambda found: found == ["chat-r1"])
        load.goes_on(2)
    bar("R14", first_write_s=wrote - asked, template="identical", seconds=served - asked, lost=len(load.failures()))
    assert load.failures() == []
    assert pod_template(kit, 1) == template
    assert roles(kit) == {1: "stable", 2: "retired"}, "no revision was made for it"


def roles(kit):
    """Revision -> what its record says that it is."""
    labels = [one["metadata"]["labels"] for one in kit.get("controllerrevisions")["items"]]
    return {int(one["moorage.dev/revision"]): one["moorage.dev/role"] for one in labels}


def workloads(kit):
    return sorted(one["metadata"]["name"] for one in kit.get("deployments")["items"])


def pod_template(kit, number):
    """The pods of a revision, byte by byte as the API server tells of them."""
    return kit.kubectl("get", "deployment", f"chat-r{number}", "--output=jsonpath={.spec.template}")


def pod_uids(kit):
    return {pod["metadata"]["uid"] for pod in kit.get("pods")["items"]}
