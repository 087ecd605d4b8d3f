"""Several pods that are one replica: when it is ready, how far it is, and whose trouble it has."""

import pytest

from moorage_operator.plan.groups import groups, replicas

STARTED = {"started": True, "state": {"running": {}}}
LOADING = {"state": {"running": {}}}
GONE = {"error": "rank 1 is gone", "reason": "EngineFailed"}


def only(*pods):
    (found,) = replicas(pods)
    return found


def test_all_pods_of_a_group_are_one_replica(make):
    both = only(make.member(1, ready=True), make.member(0, ready=True))
    assert (both.ready, both.uid, both.group, both.revision) == (True, "chat-r1-0-0", 0, 1)
    assert both.trouble is None


@pytest.mark.parametrize("ready", [0, 1])
def test_it_is_not_ready_while_one_of_them_is_not(make, ready):
    assert not only(make.member(0, ready=ready == 0), make.member(1, ready=ready == 1)).ready
    assert not only(make.member(ready, ready=True)).ready, "the other one is not there"


def test_a_pod_that_was_told_to_go_does_not_count(make):
    going = make.member(1, ready=True, metadata={"deletionTimestamp": "2026-01-01T12:05:00Z"})
    found = only(make.member(0, ready=True), going)
    assert (found.ready, found.phase) == (False, "Scheduling")
    assert replicas([going]) == (), "without any other there is no replica"
    evicted = make.member(1, phase="Failed")
    assert not only(make.member(0, ready=True), evicted).ready


def test_groups_revisions_and_single_pods_are_told_apart(make):
    pods = [make.member(index, group=group, revision=2, ready=True) for group in (0, 1) for index in (0, 1)]
    found = replicas([*pods, make.member(0, revision=1), make.ready(3, "alone")])
    assert [(one.revision, one.group, one.ready) for one in found] == [
        (3, None, True),
        (1, 0, False),
        (2, 0, True),
        (2, 1, True),
    ]


def test_it_is_as_far_as_the_pod_that_is_least_far(make):
    loading = make.member(0, server=LOADING)
    assert only(loading, make.member(1)).phase == "FetchingModel"
    assert only(loading, make.member(1, conditions=make.homeless())).phase == "Scheduling"
    assert only(loading).phase == "Scheduling", "of the other pod nobody has heard yet"
    assert only(loading, make.member(1, server=STARTED)).phase == "LoadingWeights"
    assert only(loading, make.member(1, ready=True)).phase == "LoadingWeights"
    assert only(make.member(0, server=STARTED), make.member(1, ready=True)).phase == "WarmingUp"


def test_the_first_rank_says_which_one_was_lost(make):
    lost = make.ended({"error": "rank 0 is gone", "reason": "EngineFailed"})
    found = only(make.member(1, server=lost), make.member(0, server=make.ended(GONE)))
    assert (found.trouble.reason, found.trouble.detail) == ("EngineFailed", "chat-r1-0-0: rank 1 is gone")
    assert found.restarts == 1, "one end of the group, however many pods it has"


def test_a_cause_counts_more_than_what_others_say_of_it(make):
    said = {"error": "needs 3 GiB", "reason": "InsufficientMemory"}
    found = only(make.member(0, server=make.ended(GONE)), make.member(1, server=make.ended(said)))
    assert (found.trouble.reason, found.trouble.detail) == ("InsufficientMemory", "chat-r1-0-1: needs 3 GiB")
    killed = only(make.member(0, server=make.ended(GONE)), make.member(1, server=make.ended("", 137, "OOMKilled")))
    assert killed.trouble.reason == "OutOfMemory"


@pytest.mark.parametrize("late", ["unscheduled", "fetching", "missing"])
def test_ranks_that_tire_of_waiting_are_not_the_trouble(make, late):
    tired = {**make.ended({"error": "rank 1 did not come within 600 s", "reason": "EngineFailed"}), "restartCount": 9}
    other = {
        "unscheduled": [make.member(1, conditions=make.homeless())],
        "fetching": [make.member(1)],
        "missing": [],
    }[late]
    found = only(make.member(0, server=tired), *other)
    assert not found.crashes, "a lack of room, or a slow fetch, is no reason to give a revision up"
    assert (found.trouble.reason if found.trouble else None) == {"unscheduled": "Unschedulable"}.get(late)
    assert not only(make.member(0, server=tired), make.member(1, server=LOADING)).crashes, "nor that it came late"


def ended(make, said, restarts):
    return {**make.ended(said), "restartCount": restarts}


def test_an_end_of_the_group_counts_once_and_what_others_waited_for_it_does_not(make):
    lost = {"error": "rank 0 is gone", "reason": "EngineFailed"}
    counts = {2: False, 3: True}
    for times, given_up in counts.items():
        rest = [make.member(index, server=ended(make, lost, times)) for index in (1, 2, 3)]
        found = only(make.member(0, server=ended(make, GONE, times + 6)), *rest)
        assert (found.restarts, found.crashes) == (times, given_up)


def test_what_ends_one_of_them_before_it_meets_the_others_counts_by_itself(make):
    said = {"error": "no such model", "reason": "ModelNotFound"}
    found = only(make.member(0, server=LOADING), make.member(1, fetch=ended(make, said, 3)))
    assert found.crashes


def test_a_fetch_that_fails_is_the_groups_trouble(make):
    said = make.ended({"error": "no such model", "reason": "ModelNotFound"})
    found = only(make.member(0, server=LOADING), make.member(1, fetch=said))
    assert (found.trouble.reason, found.trouble.detail) == ("ModelNotFound", "chat-r1-0-1: no such model")


def test_room_is_lacking_for_as_long_as_it_is_for_any_of_them(make):
    first, second = (make.homeless(since=f"2026-01-01T11:59:{seconds}Z") for seconds in (10, 40))
    found = only(make.member(0, conditions=second), make.member(1, conditions=first))
    assert found.unschedulable_since.second == found.crowded_since.second == 10
    never = make.homeless("0/3 nodes are available: 3 node(s) had untolerated taint {a: b}.")
    found = only(make.member(0, conditions=never), make.member(1, conditions=first))
    assert found.unschedulable_since is not None
    assert found.crowded_since is None, "one of them would not fit if all nodes were empty"


def test_the_digest_is_that_of_any_of_them(make):
    fetched = {"state": {"terminated": {"exitCode": 0, "message": '{"digest": "sha256:a"}'}}}
    assert only(make.member(0), make.member(1, fetch=fetched)).model_digest == "sha256:a"


def test_a_number_is_taken_by_a_workload_or_by_pods_that_are_left(make):
    pods = [
        make.member(0, group=3, metadata={"deletionTimestamp": "2026-01-01T12:05:00Z"}),
        make.member(0, group=1, conditions=make.homeless()),
    ]
    labels = {"moorage.dev/revision": "1", "moorage.dev/group": "2"}
    workload = {"kind": "StatefulSet", "metadata": {"name": "chat-r1-2", "labels": labels}}
    found = groups([workload], pods, replicas(pods))
    assert [(one.number, one.workload is not None, one.replica is not None) for one in found[1]] == [
        (1, False, True),
        (2, True, False),
        (3, False, False),
    ]
    assert [(one.placed, one.leaving) for one in found[1]] == [(False, False), (False, False), (False, True)]


def test_a_damaged_label_makes_no_group(make):
    pod = make.member(0, ready=True)
    pod["metadata"]["labels"]["moorage.dev/group"] = "first"
    assert only(pod).group is None
