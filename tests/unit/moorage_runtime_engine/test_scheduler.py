"""What the next step computes."""

from moorage_runtime.engine.blocks import BLOCK_TOKENS, BlockManager
from moorage_runtime.engine.messages import Submit
from moorage_runtime.engine.plan import Limits
from moorage_runtime.engine.scheduler import Scheduler
from moorage_runtime.engine.sequence import Sequence


class Room:
    """A scheduler, and a model that computes at once whatever it plans."""

    def __init__(self, blocks=64, max_running=8, token_budget=32, policy="FCFS"):
        self.blocks = BlockManager(blocks)
        self.scheduler = Scheduler(self.blocks, Limits(1024, 100, blocks, max_running, token_budget, policy))
        self.arrivals = 0

    def add(self, name, tokens, priority=0):
        self.arrivals += 1
        sequence = Sequence.of(Submit(name, [1] * tokens, 512, priority=priority), self.arrivals, 1024)
        self.scheduler.add(sequence)
        return sequence

    def step(self):
        plan = self.scheduler.schedule()
        for chunk in plan.chunks:
            chunk.sequence.computed += chunk.count
            if chunk.samples:
                chunk.sequence.tokens.append(1)
        return plan

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
    assert last.length > BLOCK_TOKENS  # what it generated is kept and computed again
    room.scheduler.remove(first)
    assert [(chunk.sequence.id, chunk.start) for chunk in room.step().chunks] == [("last", 0)]


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
