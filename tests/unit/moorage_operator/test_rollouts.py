"""What each strategy does, step by step, and what stops it, ends it or turns it back."""

from dataclasses import replace
from decimal import Decimal

import pytest

from moorage_operator.plan.nodes import Nodes, nodes
from tests.rollout_world import CRASHING, FAILING, GOOD, OTHER, SLOW, STUCK, World

CANARY = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "30s"}, {"weight": 60}]}
ERRORS = {"metric": "ErrorRate", "max": "5%", "minRequests": 50}
SLOWER = {"metric": "TimeToFirstTokenP95", "maxRegression": "20%", "minRequests": 50}


def world(replicas=3, rollout=None, **more):
    """A world that serves revision 1."""
    made = World(replicas=replicas, rollout=rollout or {}, **more)
    made.settle()
    return made


def phases(made, rounds=40, **more):
    """The different (weights, replicas) along the way to rest."""
    seen = []
    for _ in range(rounds):
        made.tick(**more)
        now = made.weights, made.there()
        if not seen or seen[-1] != now:
            seen.append(now)
    return seen


# RollingUpdate


def test_auto_goes_one_replica_at_a_time_beside_what_serves():
    made = world()
    made.edit(OTHER)
    assert phases(made) == [
        ({1: 100, 2: 0}, {1: 3, 2: 1}),
        ({1: 67, 2: 33}, {1: 2, 2: 2}),
        ({1: 33, 2: 67}, {1: 1, 2: 3}),
        ({1: 0, 2: 100}, {1: 1, 2: 3}),
        ({2: 100}, {2: 3}),
    ]


@pytest.mark.parametrize(
    ("rollout", "most", "fewest"),
    [
        ({}, 4, 3),
        ({"maxSurge": 2}, 5, 3),
        ({"maxSurge": 0}, 3, 2),
        ({"maxUnavailable": 2}, 3, 1),
        ({"maxSurge": 1, "maxUnavailable": 1}, 4, 2),
        ({"maxSurge": 0, "maxUnavailable": 3}, 3, 0),
        ({"maxSurge": "34%"}, 5, 3),
        ({"maxSurge": 0, "maxUnavailable": "67%"}, 3, 1),
    ],
)
def test_explicit_bounds_are_obeyed_and_used(rollout, most, fewest):
    made = world(rollout=rollout)
    made.edit(OTHER)
    counts, ready = set(), set()
    for _ in range(40):
        made.tick(1.0)
        if made.weights.get(1):  # before the old ones go after promotion
            counts.add(len(made.pods))
            ready.add(sum(1 for pod in made.pods if pod.ready))
    assert (max(counts), min(ready)) == (most, fewest)
    made.settle()


def gpu(**more):
    return world(accelerator={"count": 1}, **more)


def test_without_room_for_a_minute_one_gives_way_if_two_serve():
    made = gpu(replicas=2)
    made.room = 2
    made.edit(OTHER)
    made.tick(20)
    made.tick(20)
    assert made.there() == {1: 2, 2: 1}
    assert made.ready == ("False", "WaitingForGPU")
    assert made.condition("Available") == "True"
    assert made.requeue_after <= 40, "it looks again when the minute is over"
    made.wait(41)
    made.run()
    assert made.there() == {1: 1, 2: 1}
    made.settle()
    assert made.there() == {2: 2}
    assert all("moorage.dev/drains" not in one["metadata"]["annotations"] for one in made._records())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('0/2 nodes are available: persistentvolumeclaim "models" not found.', "ModelNotFound"),
        ("0/2 nodes are available: 2 node(s) had untolerated taint {spot: true}.", "Unschedulable"),
        ("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.", "WaitingForGPU"),
    ],
)
def test_nothing_gives_way_for_a_replica_that_no_node_would_take_if_it_were_empty(words, reason):
    made = gpu(replicas=2)
    made.room, made.scheduler_says = 2, words
    made.edit(OTHER)
    for _ in range(10):
        made.tick(50)
    assert made.there() == {1: 2, 2: 1}
    assert made.ready == ("False", reason)
    assert made.requeue_after is None or made.requeue_after > 60


def test_nothing_gives_way_for_a_replica_that_asks_for_more_than_any_node_has():
    made = gpu(replicas=2)
    made.room = 2
    made.spec(accelerator={"count": 16})
    for _ in range(10):
        made.tick(50)
    assert made.there() == {1: 2, 2: 1}
    assert made.ready == ("False", "WaitingForGPU")
    assert "Needs 16 x nvidia.com/gpu on one node; no node would do" in made.message
    assert all("moorage.dev/drains" not in one["metadata"]["annotations"] for one in made._records())
    made.listing = replace(made.listing, there=nodes([listed("new", "16")], {}))
    made.run()
    assert made.there() == {1: 1, 2: 1}, "now there is a place for it"
    made.settle()
    assert made.there() == {2: 2}


def listed(name, count, **more):
    amounts = {"nvidia.com/gpu": count, "cpu": "8", "pods": "9", **more}
    return {"metadata": {"name": name}, "status": {"allocatable": amounts}}


@pytest.mark.parametrize("lacks", ["cpu", "memory"])
def test_nothing_gives_way_for_a_replica_whose_requests_are_larger_than_any_node(lacks):
    made = world(replicas=2)
    made.room, made.scheduler_says = 2, f"0/2 nodes are available: 2 Insufficient {lacks}."
    made.spec(resources={"requests": {lacks: "9Ti"}})
    for _ in range(10):
        made.tick(50)
    assert made.there() == {1: 2, 2: 1}
    assert made.ready == ("False", "Unschedulable")
    made.listing = Nodes(nodes([listed("new", "0", **{lacks: "10Ti"})], {}))
    made.run()
    assert made.there() == {1: 1, 2: 1}, "now there is a place for it"


def test_nothing_gives_way_where_its_place_is_too_small():
    """Nor where the one that goes might be on another node than the one that would do: nobody chooses which it is."""
    made = gpu(replicas=2)
    made.room = 2
    taken = {name: {"nvidia.com/gpu": Decimal(count)} for name, count in (("a", 4), ("b", 3))}
    there = nodes([listed("a", "4"), listed("b", "4")], taken)
    made.listing = Nodes(there, places={pod.uid: name for pod, name in zip(made.pods, "ab", strict=True)})
    made.spec(accelerator={"count": 2})
    for _ in range(10):
        made.tick(50)
    assert made.there() == {1: 2, 2: 1}
    assert "a has 0 of 4 free" in made.message
    made.listing = replace(made.listing, places=dict.fromkeys(made.listing.places, "b"))
    made.run()
    assert made.there() == {1: 1, 2: 1}, "whichever goes, it makes room"


def test_nothing_gives_way_before_it_is_known_what_nodes_have():
    made = gpu(replicas=2)
    made.room, made.listing = 2, None
    made.edit(OTHER)
    for _ in range(3):
        made.tick(50)
    assert made.there() == {1: 2, 2: 1}
    made.listing = Nodes(unknown="they could not be read", again=True)
    made.run()
    assert made.there() == {1: 2, 2: 1}
    made.listing = Nodes(unknown="nodes may not be listed")
    made.run()
    assert made.there() == {1: 1, 2: 1}
    made.settle()


def test_a_claim_that_is_missing_is_no_lack_of_room_and_the_deadline_names_it():
    made = world(replicas=1, rollout={"progressDeadline": "2m"})
    made.room, made.scheduler_says = 1, 'persistentvolumeclaim "models" not found.'
    made.edit(OTHER)
    for _ in range(8):
        made.tick(20)
    assert made.ready == ("False", "RolledBack")
    assert (
        "Revision 2 was given up: ProgressDeadlineExceeded: No further replica became routable within 2m: 0 of 1 "
        'replicas are routable; ModelNotFound: persistentvolumeclaim "models" not found. Change spec'
    ) in made.message


def test_one_replica_is_never_taken_down_by_an_edit_and_lack_of_room_is_nobodys_failure():
    made = gpu(replicas=1)
    made.room = 1
    made.edit(OTHER)
    for _ in range(30):
        made.tick(100)
    assert made.there() == {1: 1, 2: 1}
    assert made.weights == {1: 100, 2: 0}
    assert made.ready == ("False", "WaitingForGPU")
    assert "Revision 1 goes on serving" in made.message
    made.room = 2
    made.settle()
    assert made.status["revision"] == {"stable": 2}


def test_one_replica_is_taken_down_if_the_user_says_so():
    made = gpu(replicas=1, rollout={"maxSurge": 0, "maxUnavailable": 1})
    made.room = 1
    made.edit(OTHER)
    made.settle()
    assert made.there() == {2: 1}


def test_going_back_without_room_drains_too():
    made = gpu(replicas=2)
    made.edit(OTHER)
    made.until(lambda: made.there().get(2) == 2)
    made.room = len(made.pods)
    made.edit(GOOD)
    made.settle()
    assert made.there() == {1: 2}


def test_going_back_drains_without_room_whatever_the_strategy_of_new_revisions():
    made = gpu(replicas=2, rollout=CANARY)
    made.edit(OTHER)
    made.settle()
    made.room = 2
    made.spec(rollbackTo={"revision": 1})
    made.tick(20)
    made.tick(20)
    assert made.there() == {1: 1, 2: 2}
    assert made.requeue_after <= 40, "it looks again when the minute is over"
    made.wait(41)
    made.run()
    assert made.there() == {1: 1, 2: 1}
    made.settle()
    assert made.there() == {1: 2}


# Canary


def test_a_canary_has_exact_weights_enough_replicas_and_leaves_the_stable_one_whole():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    assert phases(made) == [
        ({1: 100, 2: 0}, {1: 3, 2: 1}),
        ({1: 90, 2: 10}, {1: 3, 2: 1}),
        ({1: 90, 2: 10}, {1: 3, 2: 2}),
        ({1: 40, 2: 60}, {1: 3, 2: 3}),
        ({1: 0, 2: 100}, {1: 3, 2: 3}),
        ({2: 100}, {2: 3}),
    ]


def test_a_step_begins_once_a_gateway_knows_its_replicas():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.run()
    made.start()
    made.run()
    assert made.status["rollout"]["message"] == "step 1 of 3: 0 of 1 replicas are routable"
    assert "stepSince" not in made.status["rollout"]
    made.sync(0)
    made.run()
    assert made.weights == {1: 90, 2: 10}


def test_a_step_holds_and_says_until_when():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 10)
    rollout = made.status["rollout"]
    assert (rollout["step"], rollout["steps"], rollout["reason"]) == (1, 3, "StepHolding")
    assert made.ready == ("False", "RollingOut")
    assert "10 % of the requests until 00:0" in made.message
    assert "the next step needs room for 1 more replica" in made.message
    made.wait(28)
    made.run()
    assert made.weights[2] == 10
    assert 0 < made.requeue_after <= 2
    made.wait(2)
    made.run()
    assert made.status["rollout"]["step"] == 2


def test_a_gate_without_figures_holds_and_never_fails():
    made = world(rollout={**CANARY, "gates": [ERRORS]})
    made.edit(FAILING)
    for _ in range(30):
        made.tick(100, traffic=False)
    assert made.weights == {1: 90, 2: 10}
    assert made.status["rollout"]["reason"] == "GateHolding"
    assert "ErrorRate: 0 of 50 requests seen" in made.message
    assert "elapsed" in made.status["rollout"]["progress"]
    assert "since" not in made.status["rollout"]["progress"], "the clock stands"


@pytest.mark.parametrize(
    ("image", "gates", "words"),
    [
        (FAILING, [ERRORS], "ErrorRate is 100.00%"),
        (SLOW, [SLOWER], "TimeToFirstTokenP95 is 4.80s, more than 95ms and 20%"),
        (SLOW, [{"metric": "TimeToFirstTokenP50", "max": "500ms"}], "TimeToFirstTokenP50 is 3.00s, more than 500ms"),
    ],
)
def test_a_failed_gate_takes_all_requests_back_at_once_and_gives_the_revision_up(image, gates, words):
    made = world(rollout={**CANARY, "gates": gates})
    made.edit(image)
    made.until(lambda: made.condition("Stalled") == "True")
    assert made.weights == {1: 100, 2: 0}
    assert made.ready == ("False", "RolledBack")
    assert words in made.message
    assert "retry/r2" in made.message
    assert made.condition("Available") == "True"
    assert [(one["kind"], one["to"]) for one in made.status["decisions"][-2:]] == [
        ("Rollback", "r1"),
        ("Weight", "r1: 100 %"),
    ]
    assert made.status["decisions"][-1]["reason"] == "r2 was given up"
    assert [event.reason for event in made.events if event.kind == "Warning"] == ["RolledBack"]
    made.tick(6)
    made.tick(6)
    assert made.there() == {1: 3}
    row = made.status["revisions"][1]
    assert (row["number"], row["role"], row["reason"]) == (2, "failed", "GateFailed")
    for _ in range(5):
        made.tick(1000)
    assert made.there() == {1: 3}, "it is not tried again"


def test_a_gate_that_fails_waits_for_no_other():
    waits = {"metric": "TimeToFirstTokenP95", "max": "10s", "minRequests": 100_000}
    made = world(rollout={**CANARY, "gates": [waits, ERRORS]})
    made.edit(FAILING)
    made.until(lambda: made.ready[1] == "RolledBack", rounds=60)
    assert "ErrorRate" in made.message


def test_each_replica_of_a_rolling_update_is_judged_by_what_comes_after_it():
    made = world(rollout={"gates": [ERRORS]})
    made.edit(OTHER)
    made.until(lambda: made.status.get("rollout", {}).get("step") == 2)
    assert made.status["rollout"]["reason"] == "GateHolding"
    assert "ErrorRate: 0 of 50 requests seen" in made.message
    made.settle()
    assert made.weights == {2: 100}


def test_what_was_given_up_is_tried_again_when_spec_has_changed_or_a_person_says_so():
    made = world(rollout={**CANARY, "gates": [ERRORS]})
    made.edit(FAILING)
    made.until(lambda: made.condition("Stalled") == "True")
    made.act("retry", 2)
    made.tick()
    assert made.status["revision"] == {"stable": 1, "candidate": 2}
    made.until(lambda: made.condition("Stalled") == "True")
    made.tick(100)
    assert made.there() == {1: 3}, "the same action acts once"
    made.edit(GOOD)
    made.settle()
    made.edit(FAILING)
    made.tick()
    assert made.status["revision"] == {"stable": 1, "candidate": 2}, "numbers never change"


def test_without_auto_rollback_it_stops_where_it_is():
    made = world(rollout={**CANARY, "gates": [ERRORS], "autoRollback": False})
    made.edit(FAILING)
    made.until(lambda: made.condition("Stalled") == "True")
    for _ in range(5):
        made.tick(1000)
    assert made.weights == {1: 90, 2: 10}
    assert made.ready == ("False", "GateFailed")
    made.serve()
    assert made.step() == 0, "further failures of what is stalled are no reason to write"
    made.edit(GOOD)
    made.settle()
    assert made.there() == {1: 3}


def test_a_gateway_that_starts_anew_in_a_step_forgets_nothing_that_counts():
    made = world(rollout={**CANARY, "gates": [{**ERRORS, "minRequests": 400}]})
    made.edit(FAILING)
    made.until(lambda: made.weights.get(2) == 10)
    made.wait(1)
    made.restart_gateway(0)
    made.until(lambda: made.condition("Stalled") == "True")
    assert "(40" in made.message


def test_gates_that_come_in_the_middle_of_a_step_judge_what_comes_after():
    made = world(rollout={**CANARY, "steps": [{"weight": 10, "hold": "1h"}]})
    made.edit(FAILING)
    made.until(lambda: made.weights.get(2) == 10)
    made.tick()
    made.roll(gates=[ERRORS])
    made.until(lambda: made.condition("Stalled") == "True", rounds=30)
    assert "ErrorRate is 100.00% (60 of 60 requests)" in made.message, "what was before is not counted"


def test_a_gateway_that_was_silent_when_a_step_began_counts_from_when_it_answers():
    made = world(rollout={**CANARY, "gates": [ERRORS]})
    made.silence(0, answering=False)
    made.edit(FAILING)
    made.until(lambda: made.weights.get(2) == 10)
    made.silence(0, answering=True)
    made.silence(1, answering=False)
    made.until(lambda: made.condition("Stalled") == "True", rounds=30)
    assert "ErrorRate is 100.00% (50 of 50 requests)" in made.message


@pytest.mark.parametrize("replicas", [1, 2])
def test_without_surge_the_last_replica_is_compared_with_what_was_before(replicas):
    """Of the stable revision nothing is left by then that could be measured over the same time."""
    made = world(replicas, {"maxSurge": 0, "gates": [SLOWER]})
    made.edit(OTHER)
    made.settle()
    assert made.weights == {2: 100}
    made.edit(SLOW)
    made.until(lambda: made.condition("Stalled") == "True")
    assert "TimeToFirstTokenP95 is 4.80s, more than 95ms and 20%" in made.message


# At zero


@pytest.mark.parametrize("rollout", [{}, CANARY, {"strategy": "BlueGreen", "keepWarm": {"for": "10m"}}])
def test_scaling_to_zero_in_mid_rollout_promotes_nothing_and_it_goes_on_afterwards(rollout):
    made = world(rollout=rollout)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2, 0) > 0)
    made.spec(replicas=0)
    for _ in range(4):
        made.tick(1000)
    assert (made.there(), made.ready) == ({}, ("Unknown", "ScaledToZero"))
    assert "Revision 2 is on trial, which goes on then." in made.message
    assert made.status["revision"] == {"stable": 1, "candidate": 2}
    assert made.status["rollout"]["reason"] == "ScaledToZero"
    assert not [event for event in made.events if event.reason == "Promoted"]
    made.spec(replicas=3)
    made.until(lambda: made.weights.get(2, 0) > 0)
    assert made.there()[1] >= 2, "what has proven itself came back, too"
    made.settle()
    assert made.weights == {2: 100}


def test_a_failing_canary_is_still_on_trial_after_a_night_at_zero():
    made = world(rollout={**CANARY, "gates": [ERRORS]})
    made.edit(FAILING)
    made.until(lambda: made.weights.get(2) == 10)
    made.spec(replicas=0)
    made.tick(1000)
    made.spec(replicas=3)
    made.until(lambda: made.ready[1] == "RolledBack")
    assert made.weights == {1: 100, 2: 0}


def test_an_edit_at_zero_needs_no_rollout():
    made = world()
    made.spec(replicas=0)
    made.tick(10)
    made.edit(OTHER)
    made.tick(10)
    assert (made.status["revision"], made.there()) == ({"stable": 2}, {})


def test_what_came_at_zero_and_never_serves_does_not_keep_its_repair_from_starting():
    made = world(replicas=1)
    made.lagging = {0}  # one gateway still sends requests to what was there before
    made.spec(replicas=0)
    made.edit(STUCK)
    made.tick(10)
    made.spec(replicas=1)
    made.tick(10)
    assert (made.status["revision"], made.there()) == ({"stable": 2}, {1: 1, 2: 1})
    made.edit(OTHER)
    made.lagging = set()
    made.settle()
    assert made.weights == {3: 100}


ASLEEP = {"stable": 1, "candidate": 2}


def at_zero(made):
    made.spec(replicas=0)
    for _ in range(3):
        made.tick(10)


def test_another_strategy_at_zero_proves_nothing():
    made = world(rollout=CANARY)
    made.edit(FAILING)
    made.until(lambda: made.weights.get(2) == 10)
    at_zero(made)
    made.spec(rollout={"strategy": "BlueGreen", "gates": [ERRORS]})
    made.tick(10)
    assert made.status["revision"] == ASLEEP
    made.spec(replicas=3)
    made.until(lambda: made.ready[1] == "RolledBack")
    assert made.weights[1] == 100


def test_a_lost_status_at_zero_proves_nothing():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 10)
    at_zero(made)
    made.lose_status()
    for _ in range(3):
        made.tick(10)
    assert made.status["revision"] == ASLEEP
    assert made.ready == ("Unknown", "ScaledToZero")
    made.spec(replicas=3)
    made.until(lambda: made.weights.get(2) == 10)
    made.settle()
    assert made.weights == {2: 100}


@pytest.mark.parametrize("again", ["retry", "retry though its record is damaged", "edit"])
def test_what_was_given_up_and_is_tried_again_at_zero_is_on_trial_when_there_are_replicas(again):
    made = world()
    made.edit(CRASHING)
    made.until(lambda: made.ready[1] == "RolledBack")
    at_zero(made)
    if "damaged" in again:
        record = made.objects["ControllerRevision", "chat-r2"]
        made.objects["ControllerRevision", "chat-r2"] = damaged(record, "annotations")
    if "retry" in again:
        made.act("retry", 2)
    else:
        made.edit(GOOD)
        made.tick(10)
        made.edit(CRASHING)
    for _ in range(3):
        made.tick(10)
    assert made.status["revision"] == ASLEEP
    assert not [event for event in made.events if event.reason == "Promoted"]
    made.spec(replicas=3)
    made.until(lambda: made.ready[1] == "RolledBack")
    assert made.weights[1] == 100


def test_while_rollouts_are_paused_a_spec_that_comes_at_zero_waits():
    made = world(rollout={"paused": True})
    at_zero(made)
    made.edit(OTHER)
    for _ in range(3):
        made.tick(10)
    assert made.status["revision"] == ASLEEP
    made.roll(paused=False)
    made.tick(10)
    assert made.status["revision"] == ASLEEP, "with the first replicas it begins"
    made.spec(replicas=3)
    made.settle()
    assert made.there() == {2: 3}


def test_a_revision_that_a_person_paused_before_it_came_waits_at_zero():
    made = world()
    at_zero(made)
    made.act("pause", 2)
    made.edit(OTHER)
    for _ in range(3):
        made.tick(10)
    assert made.status["revision"] == ASLEEP


@pytest.mark.parametrize(("how", "rollout"), [("edit", {}), ("rollbackTo", {}), ("rollbackTo", {"paused": True})])
def test_what_has_served_serves_again_at_once_at_zero(how, rollout):
    made = world()
    made.edit(OTHER)
    made.settle()
    made.spec(rollout=rollout)
    at_zero(made)
    if how == "edit":
        made.edit(GOOD)
    else:
        made.spec(rollbackTo={"revision": 1})
    made.tick(10)
    assert made.status["revision"] == {"stable": 1}


# BlueGreen


def test_blue_green_starts_everything_then_switches_at_once_and_keeps_the_old_colour_whole():
    made = world(rollout={"strategy": "BlueGreen", "keepWarm": {"for": "1m"}})
    made.edit(OTHER)
    assert phases(made, 50) == [
        ({1: 100, 2: 0}, {1: 3, 2: 3}),
        ({1: 0, 2: 100}, {1: 3, 2: 3}),
        ({2: 100}, {2: 3}),
    ]


def test_blue_green_switches_back_when_a_gate_fails():
    made = world(rollout={"strategy": "BlueGreen", "keepWarm": {"for": "10m"}, "gates": [SLOWER]})
    made.edit(SLOW)
    made.until(lambda: made.weights.get(2) == 100)
    assert made.there() == {1: 3, 2: 3}
    service = made.objects["Service", "chat"]["spec"]["selector"]["moorage.dev/revision"]
    assert service == "1", "the Service follows at promotion"
    made.until(lambda: made.condition("Stalled") == "True")
    assert made.weights == {1: 100, 2: 0}
    made.tick(6)
    made.tick(6)
    assert made.there() == {1: 3}


def test_blue_green_switches_only_once_it_knows_what_to_compare_with():
    made = World(replicas=1, rollout={"strategy": "BlueGreen", "gates": [SLOWER]})
    made.until(lambda: made.status.get("ready") == "1/1", traffic=False)
    made.edit(OTHER)
    for _ in range(10):
        made.tick(traffic=False)
    assert made.weights == {1: 100, 2: 0}
    assert "0 of 50 streams seen of the revision to compare with" in made.message
    made.settle()
    assert made.weights == {2: 100}


# Gateways


@pytest.mark.parametrize("rollout", [{}, CANARY, {"strategy": "BlueGreen"}])
def test_without_an_answering_gateway_nothing_moves_and_no_clock_runs(rollout):
    made = world(rollout=rollout)
    made.edit(OTHER)
    made.tick()
    for gateway in made.gateways:
        gateway.answering = False
    there = made.there()
    for _ in range(5):
        made.tick(1000)
    assert made.there() == there
    assert made.weights == {1: 100, 2: 0}
    assert made.ready == ("False", "GatewayUnreachable")
    assert "0 of 2 gateways answer" in made.message
    for gateway in made.gateways:
        gateway.answering = True
    made.settle()
    assert made.there() == {2: 3}


def test_requests_move_once_one_gateway_knows_and_replicas_go_once_all_do():
    made = world(replicas=2)
    made.edit(OTHER)
    made.run()
    made.start()
    made.sync(0)
    made.run()
    assert made.weights in ({1: 50, 2: 50}, {1: 67, 2: 33})
    assert made.there()[1] == 2
    made.sync(1)
    made.run()
    made.sync()
    made.run()
    assert made.there()[1] == 1


@pytest.mark.parametrize("rollout", [{}, CANARY, {"strategy": "BlueGreen"}])
def test_promotion_waits_for_all_gateways(rollout):
    made = world(replicas=1, rollout=rollout)
    made.lagging = {1}
    made.edit(OTHER)
    for _ in range(60):
        made.tick()
    assert made.status["revision"] == {"stable": 1, "candidate": 2}
    made.lagging = set()
    made.settle()
    assert made.status["revision"] == {"stable": 2}


def test_where_no_gateway_is_known_it_says_so():
    made = world()
    made.gateways = []
    made.edit(OTHER)
    made.tick()
    assert made.ready == ("False", "GatewayUnreachable")
    assert "No gateway is known" in made.message


def test_an_installation_without_gateways_rolls_by_readiness_but_has_no_exact_weights():
    made = World(replicas=2)
    made.gateways_installed = False
    made.settle()
    made.edit(OTHER)
    made.settle()
    assert made.there() == {2: 2}
    made.roll(**CANARY)
    made.edit(GOOD)
    made.tick()
    assert made.ready == ("False", "GatewayUnreachable")
    assert "this installation has none" in made.message
    made.act("promote", 1)
    made.settle()
    assert made.there() == {1: 2}


# The deadline and crashes


def test_a_missed_deadline_goes_back():
    made = world(rollout={"progressDeadline": "2m"})
    made.edit(OTHER)
    made.run()
    assert made.requeue_after == 120
    made.wait(119)
    made.run()
    assert made.ready[1] == "RollingOut"
    made.wait(1)
    made.run()
    assert made.ready == ("False", "RolledBack")
    assert "ProgressDeadlineExceeded: No further replica became routable within 2m" in made.message
    assert made.weights[1] == 100


def test_a_missed_deadline_names_what_refused_the_pods():
    made = world(replicas=1, rollout={"progressDeadline": "60s"})
    made.edit(STUCK)
    made.run()
    words = 'pods "p" is forbidden: exceeded quota: none'
    refused = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": words}]}
    made.objects["Deployment", "chat-r2"] |= {"status": refused}
    made.until(lambda: made.ready[1] == "RolledBack")
    assert f"within 60s: 0 of 1 replicas are routable; {words}" in made.message


def test_what_is_late_and_not_given_up_grows_no_more():
    steps = [{"weight": 50}]
    made = world(4, {"strategy": "Canary", "steps": steps, "progressDeadline": "60s", "autoRollback": False})
    made.edit(STUCK)
    made.until(lambda: made.condition("Stalled") == "True")
    assert made.there() == {1: 4, 2: 2}
    made.spec(replicas=8)
    made.tick()
    made.tick()
    assert made.there() == {1: 8, 2: 2}


def test_a_further_replica_begins_the_clock_anew():
    made = world(rollout={"progressDeadline": "2m"})
    made.edit(OTHER)
    for _ in range(10):
        made.tick(100)
    made.settle()
    assert made.there() == {2: 3}


@pytest.mark.parametrize("hold", ["pause", "spec", "room", "gateways"])
def test_the_clock_stands_while_it_is_held(hold):
    made = world(replicas=1, rollout={"progressDeadline": "2m"})
    if hold == "room":
        made.room = 1
    made.edit(OTHER)
    made.run()
    made.schedule()
    made.wait(100)
    if hold == "pause":
        made.act("pause", 2)
    elif hold == "spec":
        made.roll(paused=True)
    elif hold == "gateways":
        made.gateways[0].answering = made.gateways[1].answering = False
    made.run()
    made.wait(10_000)
    made.run()
    assert made.status["revision"] == {"stable": 1, "candidate": 2}
    if hold == "pause":
        made.act("resume", 2)
    made.roll(paused=False)
    made.gateways[0].answering = made.gateways[1].answering = True
    made.room = 100
    made.schedule()
    made.run()
    left = 120 if hold == "room" else 20
    assert made.status["revision"] == {"stable": 1, "candidate": 2}
    made.wait(left + 1)
    made.run()
    assert made.ready == ("False", "RolledBack")


def test_a_crash_loop_goes_back_with_its_own_reason():
    made = world()
    made.edit(CRASHING)
    made.tick()
    made.tick()
    assert made.ready == ("False", "EngineFailed")
    assert made.condition("Stalled") == "False", "it is tried again"
    made.until(lambda: made.ready[1] == "RolledBack")
    assert "EngineFailed: boom" in made.message
    assert made.weights[1] == 100
    made.tick(6)
    made.tick(6)
    assert made.there() == {1: 3}


def test_a_first_revision_serves_from_its_first_replica_on():
    made = World(replicas=3)
    made.run()
    assert made.status["revision"] == {"candidate": 1}
    made.start()
    made.run()
    assert made.status["revision"] == {"stable": 1}
    assert made.status["ready"] == "1/3"


def test_a_first_revision_is_never_given_up():
    made = World(replicas=1, engine={"image": CRASHING}, rollout={"progressDeadline": "1m"})
    for _ in range(10):
        made.tick(100)
    assert made.ready == ("False", "EngineFailed")
    assert made.there() == {1: 1}


# Edits on the way


def test_rapid_edits_coalesce():
    made = world()
    for image in (OTHER, SLOW, FAILING, "engine:last"):
        made.edit(image)
        made.run()
    assert made.status["revision"] == {"stable": 1, "candidate": 5}
    assert made.there() == {1: 3, 5: 1}


def test_a_revert_in_the_middle_keeps_what_serves_until_it_is_whole():
    made = world()
    made.edit(OTHER)
    made.until(lambda: made.there() == {1: 2, 2: 2})
    made.edit(GOOD)
    made.run()
    assert made.status["revision"] == {"stable": 1}
    assert made.there()[1] == 3
    made.settle()
    assert made.there() == {1: 3}


def reverted():
    """A rollout of four of eight replicas that was taken back; what is new of revision 1 is ready already."""
    made = world(replicas=4)
    made.edit(OTHER)
    made.until(lambda: made.there().get(2, 0) >= 3)
    made.edit(GOOD)
    made.run()
    for _ in range(4):
        made.start()
    return made


def test_a_candidate_that_was_taken_back_stays_until_every_gateway_can_do_without_it():
    made = reverted()
    for _ in range(5):
        made.sync(0)
        made.run()
        made.wait(10)
    assert 2 in made.there(), "the other gateway has not heard of its successors"
    made.settle()
    assert made.there() == {1: 4}


def test_a_candidate_that_was_taken_back_stays_while_no_gateway_answers():
    made = reverted()
    made.sync()
    made.gateways[0].answering = made.gateways[1].answering = False
    for _ in range(3):
        made.run()
        made.wait(100)
    assert 2 in made.there()


def test_another_strategy_in_the_middle_takes_nothing_away_that_serves():
    made = world(replicas=4)
    made.edit(OTHER)
    made.until(lambda: made.there() == {1: 1, 2: 4})
    made.roll(**CANARY)
    made.run()
    assert made.there()[1] == 4
    assert made.there()[2] >= 3, "the world checks this, too"
    made.settle()
    assert made.there() == {2: 4}


def test_a_repair_does_not_wait_for_what_is_needed_only_because_the_stable_revision_is_broken():
    made = world(replicas=2)
    made.edit(OTHER)
    made.until(lambda: made.there().get(2, 0) == 2 and made.ready[1] == "RollingOut")
    for pod in made.pods:
        if pod.revision == 1:
            pod.ready, pod.restarts, pod.image = False, 3, CRASHING
    made.edit("engine:repaired")
    for _ in range(10):
        made.tick()
    assert made.image_of(3) == "engine:repaired"
    made.settle()
    assert set(made.there()) == {3}


@pytest.mark.parametrize("rollout", [{}, CANARY, {"strategy": "BlueGreen"}])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("damage", ["annotations", "label", "times"])
def test_records_that_were_damaged_in_the_middle_are_made_do_with(rollout, kept, damage):
    made = world(replicas=2, rollout=rollout)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2, 0) > 0)
    for key in [key for key in made.objects if key[0] == "ControllerRevision"]:
        made.objects[key] = damaged(made.objects[key], damage)
    if not kept:
        made.lose_status()
    made.settle()
    assert made.status["revision"] == {"stable": 2}
    assert all("moorage.dev/role" in one["metadata"]["labels"] for one in made._records())


def damaged(record, damage):
    metadata = record["metadata"]
    labels, annotations = dict(metadata["labels"]), dict(metadata["annotations"])
    if damage == "label":
        del labels["moorage.dev/role"]
    if damage == "annotations":
        annotations = {}
    if damage == "times":
        annotations |= {"moorage.dev/role-since": "yesterday", "moorage.dev/promoted": "2026-01-01"}
    return {**record, "metadata": {**metadata, "labels": labels, "annotations": annotations}}


def test_a_status_in_the_words_of_another_version_is_made_anew():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 10)
    invented = {"time": "2026-01-01T00:00:00Z", "kind": "Invented", "from": "a", "to": "b", "reason": "c"}
    strange = {
        "rollout": {"step": -1},
        "gpu": {"load": 5},
        "traffic": {"tokensPerSecond": "many"},
        "startup": {"seconds": {"Scheduling": "2s"}},
        "decisions": [invented, *made.status["decisions"]],
    }
    made.deployment = {**made.deployment, "status": {**made.status, **strange}}
    made.run()
    assert made.weights == {1: 90, 2: 10}
    assert invented not in made.status["decisions"]
    made.settle()
    assert made.status["revision"] == {"stable": 2}


def test_while_somebody_else_has_a_name_that_is_needed_not_even_requests_move():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 10)
    ours = made.objects["Service", "chat"]
    made.objects["Service", "chat"] = {**ours, "metadata": {**ours["metadata"], "ownerReferences": []}}
    before = made.weights, made.there()
    for _ in range(5):
        made.tick(100)
    assert (made.weights, made.there()) == before
    assert made.ready == ("False", "WorkloadRefused")
    made.objects["Service", "chat"] = ours
    made.settle()
    assert made.there() == {2: 3}


def test_a_status_that_is_damaged_is_made_anew():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 10)
    damage = {
        "conditions": [{"type": "Ready"}, {"status": "True"}, "Ready", None],
        "revisions": [{"weight": 10}, {"number": "two", "weight": 90}, 7],
        "decisions": [{"kind": "Promote"}, "nothing"],
        "measured": "yesterday",
        "startup": 5,
    }
    made.deployment = {**made.deployment, "status": {**made.status, **damage}}
    made.run()
    assert made.weights == {1: 90, 2: 10}
    assert made.ready == ("False", "RollingOut")
    made.settle()
    assert made.status["revision"] == {"stable": 2}


def test_a_lost_status_begins_a_canary_at_its_first_step_with_everything_on_stable():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 60)
    made.lose_status()
    made.step()
    made.step()
    assert made.weights == {1: 90, 2: 10}
    assert made.status["rollout"]["step"] == 1
    made.settle()
    assert made.there() == {2: 3}


# Actions


def test_promote_skips_holds_and_gates_but_not_replicas():
    made = world(rollout={**CANARY, "gates": [ERRORS]})
    made.edit(OTHER)
    made.tick(traffic=False)
    made.act("promote", 2)
    made.run()
    assert made.weights[1] == 100
    assert made.there() == {1: 3, 2: 3}
    made.until(lambda: made.weights == {2: 100}, traffic=False)
    assert made.status["rollout"] == {"lastAction": "promote/r2"}
    promoted = [one["reason"] for one in made.status["decisions"] if one["kind"] == "Promote"]
    assert promoted == ["a person promoted it"]


def test_promote_ends_the_hold_of_the_old_colour():
    made = world(rollout={"strategy": "BlueGreen", "keepWarm": {"for": "10m"}})
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 100)
    assert made.ready == ("False", "RollingOut")
    made.act("promote", 2)
    made.run()
    assert made.status["revision"] == {"stable": 2}


def test_promote_in_a_step_leaves_its_weight_until_the_rest_is_there():
    made = world(replicas=10, rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 10)
    made.act("promote", 2)
    made.run()
    assert made.there() == {1: 10, 2: 10}
    assert made.weights == {1: 90, 2: 10}, "one replica cannot carry more"
    made.settle()
    assert made.there() == {2: 10}


def test_a_pause_after_promote_moves_no_requests_and_neither_does_its_end():
    made = world(replicas=10, rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 10)
    made.act("promote", 2)
    made.run()
    made.act("pause", 2)
    made.run()
    assert (made.ready[1], made.weights) == ("Paused", {1: 90, 2: 10})
    made.act("resume", 2)
    made.run()
    assert made.weights == {1: 90, 2: 10}, "one replica still cannot carry more"
    made.settle()
    assert made.there() == {2: 10}


def test_abort_goes_back_and_is_not_tried_again():
    made = world()
    made.edit(OTHER)
    made.tick()
    made.act("abort", 2)
    made.run()
    assert made.ready == ("False", "RolledBack")
    assert "Aborted" in made.message
    assert made.weights[1] == 100


def test_a_paused_rollout_is_neither_ready_nor_not():
    made = world()
    made.edit(OTHER)
    made.act("pause", 2)
    made.run()
    assert made.ready == ("Unknown", "Paused")
    assert "resume/r2" in made.message
    assert made.condition("Available") == "True"
    there = made.there()
    for _ in range(3):
        made.tick(100)
    assert made.there() == there
    made.act("resume", 2)
    made.settle()
    assert made.there() == {2: 3}


@pytest.mark.parametrize("weight", [10, 60])
def test_a_canary_that_is_paused_keeps_the_weight_of_its_step(weight):
    made = world(rollout={**CANARY, "steps": [{"weight": 10, "hold": "30s"}, {"weight": 60, "hold": "30s"}]})
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == weight)
    made.roll(paused=True)
    for _ in range(3):
        made.tick(100)
    assert (made.ready[1], made.weights[2]) == ("Paused", weight)


def test_what_a_person_asks_for_works_while_rollouts_are_paused():
    made = world(rollout={"paused": True})
    made.edit(OTHER)
    made.run()
    made.act("promote", 2)
    made.settle()
    assert made.status["revision"] == {"stable": 2}
    made.spec(rollbackTo={"revision": 1})
    made.settle()
    assert made.status["revision"] == {"stable": 1}


def test_a_replica_counts_as_replaced_once_a_gateway_knows_of_it():
    made = world()
    made.edit(OTHER)
    made.run()
    made.start()
    made.run()
    assert made.status["rollout"]["step"] == 0
    made.sync()
    made.run()
    assert made.status["rollout"]["step"] == 1


def test_an_action_acts_once_on_its_revision_only_whatever_is_lost():
    made = world()
    made.edit(OTHER)
    made.tick()
    made.act("abort", 1)
    made.tick()
    assert made.status["revision"]["candidate"] == 2
    made.act("restart", 2)
    made.run()
    first = made.objects["Deployment", "chat-r2"]["spec"]["template"]["metadata"]["annotations"]
    made.wait(100)
    made.lose_status()
    made.run()
    assert made.objects["Deployment", "chat-r2"]["spec"]["template"]["metadata"]["annotations"] == first
    made.act("restart", 2, nonce="again")
    made.run()
    second = made.objects["Deployment", "chat-r2"]["spec"]["template"]["metadata"]["annotations"]
    assert second["moorage.dev/restarted"] > first["moorage.dev/restarted"]
    assert made.status["rollout"]["lastAction"] == "restart/r2/again"


def test_a_restart_makes_no_revision_and_replaces_beside_what_serves():
    made = world()
    made.act("restart", 1)
    made.run()
    workload = made.objects["Deployment", "chat-r1"]["spec"]
    assert workload["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "moorage.dev/restarted" in workload["template"]["metadata"]["annotations"]
    assert made.status["revision"] == {"stable": 1}
    assert "candidate" not in made.roles().values()


@pytest.mark.parametrize("text", ["promote", "promote/2", "destroy/r2", "promote/r0", "promote/r2/a b"])
def test_an_action_that_is_not_understood_is_told(text):
    made = world()
    made.deployment["metadata"]["annotations"] = {"moorage.dev/action": text}
    made.run()
    accepted = made.status["conditions"][0]
    assert "moorage.dev/action is not understood; write promote|abort|pause" in accepted["message"]
    assert "rollout" not in made.status


def test_an_action_on_a_revision_that_there_is_not_is_told_until_there_is_one():
    made = world(rollout=CANARY)
    made.act("pause", 2)
    made.run()
    assert made.status["conditions"][0]["status"] == "True"
    assert "The annotation moorage.dev/action names revision 2; there are 1." in made.status["conditions"][0]["message"]
    made.edit(OTHER)
    made.run()
    assert made.ready == ("Unknown", "Paused")
    assert made.status["conditions"][0]["message"] == "spec was understood."


def test_what_was_acted_upon_may_be_forgotten():
    made = world(rollout={"revisionHistoryLimit": 1})
    made.act("restart", 1)
    made.run()
    made.edit(OTHER)
    made.settle()
    assert 1 not in made.roles()
    assert made.status["conditions"][0]["message"] == "spec was understood."


# Going back


def test_going_back_to_a_warm_revision_moves_the_requests_at_once():
    made = world(replicas=2, rollout={**CANARY, "keepWarm": {"replicas": 2, "for": "30m"}})
    made.edit(OTHER)
    made.settle()
    assert made.there() == {1: 2, 2: 2}
    assert made.roles() == {1: "warm", 2: "stable"}
    assert made.status["replicas"] == 2, "without the warm ones"
    template = made.objects["Deployment", "chat-r1"]["spec"]["template"]
    made.edit(GOOD)
    made.run()
    assert made.weights[1] == 100
    assert made.status["revision"] == {"stable": 1}
    assert made.objects["Deployment", "chat-r1"]["spec"]["template"] == template


def test_what_is_kept_warm_has_no_requests_and_makes_nothing_available():
    made = world(rollout={"keepWarm": {"replicas": 1}})
    made.edit(OTHER)
    made.settle()
    assert made.there() == {1: 1, 2: 3}
    for pod in made.pods:
        pod.ready = pod.revision == 1
    made.run()
    assert (made.weights, made.condition("Available")) == ({1: 0, 2: 100}, "False")


def test_going_back_to_a_partly_warm_revision_moves_what_it_can_carry():
    made = world(replicas=4, rollout={"keepWarm": {"replicas": 1, "for": "30m"}})
    made.edit(OTHER)
    made.settle()
    assert made.there() == {1: 1, 2: 4}
    made.spec(rollbackTo={"revision": 1})
    made.run()
    assert made.weights == {1: 25, 2: 75}
    made.settle()
    assert made.weights[1] == 100


@pytest.mark.parametrize("end", ["time", "shortage", "zero", "field"])
def test_warm_replicas_go(end):
    made = world(replicas=2, rollout={"keepWarm": {"replicas": 1, "for": "10m"}})
    made.edit(OTHER)
    made.settle()
    assert made.there() == {1: 1, 2: 2}
    assert made.requeue_after is not None, "it looks again when the time is over"
    made.wait(600 if end == "time" else 6)
    if end == "shortage":
        made.short = True
    elif end == "zero":
        made.spec(replicas=0)
    else:
        made.roll(keepWarm=None)
        made.spec(rollout={})
    made.run()
    assert 1 not in made.there()
    assert made.roles()[1] == "retired"


def test_rollback_to_a_cold_revision_needs_no_gates_and_removing_it_goes_forward_again():
    made = world(rollout={**CANARY, "gates": [ERRORS]})
    made.edit(OTHER)
    made.settle()
    made.spec(rollbackTo={"revision": 1})
    made.until(lambda: made.weights.get(1) == 100, traffic=False)
    assert made.status["revision"] == {"stable": 1}
    assert made.ready[1] == "Serving"
    made.spec(rollbackTo=None)
    made.run()
    assert made.status["revision"] == {"stable": 1, "candidate": 2}
    assert made.status["rollout"]["strategy"] == "Canary"


@pytest.mark.parametrize("verb", ["pause", "promote"])
def test_what_a_person_says_on_the_way_back_makes_no_trial_of_it(verb):
    made = world(rollout={**CANARY, "gates": [ERRORS]})
    made.edit(OTHER)
    made.settle()
    made.spec(rollbackTo={"revision": 1})
    made.tick(traffic=False)
    made.act(verb, 1)
    made.run()
    there = made.there()
    if verb == "pause":
        assert made.ready == ("Unknown", "Paused")
        made.tick(100, traffic=False)
        assert made.there() == there
        made.act("resume", 1)
    made.run()
    assert made.status["rollout"]["strategy"] == "RollingUpdate"
    made.until(lambda: made.weights.get(1) == 100, traffic=False)
    assert made.status["revision"] == {"stable": 1}


def test_a_revision_that_is_not_remembered_is_refused_and_what_serves_goes_on():
    made = world()
    made.spec(rollbackTo={"revision": 9})
    made.run()
    assert made.condition("Accepted") == "False"
    assert made.ready == ("False", "RevisionNotFound")
    assert "revision 9 is not remembered; there are 1. Revision 1 goes on serving with 3 replicas." in made.message
    assert made.weights == {1: 100}


def test_history_is_limited_and_keeps_what_served_last():
    made = world(replicas=1, rollout={"revisionHistoryLimit": 3})
    for number in range(2, 7):
        made.edit(f"engine:{number}")
        made.settle()
    assert sorted(made.roles()) == [4, 5, 6]
    made.edit(CRASHING)
    made.until(lambda: made.ready[1] == "RolledBack")
    made.edit("engine:6")
    made.settle()
    assert sorted(made.roles()) == [5, 6, 7], "the newest number is never forgotten"


def reasons(made):
    told = (event.message.split(" ", 2) for event in made.events if event.reason == "Promoted")
    return [(int(number), words.partition(": ")[2]) for _, number, words in told]


def test_why_a_revision_was_promoted_is_not_what_a_person_said_long_ago():
    made = world()
    made.edit(OTHER)
    made.run()
    made.act("promote", 2)
    made.settle()
    made.spec(rollbackTo={"revision": 1})
    made.settle()
    made.spec(rollbackTo=None)
    made.settle()
    at_zero(made)
    made.edit("engine:third")
    made.run()
    assert reasons(made) == [
        (2, "a person promoted it."),
        (1, "it has served before, and its replicas are routable."),
        (2, "its replicas are routable, and its gates hold."),
        (3, "it came while there are no replicas."),
    ]


def test_why_it_was_promoted_survives_a_death_between_the_record_and_the_status():
    made = world()
    made.edit(OTHER)
    made.run()
    made.act("promote", 2)
    while made.roles()[2] != "stable":
        if not made.step(survive=1):
            made.start()
            made.wait(2)
            made.sync()
    assert made.status["revision"]["stable"] == 1
    made.settle()
    assert reasons(made) == [(2, "a person promoted it.")]


def test_the_service_and_the_budget_follow_at_promotion():
    made = world(rollout=CANARY)
    made.edit(OTHER)
    made.until(lambda: made.weights.get(2) == 60)

    def selected(kind):
        spec = made.objects[kind, "chat"]["spec"]["selector"]
        return spec.get("matchLabels", spec)["moorage.dev/revision"]

    assert (selected("Service"), selected("PodDisruptionBudget")) == ("1", "1")
    made.settle()
    assert (selected("Service"), selected("PodDisruptionBudget")) == ("2", "2")


def test_every_decision_is_told_with_its_reason():
    made = world(replicas=2)
    made.edit(OTHER)
    made.settle()
    decisions = made.status["decisions"]
    assert {"Scale", "Weight", "Promote"} <= {one["kind"] for one in decisions}
    assert ("r1", "r2") in {(one["from"], one["to"]) for one in decisions}
    assert [event.reason for event in made.events if event.reason == "Promoted"] == ["Promoted"]
