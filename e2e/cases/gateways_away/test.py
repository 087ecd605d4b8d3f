"""No gateway left in mid-rollout: nothing moves, no clock runs, what serves goes on; it goes on once they are back."""

import time
from contextlib import contextmanager

import pytest

from e2e.stack import GATEWAY_SERVICE, SYSTEM_NAMESPACE

DEADLINE = 20  # of `late`, as its manifest has it


@pytest.fixture(scope="module")
def models(kit):
    """`chat` halfway through a canary; `late`, whose candidate never comes up, so that its deadline's clock runs."""
    kit.apply("models.yaml")
    kit.wait_ready("chat")
    kit.wait_ready("late")
    kit.patch("chat", model={"contextLength": 2048})
    kit.eventually(lambda: kit.weights("chat"), lambda seen: seen == {1: 50, 2: 50})
    kit.patch("late", engine={"image": "moorage/nothing:here"})
    began = time.time()
    kit.eventually(lambda: clock(kit), lambda seen: "since" in seen)
    return began


def test_without_gateways_nothing_moves_and_no_clock_runs(kit, models, bar):
    before = pods(kit)
    with no_gateways(kit):
        for name in ("chat", "late"):
            kit.eventually(lambda name=name: kit.row(name)["STATUS"], lambda seen: seen == "GatewayUnreachable")
        away = time.time()
        stood = clock(kit)
        assert "since" not in stood
        assert stood["elapsed"] < DEADLINE
        kit.kubectl("annotate", "llmdep/chat", "moorage.dev/action=promote/r2")
        kit.eventually(lambda: kit.status("chat")["rollout"].get("lastAction"), lambda seen: seen == "promote/r2")
        own = kit.get("service", "chat")["spec"]["clusterIP"]
        assert "harbour" in "".join(kit.ask("chat", stream=True, at=f"http://{own}/v1")["pieces"])
        kit.eventually(lambda: time.time() - models, lambda seconds: seconds > DEADLINE + 2)
        assert (kit.weights("chat"), pods(kit), clock(kit)) == ({1: 50, 2: 50}, before, stood)
        assert kit.row("late")["MESSAGE"].startswith("Revision 2: No gateway is known")
    went_on = kit.eventually(lambda: clock(kit), lambda seen: "since" in seen)
    assert went_on["elapsed"] == stood["elapsed"], "neither begun anew nor run meanwhile"
    bar("gateways away", seconds=time.time() - away, clock_before=stood["elapsed"], clock_after=went_on["elapsed"])


def test_with_gateways_it_goes_on_where_it_was(kit, models):
    kit.wait_ready("chat")
    assert kit.status("chat")["revision"] == {"stable": 2}, "promoted, as a person had asked for meanwhile"
    kit.eventually(lambda: kit.row("late")["STATUS"], lambda seen: seen == "RolledBack")
    (why,) = kit.events("RolledBack")
    assert f"No further replica became routable within {DEADLINE}s" in why
    kit.stack.kubectl("rollout", "status", f"deployment/{GATEWAY_SERVICE}", f"--namespace={SYSTEM_NAMESPACE}")
    assert "harbour" in "".join(kit.ask(f"{kit.namespace}/chat", stream=True)["pieces"])


@contextmanager
def no_gateways(kit):
    """The installation's gateways, scaled to none for as long as the context lasts."""
    deployment = ("deployment", GATEWAY_SERVICE, f"--namespace={SYSTEM_NAMESPACE}")
    count = kit.stack.get(*deployment)["spec"]["replicas"]
    kit.stack.kubectl("scale", *deployment, "--replicas=0")
    try:
        yield
    finally:
        kit.stack.kubectl("scale", *deployment, f"--replicas={count}")


def clock(kit):
    """The clock of `late`'s deadline."""
    return kit.status("late").get("rollout", {}).get("progress", {})


def pods(kit):
    """The replicas of `chat`, by what cannot be had twice."""
    items = kit.get("pods", "--selector=moorage.dev/deployment=chat")["items"]
    return {pod["metadata"]["uid"] for pod in items}
