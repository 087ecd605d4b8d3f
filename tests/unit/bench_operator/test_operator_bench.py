"""What the operator's benchmark takes for done, and where its figures come from."""

import threading

import pytest
from prometheus_client import generate_latest

from bench.operator.fleet import available, replaced
from bench.operator.process import read_figures
from bench.operator.profiled import Profiles
from moorage_operator.shell.metrics import Metrics


def test_figures_leave_out_the_lease_and_what_was_refused():
    metrics = Metrics()
    for method, code in [("PATCH", "200"), ("PATCH", "201"), ("POST", "201"), ("DELETE", "200")]:
        metrics.observe_request(method, code)
    for method, code in [("PUT", "200"), ("GET", "404"), ("WATCH", "200"), ("PATCH", "409"), ("POST", "error")]:
        metrics.observe_request(method, code)
    metrics.leading.labels("moorage-operator").set(1)
    metrics.observe_result("success")
    metrics.observe_result("requeue")
    metrics.queue.depth.set(3)
    seen = read_figures(generate_latest(metrics.registry).decode())
    assert (seen.writes, seen.refused, seen.reconciled) == (4, 2, 2)
    assert seen.leading
    assert not seen.idle
    metrics.queue.depth.set(0)
    assert read_figures(generate_latest(metrics.registry).decode()).idle


def deployment(edit, *, generation=2, observed=2, ready="True", revisions=1):
    conditions = [{"type": "Ready", "status": ready}, {"type": "Available", "status": "True"}]
    status = {"observedGeneration": observed, "conditions": conditions, "revisions": [{}] * revisions}
    spec = {"engine": {"env": [{"name": "EDIT", "value": edit}]}}
    return {"metadata": {"generation": generation}, "spec": spec, "status": status}


def test_an_object_is_replaced_once_nothing_but_the_edit_is_left():
    assert replaced(1)(deployment("1"))


@pytest.mark.parametrize(
    "how", [{"edit": "0"}, {"observed": 1}, {"ready": "False"}, {"revisions": 2}], ids=lambda how: next(iter(how))
)
def test_it_is_not_replaced_before(how):
    assert not replaced(1)(deployment(**{"edit": "1", **how}))


def test_what_nobody_has_reported_on_is_not_available():
    assert available(deployment("1"))
    assert not available({})


def test_each_thread_has_a_profile_of_its_own():
    profiles = Profiles()

    def computes():
        profiles.begin()
        sum(sorted(range(1000)))

    thread = threading.Thread(target=computes, name="busy")
    thread.start()
    thread.join()
    assert "busy" in profiles.report()
    assert "built-in method builtins.sorted" in profiles.report()
