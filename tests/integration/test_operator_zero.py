"""To zero and back by the whole operator on a real API server. Kubelet and gateways are the test itself."""

import time

import pytest

from tests.integration.team_kit import settled

TARGETS = [{"metric": "RequestsInFlight", "averageValue": "8"}]
AUTOSCALING = {"minReplicas": 0, "maxReplicas": 4, "targets": TARGETS, "idleAfter": "1m"}
LONG_AGO = 3600.0
WORKLOAD = "deployments/chat-r1"
QUIET = 3
"""Seconds without a write after which none is on its way: what gateways know is told up to two seconds later."""


@pytest.fixture
def operator_options():
    return {"gateways": True}


@pytest.fixture
def make_operator(start_operator, eventually):
    def make(**how):
        operator = start_operator(**how)
        eventually(operator.leads, bool, 240)
        return operator

    return make


class Scene:
    """Everybody does their part until something is so."""

    def __init__(self, team, gateways):
        self.team, self.gateways = team, gateways

    def look(self):
        self.team.kubelet.ready()
        for gateway in self.gateways:
            if not gateway.closed:
                gateway.sync()
        return self.team.status()

    def becomes(self, reason, seconds=60):
        return self.team.eventually(self.look, lambda status: ready(status) == reason, seconds)

    def sleeps(self, seconds=60):
        status = self.becomes("ScaledToZero", seconds)
        self.team.eventually(self.team.kubelet.pods, lambda pods: pods == [])
        self.look()
        return status

    def demand(self, **how):
        for gateway in self.gateways:
            gateway.demand(**how)

    def asleep(self, **spec):
        """Serve once, which proves the model, and go to zero: nobody has asked for an hour."""
        self.team.apply(autoscaling=AUTOSCALING, **spec)
        self.becomes("Serving")
        self.demand(ago=LONG_AGO)
        self.team.apply(autoscaling=AUTOSCALING, rollout={"revisionHistoryLimit": 9}, **spec)  # so that it is looked at
        return self.sleeps()


def ready(status):
    return next((one["reason"] for one in status.get("conditions", ()) if one["type"] == "Ready"), None)


def condition(status, kind):
    return next(one["status"] for one in status["conditions"] if one["type"] == kind)


@pytest.fixture
def scene(team, gateways):
    return Scene(team, gateways)


class Sent:
    """When the workload was written, as seen between operator and API server."""

    def __init__(self, proxy):
        self.at = []
        proxy.after = self.wrote

    def wrote(self, write):
        if write[1].endswith(WORKLOAD):
            self.at.append(time.monotonic())


def test_a_model_that_nobody_asks_for_goes_to_zero_and_a_held_request_brings_it_back(
    make_operator, team, scene, proxy, bar
):
    make_operator()
    status = scene.asleep()
    assert (status["ready"], condition(status, "Ready"), condition(status, "Available")) == ("0/0", "True", "True")
    assert team.get("llmdeployment", "chat")["spec"]["replicas"] == 1, "nobody writes that"
    decision = status["decisions"][-1]
    assert (decision["kind"], decision["from"], decision["to"]) == ("Scale", "r1: 1", "r1: 0")
    assert "nobody had asked for 1m" in decision["reason"]
    record = team.get("controllerrevision", "chat-r1")["metadata"]["annotations"]
    assert "moorage.dev/asleep" in record

    writes, sent = settled(proxy, QUIET), Sent(proxy)
    began = time.monotonic()
    scene.gateways[1].demand(held=1)
    team.eventually(lambda: sent.at, bool)
    bar("zero", request_to_workload_seconds=sent.at[0] - began)
    scene.becomes("Serving")
    scene.demand()
    decision = next(one for one in reversed(team.status()["decisions"]) if one["kind"] == "Scale")
    assert (decision["from"], decision["to"]) == ("r1: 0", "r1: 1")
    assert "1 request waits at the gateways" in decision["reason"]
    record = team.get("controllerrevision", "chat-r1")["metadata"]["annotations"]
    assert "moorage.dev/asleep" not in record
    bar("zero", writes_to_wake=settled(proxy, QUIET) - writes)


def test_idle_after_is_acted_upon_in_time_and_costs_nothing_until_then(make_operator, team, scene, proxy):
    make_operator()
    team.apply(autoscaling=AUTOSCALING)
    scene.becomes("Serving")
    scene.demand(ago=40)
    team.apply(autoscaling=AUTOSCALING, rollout={"revisionHistoryLimit": 9})
    team.eventually(
        lambda: team.get("llmdeployment", "chat"),
        lambda one: one["status"]["observedGeneration"] == one["metadata"]["generation"],
    )
    began, writes = time.monotonic(), settled(proxy, QUIET)
    sent = Sent(proxy)
    team.eventually(lambda: sent.at, bool, 60)
    assert sent.at[0] - began >= 10, "not before its time"
    written = [path for _, path in proxy.writes[writes:]]
    assert written[0].endswith("controllerrevisions/chat-r1"), "remembered before it is done"
    scene.sleeps()


def test_a_gateway_that_does_not_answer_keeps_it_up_and_its_return_begins_the_idle_time_anew(
    make_operator, team, scene, proxy
):
    operator = make_operator(resync=0.5)
    team.apply(autoscaling=AUTOSCALING)
    scene.becomes("Serving")
    scene.demand(ago=50)
    writes = settled(proxy, QUIET)
    scene.gateways[1].away()
    away = time.monotonic()
    done = 'controller_runtime_reconcile_total{controller="llmdeployment",result="requeue_after"}'
    before = operator.metric(done)
    team.eventually(
        lambda: (time.monotonic() - away, operator.metric(done) - before), lambda seen: seen[0] > 20 < seen[1]
    )
    assert len(proxy.writes) == writes, "it is not known whether that one has requests"
    scene.gateways[1].back()
    before = operator.metric(done)
    team.eventually(lambda: operator.metric(done), lambda now: now >= before + 10)
    assert len(proxy.writes) == writes, "it has seen nothing until now"
    scene.gateways[1].demand(ago=LONG_AGO)
    scene.sleeps()


def test_who_waits_while_there_is_no_operator_is_served_by_the_next_one(make_operator, team, scene, proxy):
    operator = make_operator()
    scene.asleep()
    writes = settled(proxy, QUIET)
    operator.kill()
    operator = make_operator()
    done = 'controller_runtime_reconcile_total{controller="llmdeployment",result="success"}'
    team.eventually(lambda: operator.metric(done), lambda now: now >= 1)
    assert settled(proxy, QUIET) == writes, "a restart wakes nothing"
    operator.kill()
    scene.gateways[0].demand(held=2)
    make_operator()
    scene.becomes("Serving")


def test_an_edit_at_zero_proves_itself_and_sleeps(make_operator, team, scene):
    make_operator()
    scene.asleep()
    team.apply(autoscaling=AUTOSCALING, engine={"image": "other:2"})
    status = team.eventually(team.status, lambda status: ready(status) == "RollingOut")
    assert (status["revision"], condition(status, "Available")) == ({"stable": 1, "candidate": 2}, "True")
    status = team.eventually(scene.look, lambda status: status["revision"] == {"stable": 2})
    scene.sleeps()
    (workload,) = team.get("deployments")["items"]
    assert (workload["metadata"]["name"], workload["spec"]["replicas"]) == ("chat-r2", 0)


def test_killed_after_every_single_write_it_sleeps_and_wakes(make_operator, start_operator, team, scene, proxy):
    operators = [make_operator()]
    team.apply(autoscaling=AUTOSCALING)
    scene.becomes("Serving")
    scene.demand(ago=LONG_AGO)
    settled(proxy, QUIET)

    def mortal(reason):
        """Everybody does their part until then, and whoever is dead is replaced."""

        def look():
            if operators[-1].process.poll() is not None:
                operators.append(start_operator())
            return scene.look()

        team.eventually(look, lambda status: ready(status) == reason, 300)

    proxy.after = lambda _: operators[-1].process.kill()
    operators[-1].kill()
    mortal("ScaledToZero")
    team.eventually(team.kubelet.pods, lambda pods: pods == [])
    scene.look()
    scene.demand(held=1)
    mortal("Serving")
    proxy.after = None
    assert len(operators) > 2  # the rest of a plan may be written before the end reaches it
