"""An edit that is taken back, or followed by another one, half way: there are never fewer replicas than promised."""

import pytest

from e2e.routed import routed

REPLICAS = 2


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    return f"{kit.namespace}/chat"


def test_an_edit_that_is_taken_back_half_way(kit, chat, bar):
    with kit.load(chat, workers=2, pause=0.1) as load, routed(kit, "chat") as tables:
        load.goes_on(2)
        kit.patch("chat", model={"contextLength": 512})
        tables.until(lambda view: view.weights.get(2, 0) > 0)
        kit.patch("chat", model={"contextLength": 1024})
        kit.wait_ready("chat")
        kit.eventually(lambda: workloads(kit), lambda found: found == ["chat-r1"])
        load.goes_on(2)
    tell(bar, "revert", tables, load)
    assert load.failures() == []
    assert tables.fewest() >= REPLICAS
    assert kit.status("chat")["revision"] == {"stable": 1}
    assert numbers(kit) == [1, 2], "an edit that is taken back is no third revision"
    assert kit.events("RolledBack") == [], "a person changed their mind, and nothing failed"


def test_an_edit_that_is_followed_by_another_half_way(kit, chat, bar):
    with kit.load(chat, workers=2, pause=0.1) as load, routed(kit, "chat") as tables:
        kit.patch("chat", model={"contextLength": 2048})
        tables.until(lambda view: view.weights.get(3, 0) > 0)
        kit.patch("chat", model={"contextLength": 512})
        kit.wait_ready("chat")
        kit.eventually(lambda: workloads(kit), lambda found: found == ["chat-r2"])
        load.goes_on(2)
    tell(bar, "coalesce", tables, load)
    assert load.failures() == []
    assert tables.fewest() >= REPLICAS
    assert numbers(kit) == [1, 2, 3], "the second edit is what revision 2 was"


def tell(bar, name, tables, load):
    seen = {"views": len(tables.views), "routable_min": tables.fewest(), "promised": REPLICAS}
    bar(name, **seen, requests=len(load.records), lost=len(load.failures()))


def workloads(kit):
    return sorted(one["metadata"]["name"] for one in kit.get("deployments")["items"])


def numbers(kit):
    """The revisions that are remembered."""
    return sorted(one["revision"] for one in kit.get("controllerrevisions")["items"])
