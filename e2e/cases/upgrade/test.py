"""The whole chart goes to another version and back under load: no model is restarted, and no request is lost.

Operators, gateways and the resource definition change; what the next version renders by itself differs in many ways.
"""

from contextlib import contextmanager

import pytest

from e2e.next_version import ARCHIVE, HISTORY_LIMIT, archive, write_next
from e2e.stack import SYSTEM_NAMESPACE

SYSTEM = f"--namespace={SYSTEM_NAMESPACE}"
PATIENCE = ("--wait", "--timeout=10m")


@pytest.fixture(scope="module")
def models(kit):
    """`chat`, at rest; `halfway`, in the hold of a canary."""
    kit.apply("models.yaml")
    kit.wait_ready("chat")
    kit.wait_ready("halfway")
    kit.patch("halfway", model={"contextLength": 2048})
    kit.eventually(lambda: kit.weights("halfway"), lambda seen: seen == {1: 50, 2: 50})


def test_an_upgrade_and_back_restart_no_model_and_lose_no_request(kit, models, tmp_path, bar):
    before = seen(kit)
    with kit.load(f"{kit.namespace}/chat", workers=4) as load:
        load.goes_on()
        with upgraded(kit, tmp_path):
            kit.eventually(lambda: limits(kit), lambda found: found == {HISTORY_LIMIT})
            kit.eventually(lambda: versions(kit), lambda found: found == {"0.2.0"})
            load.goes_on()
            assert seen(kit) == before
        kit.eventually(lambda: limits(kit), lambda found: found == {0})
        kit.eventually(lambda: versions(kit), lambda found: found == {"0.1.0"})
        load.goes_on()
    after = seen(kit)
    changed = sum(after["pods"].get(name) != pod for name, pod in before["pods"].items())
    figures = {"requests": len(load.records), "failed": len(load.failures())}
    bar("R22", models=2, pods=len(before["pods"]), changed=changed, **figures)
    assert after == before
    assert load.failures() == []


@contextmanager
def upgraded(kit, folder):
    """The next version in the present one's place, for as long as the context lasts."""
    write_next(folder)
    (folder / ARCHIVE).write_bytes(archive(folder))
    kit.stack.kubectl("create", "configmap", "next", f"--from-file={folder / ARCHIVE}", SYSTEM)
    try:
        chart = str(folder / "charts" / "moorage")
        values = ("--reuse-values", "--set=runtime.image.tag=of-the-next-version")
        kit.stack.helm("upgrade", "moorage", chart, SYSTEM, *PATIENCE, *values)
        yield
    finally:
        kit.stack.helm("rollback", "moorage", SYSTEM, *PATIENCE)
        kit.stack.kubectl("delete", "configmap", "next", SYSTEM)


def seen(kit):
    """What must not change: pods and how often they were restarted, what they are made of, and the rollout's state."""
    halfway = kit.status("halfway")
    return {
        "pods": {
            pod["metadata"]["uid"]: [one["restartCount"] for one in pod["status"]["containerStatuses"]]
            for pod in kit.get("pods")["items"]
        },
        "templates": {one["metadata"]["name"]: one["spec"]["template"] for one in kit.get("deployments")["items"]},
        "weights": kit.weights("halfway"),
        "step": (halfway["rollout"]["step"], halfway["rollout"]["stepSince"]),
    }


def limits(kit):
    """What the operator that looked at workloads last has written into them."""
    return {one["spec"]["revisionHistoryLimit"] for one in kit.get("deployments")["items"]}


def versions(kit):
    """The versions of all operators and gateways that run."""
    pods = kit.stack.get("pods", "--selector=app.kubernetes.io/instance=moorage", SYSTEM)["items"]
    return {pod["metadata"]["labels"]["app.kubernetes.io/version"] for pod in pods}
