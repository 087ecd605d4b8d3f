"""To zero and back: when a model falls asleep, what wakes it, and what becomes of a rollout meanwhile."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from moorage_api.autoscaling import Autoscaling
from moorage_api.conditions import Reason
from moorage_operator.plan import writers, zero
from moorage_operator.plan.demand import Demand, demand
from moorage_operator.plan.figures import Gateway, PodFigures, RevisionFigures
from moorage_operator.plan.pods import Replica
from moorage_operator.plan.routable import Routing
from moorage_operator.plan.startup import startup
from moorage_operator.plan.times import as_text
from moorage_operator.render.record import Role, Standing
from tests.rollout_world import CRASHING, OTHER, STUCK
from tests.zero_world import AUTOSCALING, ZeroWorld

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ERRORS = {"metric": "ErrorRate", "max": "5%", "minRequests": 50}


def serving(**spec):
    """A world that serves revision 1, for which nobody has asked yet."""
    made = ZeroWorld(**spec)
    made.run()
    made.until(lambda: made.ready[1] == "Serving", traffic=False)
    return made


def asleep(**spec):
    made = serving(**spec)
    made.quiet(130)
    made.sync()
    assert made.sleeps()
    return made


def last(made):
    decision = made.status["decisions"][-1]
    return decision["kind"], decision["from"], decision["to"], decision["reason"]


# What gateways say


def gateway(name="a", *, answering=True, ready=True, held=0, in_flight=0, quiet=60, heard=0, pods=()):
    """`quiet` and `heard`: how many seconds ago; None: it does not say."""
    since = None if quiet is None else NOW - timedelta(seconds=quiet)
    rows = (RevisionFigures(1, in_flight=in_flight),)
    about = {"ready": ready, "held": held, "quiet_since": since, "heard": NOW - timedelta(seconds=heard)}
    return Gateway(name, "2026-01-01T00:00:00Z", answering, rows, pods, **about)


@pytest.mark.parametrize(
    ("gateways", "unknown"),
    [
        (None, "This installation has no gateways"),
        ((), "No gateway is known"),
        ((gateway(answering=False),), "0 of 1 gateway answers"),
        ((gateway(answering=False, ready=False),), "0 of 1 gateway answers"),
        ((gateway(), gateway("b", answering=False)), "1 of 2 gateways answer"),
        ((gateway(), gateway("b", quiet=None)), "Gateway b does not tell when the last request was there"),
        ((gateway(), gateway("b", quiet=None, ready=False)), "Gateway b does not tell when the last request was there"),
    ],
)
def test_whether_it_is_quiet_is_unknown_unless_each_gateway_says_so(gateways, unknown):
    assert demand(Routing(gateways)) == Demand(unknown=unknown)


def test_quiet_is_what_all_gateways_have_seen_until_all_were_heard():
    found = demand(Routing((gateway(quiet=60, heard=4), gateway("b", quiet=30, heard=1))))
    assert (found.quiet_since, found.heard) == (NOW - timedelta(seconds=30), NOW - timedelta(seconds=4))
    assert (found.there, found.gateways) == (False, 2)


def test_one_that_clients_are_not_sent_to_is_not_waited_for():
    assert demand(Routing((gateway(), gateway("b", answering=False, ready=False)))).unknown == ""


def test_one_gateway_with_a_request_suffices_whatever_the_others_do():
    waiting, busy = gateway(held=2), gateway(in_flight=3)
    silent = gateway("b", answering=False)
    assert demand(Routing((waiting, silent))).held == 2
    assert demand(Routing((busy, silent))).in_flight == 3
    assert demand(Routing((waiting, silent))).there
    assert not demand(Routing((replace(waiting, answering=False), silent))).there, "it is not believed any more"


def test_requests_that_come_past_the_gateways_count_by_the_word_of_the_replicas():
    one, other = PodFigures("one", running=5, waiting=3), PodFigures("other", running=1)
    idle = PodFigures("one")
    assert demand(Routing((gateway(pods=(one,)), gateway("b")))).in_flight == 8
    assert demand(Routing((gateway(pods=(one, other)), gateway("b", pods=(idle, other))))).in_flight == 9, "each once"
    assert demand(Routing((gateway(pods=(one,), in_flight=7), gateway("b", in_flight=4)))).in_flight == 11, "or ours"
    assert not demand(Routing((gateway(pods=(one,), answering=False), gateway("b", pods=(idle,))))).there


def decided(**inputs):
    """What is decided of a model with one replica that has been up for a day, and an idleAfter of 10 minutes."""
    replica = Replica(1, ready=True, phase=Reason.SERVING, ready_since=NOW - timedelta(days=1))
    about = {"replicas": 8, "written": NOW - timedelta(hours=1), "content": False, "running": 1, "candidate": None}
    about |= {"stable": Standing(Role.STABLE, "2026-01-01T00:00:00Z"), "there": (replica,), "now": NOW}
    about |= {"autoscaling": Autoscaling.model_validate({**AUTOSCALING, "idleAfter": "10m"}), "demand": Demand()}
    about |= {"readable": True, "through_gateways": True, "patience": timedelta(minutes=10)}
    return zero.decide(zero.Inputs(**{**about, **inputs}))


def idle(uid, *, quiet, heard=0):
    """The same, where nobody has asked for so many seconds."""
    said = Demand(0, 0, NOW - timedelta(seconds=quiet), NOW - timedelta(seconds=heard), 1)
    return decided(uid=str(uid), demand=said)


# Falling asleep


def test_what_is_made_starts_once_and_goes_when_nobody_has_asked_for_idle_after():
    made = serving()
    assert made.there() == {1: 1}
    made.quiet(110)
    assert made.there() == {1: 1}
    assert 8 <= made.requeue_after <= 14, "when it may fall asleep"
    made.quiet(20)
    assert (made.there(), made.ready) == ({}, ("True", "ScaledToZero"))
    assert made.condition("Available") == "True"
    assert made.message == (
        "Nobody asks for the model, so nothing runs. The next request starts a replica and waits for it."
    )
    assert (made.status["ready"], made.weights) == ("0/0", {1: 100})
    kind, was, now, why = last(made)
    assert (kind, was, now) == ("Scale", "r1: 1", "r1: 0")
    assert why.endswith(
        "asleep since 00:02:02 UTC: nobody had asked for 2m, the last one was at 00:00:00 UTC (2 gateways asked)"
    )


def test_what_is_made_starts_one_replica_whatever_replicas_says():
    made = ZeroWorld(replicas=3)
    made.run()
    assert made.there() == {1: 1}
    made.until(lambda: made.ready[1] == "Serving", traffic=False)
    made.tick(traffic=False)
    assert (made.there(), made.status["revision"]) == ({1: 1}, {"stable": 1}), "nobody asks"
    made.ask(count=17)
    made.run()
    assert made.workloads() == {1: 3}


def test_what_never_came_up_is_not_put_to_sleep_before_it_has_proven_itself():
    made = ZeroWorld(engine={"image": STUCK})
    made.run()
    made.quiet(3000)
    assert made.there() == {1: 1}


def test_idle_time_begins_when_it_serves():
    made = ZeroWorld()
    made.run()
    made.wait(1000)
    made.until(lambda: made.ready[1] == "Serving", traffic=False)
    made.quiet(110)
    assert made.there() == {1: 1}
    made.quiet(20)
    assert made.sleeps()


def test_a_long_stream_keeps_its_model_up():
    made = serving()
    made.ask()
    for _ in range(30):
        made.tick(10, traffic=False)
    assert made.there() == {1: 1}
    assert made.requeue_after == 120, "its end is told to nobody"
    made.quiet(110)
    assert made.there() == {1: 1}
    made.quiet(20)
    assert made.sleeps()


def test_nothing_goes_while_a_gateway_may_have_requests_that_it_does_not_tell_of():
    made = serving()
    made.silence(1, answering=False)
    made.quiet(1000)
    assert made.there() == {1: 1}
    assert made.requeue_after == 30
    made.unready(1)
    made.quiet(10)
    assert made.sleeps(), "nobody is sent to it"


def test_without_any_gateway_nothing_goes_and_the_idle_time_begins_anew():
    made = serving()
    for which in (0, 1):
        made.silence(which, answering=False)
    made.quiet(1000)
    assert made.there() == {1: 1}
    for which in (0, 1):
        made.restart_gateway(which)
    made.quiet(110)
    assert made.there() == {1: 1}
    made.quiet(20)
    assert made.sleeps()


def test_what_a_gateway_has_not_said_yet_does_not_count():
    """Its last word may be 15 seconds old, and a request may have come since."""
    made = serving()
    made.quiet(110)
    snapshot = made.snapshot()
    heard = [replace(one, heard=one.heard - timedelta(seconds=4)) for one in snapshot.gateways]
    made.wait(9)
    made.snapshot = lambda: replace(snapshot, gateways=tuple(heard), now=made.now)
    made.run()
    assert made.there() == {1: 1}
    assert 0 < made.requeue_after <= 5, "until its next word"


def test_models_that_fall_idle_together_go_one_after_the_other():
    """As after a start of the gateways, which have counted nothing before."""
    waits = sorted(idle(uid, quiet=540).wakes[0] for uid in range(1000))
    assert (60, 62) < (waits[0], waits[-1]) <= (90, 90), "a twentieth of idleAfter later at the most"
    assert max(after - before for before, after in pairwise(waits)) < 1
    assert idle("7", quiet=631).mode is zero.Mode.IDLE


@pytest.mark.parametrize(("heard", "left"), [(2, 3), (4, 1), (5, 5), (14, 5)])
def test_a_gateways_next_word_is_waited_for_and_not_asked_for_each_second(heard, left):
    assert idle("", quiet=601, heard=heard).wakes == (left,)


def test_in_an_installation_without_gateways_nothing_sleeps():
    made = ZeroWorld(gateways=0)
    made.gateways_installed = False
    made.run()
    made.until(lambda: made.ready[1] == "Serving", traffic=False)
    made.quiet(1000)
    assert made.there() == {1: 1}


def test_a_model_whose_fewest_replicas_are_one_never_sleeps():
    made = serving(autoscaling={"minReplicas": 1, "maxReplicas": 2, "targets": AUTOSCALING["targets"]})
    made.quiet(1000)
    assert made.there() == {1: 1}


# Waking


def test_a_request_that_waits_starts_one_replica_however_many_there_were_before_the_sleep():
    made = serving(replicas=3)
    made.quiet(130)
    made.sync()
    made.ask(1)
    made.run()
    assert made.workloads() == {1: 1}
    assert made.ready == ("False", "Scheduling")
    assert made.condition("Available") == "True", "the request is answered once a replica is up"
    kind, was, now, why = last(made)
    assert (kind, was, now) == ("Scale", "r1: 0", "r1: 1")
    assert why.endswith("; 1 request waits at the gateways, 0 are in flight; spec.replicas 3 is of before the sleep")
    made.until(lambda: made.ready[1] == "Serving", traffic=False)
    assert made.gateways[1].in_flight == 1
    made.wait(50)
    made.run()
    assert (made.workloads(), made.requeue_after) == ({1: 1}, 8), "nobody has measured it yet"
    made.wait(10)
    made.run()
    assert made.workloads() == {1: 3}, "no autoscaler tells that one is enough"


def test_requests_that_wait_start_as_many_replicas_as_they_ask_for_and_none_of_them_is_stopped_when_some_go():
    made = serving(replicas=4)
    made.quiet(130)
    made.sync()
    made.ask(count=17)
    made.run()
    assert made.workloads() == {1: 3}
    made.gateways[0].held = 1
    made.run()
    assert made.workloads() == {1: 3}
    made.ask(count=99)
    made.run()
    assert made.workloads() == {1: 4}, "as many as the autoscaler asked for at the most"


def test_what_proved_itself_at_zero_stays_one_replica_until_somebody_asks_for_more():
    made = asleep(replicas=3)
    made.edit(OTHER)
    made.until(lambda: made.status["revision"] == {"stable": 2}, traffic=False)
    made.tick(traffic=False)
    assert made.there() == {2: 1}


LONG_AGO, WOKEN = NOW - timedelta(hours=1), NOW - timedelta(seconds=100)


def woken(up, **inputs):
    """How many replicas there shall be, where the last number is 8 and one has been up for so many seconds."""
    replica = Replica(1, ready=up is not None, phase=Reason.SERVING)
    replica = replica if up is None else replace(replica, ready_since=NOW - timedelta(seconds=up))
    stable = Standing(Role.STABLE, "2026-01-01T00:00:00Z", woken=as_text(WOKEN))
    return decided(**{"stable": stable, "demand": Demand(in_flight=1), "there": (replica,), **inputs}).wanted


@pytest.mark.parametrize(
    ("up", "inputs", "wanted"),
    [
        (None, {}, 1),
        (None, {"demand": Demand(held=30)}, 4),
        (None, {"written": NOW}, 8),  # the autoscaler has heard of what waits, or a person wants them
        (None, {"written": None}, 1),
        (59, {}, 1),
        (60, {}, 8),  # its metrics cannot be had, or ask for more
        (60, {"content": True}, 1),  # it keeps 8 for its stabilisation alone
        (60, {"content": True, "demand": Demand(in_flight=17)}, 3),
        (60, {"content": True, "running": 5}, 5),
        (60, {"content": True, "replicas": 1, "running": 5}, 1),  # the budget, for one
        (60, {"content": True, "demand": Demand()}, 1),
        (60, {"content": True, "stable": Standing(Role.STABLE, "2026-01-01T00:00:00Z")}, 8),  # it never slept
    ],
)
def test_after_a_wake_a_number_counts_once_it_is_of_after_that(up, inputs, wanted):
    assert woken(up, **inputs) == wanted


def test_what_is_enough_by_the_autoscalers_own_figures():
    def hpa(current, active="True"):
        metric = {"object": {"metric": {"name": "RequestsInFlight"}, "current": {"averageValue": current}}}
        target = {"object": {"metric": {"name": "RequestsInFlight"}, "target": {"averageValue": "8"}}}
        said = [{"type": "ScalingActive", "status": active}]
        return {"spec": {"metrics": [target]}, "status": {"conditions": said, "currentMetrics": [metric]}}

    assert [writers.is_content(hpa(each)) for each in ("2", "8", "8001m")] == [True, True, False]
    assert not writers.is_content(hpa("2", active="False"))
    assert not writers.is_content({"status": {}})
    assert not writers.is_content(None)


def test_when_the_number_was_written():
    def deployment(*times):
        return {"metadata": {"managedFields": [{"manager": "m", **({"time": one} if one else {})} for one in times]}}

    assert writers.written(deployment("2026-01-01T12:00:00Z", "2026-01-01T11:00:00Z")) == NOW
    assert writers.written(deployment("once", None)) is None


def test_a_client_that_goes_away_leaves_it_starting_and_it_sleeps_after_it_has_served():
    made = asleep()
    made.ask()
    made.run()
    made.end()
    made.wait(600)
    made.run()
    assert made.there() == {1: 1}, "whoever comes back finds it"
    made.tick(traffic=False)
    made.quiet(130)
    assert made.sleeps()


def test_what_does_not_come_up_again_and_nobody_asks_for_goes_in_the_end():
    made = asleep()
    made.room = 0
    made.ask()
    made.run()
    made.quiet(900)
    assert made.there() == {1: 1}, "as long as any start may take"
    made.quiet(130)
    assert made.there() == {}


def test_a_restarted_gateway_does_not_wake_it():
    made = asleep()
    for which in (0, 1):
        made.restart_gateway(which)
    made.quiet(30)
    assert made.sleeps()


def test_an_operator_that_died_halfway_into_sleep_takes_nothing_from_whoever_asks_now():
    made = serving()
    made.quiet(110)
    made.wait(20)
    made.step(survive=1)
    assert made.asleep
    before = [pod.uid for pod in made.pods]
    made.ask()
    made.run()
    assert not made.asleep
    assert [pod.uid for pod in made.pods] == before


def test_a_lost_status_does_not_wake_it():
    made = asleep()
    made.lose_status()
    made.run()
    assert made.sleeps()


def test_the_estimate_of_a_start_is_there_before_its_pod():
    known = {"seconds": {"Scheduling": 1, "FetchingModel": 20, "LoadingWeights": 9}}
    told = startup((), (), known, NOW)
    assert told.estimated_ready == NOW + timedelta(seconds=30)
    later = startup((), (), told.to_api(), NOW + timedelta(seconds=4))
    assert later == told, "it does not move with the time"
    assert startup((), (), known).estimated_ready is None
    assert startup((), (), None, NOW) is None, "nothing is known of a model that never started"


# By hand


def test_replicas_0_stops_it_whoever_asks():
    made = serving()
    made.spec(replicas=0)
    made.run()
    assert (made.there(), made.ready[1]) == ({}, "ScaledToZero")
    assert made.message.startswith("spec.replicas is 0")
    made.sync()
    made.ask()
    made.run()
    assert made.there() == {}
    made.spec(replicas=1)
    made.run()
    assert made.there() == {1: 1}


def test_a_person_who_wants_one_replica_at_least_wakes_it():
    made = asleep()
    made.spec(autoscaling={"minReplicas": 1, "maxReplicas": 2, "targets": AUTOSCALING["targets"]})
    made.run()
    assert made.there() == {1: 1}
    assert not made.asleep


def test_with_a_spec_that_cannot_be_used_the_last_good_one_sleeps_on_and_is_woken():
    made = asleep()
    made.spec(model={"source": "ftp://nowhere"})
    made.run()
    assert (made.there(), made.ready[1], made.condition("Available")) == ({}, "InvalidSpec", "True")
    made.ask()
    made.run()
    assert made.there() == {1: 1}


# Rollouts


@pytest.mark.parametrize("rollout", [{}, {"strategy": "Canary", "steps": [{"weight": 10}], "gates": [ERRORS]}])
def test_an_edit_at_zero_proves_itself_with_one_replica_and_sleeps(rollout):
    made = asleep(replicas=3, rollout=rollout)
    made.edit(OTHER)
    made.run()
    assert made.workloads() == {1: 0, 2: 1}
    assert (made.ready, made.condition("Available")) == (("False", "RollingOut"), "True")
    made.until(lambda: made.status["revision"] == {"stable": 2}, traffic=False)
    assert made.weights[2] == 100
    promoted = next(one["reason"] for one in made.status["decisions"] if one["kind"] == "Promote")
    assert promoted == "one replica of it is routable; nobody asks for the model, so nothing was compared"
    made.quiet(130)
    assert made.sleeps()


def test_a_request_during_the_proof_is_answered_by_whatever_is_up_first():
    made = asleep()
    made.edit(OTHER)
    made.run()
    made.ask()
    made.run()
    assert made.workloads() == {1: 1, 2: 1}
    made.until(lambda: made.status["revision"] == {"stable": 2}, traffic=False)


def test_a_revision_that_does_not_prove_itself_is_given_up_and_the_last_one_is_woken():
    made = asleep()
    made.edit(CRASHING)
    made.run()
    made.until(lambda: made.ready[1] == "RolledBack", traffic=False)
    assert (made.there(), made.condition("Available")) == ({}, "True")
    assert made.asleep
    made.sync()
    made.ask()
    made.run()
    assert made.there() == {1: 1}
    assert (made.ready[1], made.condition("Available")) == ("RolledBack", "True")
    made.until(lambda: made.status["readyReplicas"] == 1, traffic=False)
    made.quiet(130)
    assert made.there() == {}
    made.act("retry", 2)
    made.run()
    assert made.workloads() == {1: 0, 2: 1}, "tried once more"


def test_a_proof_has_the_deadline_of_any_rollout():
    made = asleep(rollout={"progressDeadline": "60s"})
    made.edit(STUCK)
    made.run()
    made.until(lambda: made.ready[1] == "RolledBack", rounds=40, traffic=False)
    assert "ProgressDeadlineExceeded" in made.message


def test_going_back_at_zero_needs_no_proof():
    made = asleep()
    made.edit(OTHER)
    made.until(lambda: made.status["revision"] == {"stable": 2}, traffic=False)
    made.quiet(130)
    made.spec(rollbackTo={"revision": 1})
    made.run()
    assert (made.status["revision"], made.there(), made.ready[1]) == ({"stable": 1}, {}, "ScaledToZero")
    made.sync()
    made.ask()
    made.run()
    assert made.workloads() == {1: 1}


@pytest.mark.parametrize("paused", [True, False])
def test_a_paused_edit_waits_at_zero_too(paused):
    made = asleep(rollout={"paused": paused})
    made.edit(OTHER)
    made.run()
    assert made.there() == ({} if paused else {2: 1})


@pytest.mark.parametrize(
    "rollout",
    [
        {"gates": [ERRORS]},
        {"strategy": "Canary", "steps": [{"weight": 50}], "gates": [ERRORS]},
        {"strategy": "Canary", "steps": [{"weight": 50, "hold": "10m"}]},
        {"strategy": "BlueGreen", "keepWarm": {"for": "10m"}},
    ],
)
def test_a_rollout_that_waits_for_requests_or_time_rests_and_goes_on_with_the_next_one(rollout):
    made = serving(rollout=rollout)
    made.edit(OTHER)
    made.until(lambda: made.there() == {1: 1, 2: 1}, traffic=False)
    made.quiet(140)
    assert (made.there(), made.ready) == ({}, ("True", "ScaledToZero"))
    assert made.message.endswith("Revision 2 goes on being rolled out then.")
    made.quiet(4000)
    assert made.status["revision"] == {"stable": 1, "candidate": 2}, "nothing was proven"
    made.ask()
    made.run()
    assert made.workloads()[1] >= 1
    made.until(lambda: made.status["revision"] == {"stable": 2}, rounds=600)


def test_what_a_gate_has_seen_is_not_forgotten_in_sleep():
    made = serving(rollout={"strategy": "Canary", "steps": [{"weight": 50}], "gates": [ERRORS]})
    made.requests = 20
    made.edit(OTHER)
    made.until(lambda: made.status.get("rollout", {}).get("reason") == "GateHolding")
    window = made.status["rollout"]["window"]
    made.quiet(140)
    assert (made.there(), made.status["rollout"]["window"]) == ({}, window)
    made.ask()
    made.until(lambda: "stepSince" in made.status["rollout"], traffic=False)
    assert made.status["rollout"]["window"] == window


def test_replicas_that_a_rollout_awaits_are_awaited_before_it_sleeps():
    made = serving()
    made.edit(STUCK)
    made.run()
    made.quiet(600)
    assert made.there() == {1: 1, 2: 1}
    made.quiet(600)
    assert (made.there(), made.ready[1]) == ({}, "RolledBack")


def test_a_rollout_that_stands_is_no_reason_to_leave_whoever_asks_waiting():
    made = serving(rollout={"maxSurge": 0, "maxUnavailable": 1, "paused": True})
    made.edit(OTHER)
    made.run()
    made.quiet(130)
    assert made.there() == {}
    made.sync()
    made.ask()
    made.run()
    assert made.workloads()[1] == 1


def test_idle_takes_what_is_kept_warm_too():
    made = serving(rollout={"keepWarm": {"replicas": 1, "for": "30m"}})
    made.edit(OTHER)
    made.until(lambda: made.roles() == {1: "warm", 2: "stable"}, traffic=False)
    made.quiet(130)
    assert (made.there(), made.roles()) == ({}, {1: "retired", 2: "stable"})
