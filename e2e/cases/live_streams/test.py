"""All replicas are replaced under fifty streams that never stop: none is cut, never are fewer ready than promised."""

import time

from e2e.waiting import each_second

STREAMS = 50
LONG = 100  # tokens of each answer: many seconds with fifty of them on two cores, so that all are under way all along
REPLICAS = 2


def test_a_rolling_update_under_fifty_streams_cuts_none(kit, bar):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    old = set(_pods(kit))
    streams = kit.load(f"{kit.namespace}/chat", workers=STREAMS, tokens=LONG)
    with streams as load, each_second(lambda: _sample(kit)) as seen:
        kit.eventually(lambda: len(load.records), lambda ended: ended >= STREAMS / 2)
        began = time.time()
        kit.patch("chat", model={"contextLength": 2048})
        kit.eventually(lambda: kit.status("chat")["revision"], lambda revision: revision == {"stable": 2}, 280)
        seconds = time.time() - began
        kit.eventually(lambda: old & set(_pods(kit)), lambda left: not left, 120)
        load.goes_on()
    told = [min(at for at, pods in seen if pods.get(name) != "ready" and at > began) for name in old]
    across = [sum(one.started < at < one.ended for one in load.records) for at in told]
    ready = [sum(state == "ready" for state in pods.values()) for _, pods in seen]
    bar(
        "R13",
        broken=len(load.failures()),
        streams=len(load.records),
        live_min=min(across),
        samples=len(ready),
        ready_min=min(ready),
        seconds=seconds,
    )
    assert load.failures() == []
    assert min(across) > STREAMS / 2, "streams were under way whenever a replica was told to go"
    assert min(ready) >= REPLICAS
    assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in _pods(kit).values())


def _sample(kit):
    """When, and of each replica whether requests may come to it."""
    return time.time(), {name: _state(pod) for name, pod in _pods(kit).items()}


def _state(pod):
    if "deletionTimestamp" in pod["metadata"]:
        return "going"
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    return "ready" if conditions.get("Ready") == "True" else "coming"


def _pods(kit):
    pods = kit.get("pods", "--selector=moorage.dev/deployment=chat")["items"]
    return {pod["metadata"]["name"]: pod for pod in pods}
