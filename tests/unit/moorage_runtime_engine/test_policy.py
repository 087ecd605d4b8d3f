"""Ranks: who runs before whom, and when that changes."""

import pytest

from moorage_runtime.engine import policy
from moorage_runtime.engine.messages import Submit
from moorage_runtime.engine.policy import FIRST_QUANTUM, PROMOTION_STEPS, QUEUES, SkipJoinMLFQ
from moorage_runtime.engine.sequence import Sequence


def sequence(prompt=8, max_tokens=4000, priority=0, arrival=1):
    return Sequence.of(Submit("a", [1] * prompt, max_tokens, priority=priority), arrival, 1_000_000)


def joined(**asked):
    made = sequence(**asked)
    SkipJoinMLFQ().join(made)
    return made


def test_a_policy_has_a_name_that_the_resource_uses():
    assert policy.NAMES == ("FCFS", "Priority", "MLFQ")
    with pytest.raises(ValueError, match="'Fair'; it must be one of FCFS, Priority, MLFQ"):
        policy.named("Fair")


@pytest.mark.parametrize(("name", "rank"), [("FCFS", 0), ("Priority", -3), ("MLFQ", 0)])
def test_only_priority_looks_at_the_priority(name, rank):
    made = sequence(priority=-3, arrival=5)
    policy.named(name).join(made)
    assert made.order == (rank, 5)


@pytest.mark.parametrize(
    ("prompt", "queue"),
    [(1, 0), (FIRST_QUANTUM, 0), (FIRST_QUANTUM + 1, 1), (4 * FIRST_QUANTUM, 2), (100 * FIRST_QUANTUM, QUEUES - 1)],
)
def test_a_request_joins_the_first_queue_whose_quantum_holds_its_prompt(prompt, queue):
    assert joined(prompt=prompt).rank == queue


def test_a_used_up_quantum_demotes_and_the_next_is_twice_as_long():
    mlfq, made = SkipJoinMLFQ(), joined()
    turns = []
    for computed in range(8, 4000):
        made.computed = computed
        if mlfq.revise([made], [], 1):
            turns.append((computed, made.rank))
    ends = [FIRST_QUANTUM * (2**queue - 1) for queue in range(1, QUEUES)]
    assert turns == [(end, queue + 1) for queue, end in enumerate(ends)]


def test_in_the_last_queue_a_request_stays_to_its_end():
    made = joined(prompt=100 * FIRST_QUANTUM, max_tokens=10)
    made.computed = made.max_length - 1  # the token generated last is never computed
    assert not SkipJoinMLFQ().revise([made], [], 1)


def test_computing_again_what_was_lost_is_not_charged():
    mlfq, made = SkipJoinMLFQ(), joined()
    made.computed = FIRST_QUANTUM
    assert mlfq.revise([made], [], 1)
    made.computed = 0
    assert not mlfq.revise([made], [], 2)
    made.computed = 3 * FIRST_QUANTUM - 1
    assert not mlfq.revise([made], [], 3)


def test_who_has_waited_long_enters_the_first_queue_with_a_whole_quantum():
    mlfq, made = SkipJoinMLFQ(), joined(prompt=1000)
    made.waiting_since = 7
    assert not mlfq.revise([], [made], 6 + PROMOTION_STEPS)
    assert mlfq.revise([], [made], 7 + PROMOTION_STEPS)
    assert made.order == (0, 1)
    made.computed = 1000 + FIRST_QUANTUM - 1
    assert not mlfq.revise([made], [], 8 + PROMOTION_STEPS)
    made.computed += 1
    assert mlfq.revise([made], [], 9 + PROMOTION_STEPS)
    assert made.rank == 1
