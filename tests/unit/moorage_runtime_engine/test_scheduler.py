"""What the next step computes."""

from itertools import pairwise

import pytest

from moorage_runtime.engine.blocks import BLOCK_TOKENS, BlockManager, IntegrityError
from moorage_runtime.engine.messages import Submit
from moorage_runtime.engine.plan import Limits
from moorage_runtime.engine.policy import FIRST_QUANTUM, PROMOTION_STEPS
from moorage_runtime.engine.scheduler import Scheduler
from moorage_runtime.engine.sequence import Sequence


class Room:
    """A scheduler, and a model that computes at once whatever it plans."""

    def __init__(self, blocks=64, max_running=8, token_budget=32, policy="FCFS"):
        self.blocks = BlockManager(blocks)
        self.scheduler = Scheduler(self.blocks, Limits(1024, 1000, blocks, max_running, token_budget, policy))
        self.arrivals = 0

    def add(self, name, prompt, priority=0, salt=""):
        """A request with this prompt, or with one of so many tokens that begins as no other does."""
        self.arrivals += 1
        tokens = prompt if isinstance(prompt, list) else [self.arrivals] * prompt
        request = Submit(name, tokens, 512, priority=priority, cache_salt=salt)
        sequence = Sequence.of(request, self.arrivals, 1024)
        self.scheduler.add(sequence)
        return sequence

    def step(self):
        plan = self.scheduler.schedule()
        self.compute(plan)
        return plan

    def compute(self, plan):
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.computed += chunk.count
            full = sequence.computed // BLOCK_TOKENS
            self.blocks.publish(sequence.blocks, sequence.namespace, sequence.tokens, range(sequence.published, full))
            sequence.published = full
            if chunk.samples:
                sequence.tokens.append(1)

    def planned(self):
        return [(chunk.sequence.id, chunk.start, chunk.count, chunk.samples) for chunk in self.step().chunks]


def test_a_prompt_is_computed_in_chunks_of_the_budget_and_samples_at_its_end():
    room = Room(token_budget=32)
    room.add("long", 70)
    assert room.planned() == [("long", 0, 32, False)]
    assert room.planned() == [("long", 32, 32, False)]
    assert room.planned() == [("long", 64, 6, True)]
    assert room.planned() == [("long", 70, 1, True)]


def test_decodes_come_first_and_prompts_get_the_rest_of_the_budget():
    room = Room(token_budget=32)
    room.add("a", 8)
    room.step()
    room.add("b", 40)
    assert room.planned() == [("a", 8, 1, True), ("b", 0, 31, False)]


def test_a_new_sequence_starts_in_the_same_step_when_the_budget_is_not_used_up():
    room = Room(token_budget=32)
    room.add("a", 8)
    room.add("b", 8)
    assert room.planned() == [("a", 0, 8, True), ("b", 0, 8, True)]


def test_no_more_run_than_allowed():
    room = Room(max_running=2)
    for name in "abc":
        room.add(name, 4)
    room.step()
    assert [sequence.id for sequence in room.scheduler.running] == ["a", "b"]
    assert [sequence.id for sequence in room.scheduler.waiting] == ["c"]


def test_priority_goes_before_arrival():
    room = Room(max_running=1, policy="Priority")
    room.add("late", 4)
    room.add("urgent", 4, priority=-1)
    assert [chunk.sequence.id for chunk in room.step().chunks] == ["urgent"]


def test_admission_leaves_a_block_for_each_that_runs():
    room = Room(blocks=4)
    running = room.add("a", BLOCK_TOKENS)
    room.step()  # two blocks now: the prompt's and the next token's in the following step
    room.step()
    assert len(running.blocks) == 2
    room.add("b", 2 * BLOCK_TOKENS)
    assert [chunk.sequence.id for chunk in room.step().chunks] == ["a"]  # two are free, "a" keeps one of them
    room.scheduler.remove(running)
    assert [chunk.sequence.id for chunk in room.step().chunks] == ["b"]


def test_the_first_in_line_is_not_overtaken_by_a_smaller_one():
    room = Room(blocks=4)
    room.add("a", 3 * BLOCK_TOKENS - 1)
    room.step()
    room.add("large", 2 * BLOCK_TOKENS)
    room.add("small", 1)
    assert [chunk.sequence.id for chunk in room.step().chunks] == ["a"]


def test_the_last_in_order_loses_its_blocks_when_they_run_out():
    room = Room(blocks=4)
    first, last = room.add("first", BLOCK_TOKENS), room.add("last", BLOCK_TOKENS)
    room.step()
    while not (plan := room.step()).preempted:
        pass
    assert [sequence.id for sequence in plan.preempted] == ["last"]
    assert [chunk.sequence.id for chunk in plan.chunks] == ["first"]
    assert (last.computed, last.blocks) == (0, [])
    assert last.length > BLOCK_TOKENS  # what it generated is kept
    room.scheduler.remove(first)
    assert room.planned() == [("last", BLOCK_TOKENS, last.length - BLOCK_TOKENS - 1, True)]  # and computed again


def test_what_was_preempted_waits_before_later_arrivals():
    room = Room(blocks=4)
    room.add("first", BLOCK_TOKENS)
    room.add("second", BLOCK_TOKENS)
    room.step()
    room.add("third", BLOCK_TOKENS)
    while not room.step().preempted:
        pass
    assert [sequence.id for sequence in room.scheduler.waiting] == ["second", "third"]


def test_every_running_sequence_decodes_even_when_the_budget_is_smaller():
    room = Room(max_running=4, token_budget=2)
    for name in "abcd":
        room.add(name, 1)
    assert len(room.step().chunks) == 4
    assert len(room.step().chunks) == 4


# ── prefixes ──


def distinct(count, first=100):
    return list(range(first, first + count))


def test_a_known_prefix_is_not_computed_again():
    room = Room(token_budget=128)
    done = room.add("a", distinct(40))
    room.step()
    room.scheduler.remove(done)
    again = room.add("b", [*distinct(40), 7])
    plan = room.step()
    assert plan.chunks[0].start == 32
    assert plan.cached_prompt_tokens == again.cached_prompt_tokens == 32


def test_a_fully_known_prompt_computes_its_last_block_in_a_block_of_its_own():
    room = Room(token_budget=128)
    first = room.add("a", distinct(32))
    room.step()
    second = room.add("b", distinct(32))
    plan = room.scheduler.schedule()
    assert [(chunk.sequence.id, chunk.start, chunk.count) for chunk in plan.chunks] == [("a", 32, 1), ("b", 16, 16)]
    assert second.blocks[0] == first.blocks[0]
    assert second.blocks[1] not in first.blocks
    room.compute(plan)
    assert second.blocks[:2] == first.blocks[:2]  # known to be the same now, and kept once


def test_what_a_running_one_computes_is_waited_for():
    room = Room(token_budget=32)
    prompt = distinct(72)
    for name in "abc":
        room.add(name, prompt)
    assert room.planned() == [("a", 0, 32, False)]
    assert room.planned() == [("a", 32, 32, False)]
    assert room.planned() == [("a", 64, 8, True), ("b", 64, 8, True), ("c", 64, 8, True)]
    room.step()
    tables = [sequence.blocks for sequence in room.scheduler.running]
    assert len({tuple(table[:4]) for table in tables}) == 1
    assert len({table[4] for table in tables}) == 3


def test_those_behind_who_need_no_prefix_go_on():
    room = Room(token_budget=64, max_running=3)
    room.add("a", distinct(100))
    room.step()
    room.add("b", distinct(100))
    room.add("c", distinct(20, first=500))
    assert [name for name, *_ in room.planned()] == ["a", "c"]


def test_who_waits_for_a_prefix_keeps_its_place():
    room = Room(token_budget=64, max_running=2)
    room.add("a", distinct(100))
    room.step()
    room.add("b", distinct(100))
    room.add("c", distinct(20, first=500))
    assert [name for name, *_ in room.planned()] == ["a"]
    assert [name for name, *_ in room.planned()] == ["a", "b"]


def test_nobody_waits_for_one_that_has_ended():
    room = Room(token_budget=32)
    leader = room.add("a", distinct(100))
    room.add("b", distinct(100))
    room.step()
    room.scheduler.remove(leader)
    assert room.planned() == [("b", 32, 32, False)]


def test_nobody_waits_for_one_that_comes_later_in_order():
    room = Room(token_budget=32, policy="Priority")
    room.add("slow", distinct(100), priority=1)
    room.step()
    room.add("urgent", distinct(100))
    assert room.planned() == [("urgent", 32, 32, False)]  # it takes up what is there and computes the rest itself


def test_other_salts_neither_share_nor_wait():
    room = Room(token_budget=256)
    room.add("a", distinct(40))
    room.add("b", distinct(40), salt="tenant")
    assert room.planned() == [("a", 0, 40, True), ("b", 0, 40, True)]


# ── pausing ──


def test_a_smaller_rank_takes_the_place_of_a_larger_one_which_pauses():
    room = Room(max_running=1, policy="Priority")
    slow = room.add("slow", 20, priority=1)
    room.step()
    held = list(slow.blocks)
    urgent = room.add("urgent", 4)
    plan = room.step()
    assert [chunk.sequence.id for chunk in plan.chunks] == ["urgent"]
    assert plan.preempted == (slow,)
    assert slow.blocks == held
    room.step()
    room.scheduler.remove(urgent)
    assert room.planned() == [("slow", 20, 1, True)]  # nothing is computed again


def test_of_one_rank_nobody_takes_anothers_place():
    room = Room(max_running=1, policy="Priority")
    room.add("first", 4, priority=1)
    room.step()
    room.add("second", 4, priority=1)
    assert [name for name, *_ in room.planned()] == ["first"]


def test_a_paused_one_loses_its_blocks_when_memory_is_short_the_last_in_order_first():
    room = Room(blocks=6, max_running=1, policy="Priority")
    low, middle = (room.add(name, 2 * BLOCK_TOKENS - 2, priority=rank) for name, rank in (("low", 2), ("middle", 1)))
    low_first = room.step()
    assert [chunk.sequence.id for chunk in low_first.chunks] == ["middle"]
    room.scheduler.remove(middle)
    room.step()
    middle = room.add("middle", distinct(2 * BLOCK_TOKENS - 2), priority=1)
    room.step()
    assert (len(low.blocks), len(middle.blocks)) == (2, 2)
    urgent = room.add("urgent", distinct(4 * BLOCK_TOKENS, first=500))
    room.step()
    assert [len(sequence.blocks) for sequence in (low, middle, urgent)] == [0, 2, 4]
    assert low.computed == 0


def test_what_was_full_before_the_blocks_were_taken_is_found_again():
    room = Room(blocks=5)
    first, last = room.add("first", BLOCK_TOKENS), room.add("last", distinct(BLOCK_TOKENS))
    while not room.step().preempted:
        pass
    assert last.length > 2 * BLOCK_TOKENS
    room.scheduler.remove(first)
    chunk = room.step().chunks[0]
    assert (chunk.sequence.id, chunk.start % BLOCK_TOKENS) == ("last", 0)
    assert chunk.start > 0
    assert last.cached_prompt_tokens == 0  # of its prompt nothing was found when it came


def test_an_urgent_one_gets_memory_from_those_who_run_behind_it():
    room = Room(blocks=4, max_running=4, policy="Priority")
    slow = room.add("slow", 3 * BLOCK_TOKENS, priority=1)
    room.step()
    room.add("urgent", distinct(3 * BLOCK_TOKENS, first=500))
    plan = room.step()
    assert [chunk.sequence.id for chunk in plan.chunks] == ["urgent"]
    assert plan.preempted == (slow,)


def test_a_prompt_behind_in_order_does_not_use_up_the_budget_of_one_before():
    room = Room(token_budget=32, policy="MLFQ")
    room.add("long", distinct(300))
    room.step()
    room.add("short", distinct(20, first=500))
    assert room.planned() == [("short", 0, 20, True), ("long", 32, 12, False)]


def test_under_mlfq_a_long_answer_gives_way_to_a_new_request():
    room = Room(max_running=1, token_budget=128, policy="MLFQ")
    long = room.add("long", 8)
    while long.computed < FIRST_QUANTUM:
        room.step()
    room.add("new", distinct(8))
    assert [name for name, *_ in room.planned()] == ["new"]
    assert long.blocks


def test_under_mlfq_nobody_starves():
    """New requests without end, each of them before the long one in order; one place."""
    room = Room(max_running=1, token_budget=128, policy="MLFQ")
    long = room.add("long", distinct(8, first=500))
    while long.rank == 0:
        room.step()
    turns, guest = [], room.add("guest", distinct(8))
    for step in range(3 * PROMOTION_STEPS):
        if guest.length > 40:
            room.scheduler.remove(guest)
            guest = room.add("guest", distinct(8))
        plan = room.step()
        assert guest not in plan.preempted  # promoted, the long one waits for its turn among equals
        if any(chunk.sequence is long for chunk in plan.chunks):
            turns.append(step)
    assert turns
    assert max(later - turn for turn, later in pairwise(turns)) <= PROMOTION_STEPS + 64


def test_a_check_finds_a_queue_out_of_order():
    room = Room()
    for name in "ab":
        room.add(name, 4)
    room.scheduler.check()
    room.scheduler.waiting.reverse()
    with pytest.raises(IntegrityError):
        room.scheduler.check()
