"""Two operators and one Lease: one works, the other takes over, whichever way the first one goes."""

import signal
import time

import pytest

from tests.integration.operator_kit import Operator, Proxy

SCALED = {"autoscaling": {"maxReplicas": 3, "targets": [{"metric": "QueueDepth", "averageValue": "2"}]}}


@pytest.fixture
def proxies(kubeconfig):
    """One for each operator, so that it shows who wrote."""
    proxies = [Proxy(kubeconfig), Proxy(kubeconfig)]
    yield proxies
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def pair(proxies, namespace, tmp_path, eventually):
    first = Operator(tmp_path, proxies[0].url, namespace, "first").start()
    eventually(first.leads, bool)
    second = Operator(tmp_path, proxies[1].url, namespace, "second").start()
    eventually(lambda: second.answers("/readyz"), lambda status: status == 200)
    yield first, second
    first.stop()
    second.stop()


@pytest.mark.parametrize(
    "way",
    [
        (Operator.kill, {}, "kill"),
        (Operator.terminate, {}, "terminate"),
        (Operator.kill, SCALED, "kill, autoscaling"),
        (Operator.terminate, SCALED, "terminate, autoscaling"),
    ],
)
def test_the_other_takes_over(pair, proxies, team, way, bar):
    (first, second), (go, how, title) = pair, way
    team.apply(**how)
    team.becomes("Serving")
    assert proxies[1].writes == []
    assert not second.leads()

    went = time.monotonic()
    go(first)
    written = len(proxies[0].writes)
    team.apply(name="next", **how)
    team.eventually(second.leads, bool)
    seconds = time.monotonic() - went
    assert ("released the lease" in first.log()) == (go is Operator.terminate), "it need not run out"
    team.becomes("Serving", name="next")
    touched = {address.split("/")[2].split("-r")[0] for _, address in proxies[1].writes if "/events" not in address}
    late = len(proxies[0].writes) - written
    bar(f"R8 {title}", seconds=seconds, writes_by_two=late)
    assert touched == {"next"}
    assert late == 0


def test_a_leader_that_stood_still_writes_nothing_when_it_goes_on(pair, proxies, team, bar):
    """A suspended machine: it has the edits before it, and does not know that it has been replaced."""
    first, second = pair
    for name in ("chat", "other"):
        team.apply(name=name)
        team.becomes("Serving", name=name)
    first.process.send_signal(signal.SIGSTOP)
    try:
        written = len(proxies[0].writes)
        team.eventually(second.leads, bool, 30)
        for name in ("chat", "other"):
            team.apply(name=name, replicas=2)
            team.eventually(lambda name=name: ready(team, name), lambda count: count == "2/2")
    finally:
        first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(30) == 1
    late = proxies[0].writes[written:]
    bar("R8 stood still", writes_by_two=len(late))
    assert late == []


def ready(team, name):
    team.kubelet.ready()
    return team.status(name)["ready"]


def test_a_leader_that_loses_its_lease_ends_and_stops_writing(pair, proxies, kubectl, namespace, eventually):
    first, second = pair
    held = '{"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 3600}}'
    kubectl("patch", "lease", "moorage-operator", f"--namespace={namespace}", "--type=merge", f"--patch={held}")
    assert first.process.wait(30) == 1
    assert not second.leads()


def test_health_pages(pair):
    for operator in pair:
        assert operator.page("/healthz") == (200, "ok\n")
        assert operator.page("/readyz") == (200, "ok\n")
        assert "workqueue_depth" in operator.page("/metrics")[1]
