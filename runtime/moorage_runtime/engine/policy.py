"""In which order sequences run. One small interface, three policies.

A sequence's `order` is (rank, arrival). The scheduler runs the first `max_running` in that order; one of a strictly
smaller rank takes the place of one of a larger rank, which pauses: it keeps its blocks until memory needs them.
"""

from typing import Protocol

from moorage_runtime.engine.sequence import Sequence

QUEUES = 6
"""Queues of MLFQ. The quanta are 64, 128, … 1,024 tokens; the last queue has none: requests beyond are long ones."""
FIRST_QUANTUM = 64
"""Tokens that a request may compute in the first queue: a question of a line and an answer of a line."""
PROMOTION_STEPS = 1024
"""Steps after which what has waited starts again in the first queue: a minute at 60 ms a step. With half of it, so many
are promoted when requests arrive as fast as they are computed that short ones take three times as long in
`bench.scheduling`; with twice of it the last of the long ones end a third later, and the others gain little."""


class Policy(Protocol):
    """Decides ranks; keeps what it must know of a sequence in the sequence."""

    def join(self, sequence: Sequence) -> None:
        """Give a new sequence its rank."""

    def revise(self, running: list[Sequence], waiting: list[Sequence], step: int) -> bool:
        """Change ranks before a step; whether any has changed."""
        ...


class FirstComeFirstServed:
    """By arrival, to completion (Orca, OSDI 2022). Nobody starves; short requests wait behind long ones."""

    def join(self, sequence: Sequence) -> None:
        """All have one rank."""
        sequence.order = (0, sequence.arrival)

    def revise(self, running: list[Sequence], waiting: list[Sequence], step: int) -> bool:  # noqa: ARG002 - interface
        """Never."""
        return False


class ByPriority:
    """By the request's `priority`, then arrival. It starves by its nature: endless urgent requests let no other run."""

    def join(self, sequence: Sequence) -> None:
        """The rank is the priority."""
        sequence.order = (sequence.priority, sequence.arrival)

    def revise(self, running: list[Sequence], waiting: list[Sequence], step: int) -> bool:  # noqa: ARG002 - interface
        """Never."""
        return False


class SkipJoinMLFQ:
    """The skip-join multi-level feedback queue of FastServe (arXiv:2305.05920): short requests first, unannounced.

    How long an answer gets is not known, how long its prompt is, is. A request joins the first queue whose quantum
    holds its prompt and falls to the next one, of twice the quantum, when it has used its quantum up; so what has run
    little runs before what has run long. A quantum is a position to be reached, not work to be done: what is computed
    again after its blocks were lost is not charged again. The rank is the number of the queue.

    Nobody starves: who has waited `PROMOTION_STEPS` enters the first queue with a quantum beyond all its tokens, and
    goes before all who arrived later.
    """

    def join(self, sequence: Sequence) -> None:
        """Skip the queues whose quantum the prompt alone would use up."""
        fitting = (queue for queue in range(QUEUES - 1) if _quantum(queue) >= sequence.prompt_length)
        self._enter(sequence, next(fitting, QUEUES - 1), begin=0)

    def revise(self, running: list[Sequence], waiting: list[Sequence], step: int) -> bool:
        """Demote what has used its quantum up, promote what has waited long."""
        spent = [sequence for sequence in running if sequence.computed >= sequence.quantum_end]
        for sequence in spent:
            self._enter(sequence, sequence.rank + 1, begin=sequence.computed)
        patient = step - PROMOTION_STEPS
        starving = [sequence for sequence in waiting if sequence.waiting_since <= patient and sequence.rank > 0]
        for sequence in starving:
            self._enter(sequence, 0, begin=sequence.length)
        return bool(spent or starving)

    def _enter(self, sequence: Sequence, queue: int, begin: int) -> None:
        sequence.order = (queue, sequence.arrival)
        # A sequence ends before all of `max_length` is computed: in the last queue it stays.
        sequence.quantum_end = begin + _quantum(queue) if queue < QUEUES - 1 else sequence.max_length


def _quantum(queue: int) -> int:
    return FIRST_QUANTUM << queue


_POLICIES: dict[str, type[Policy]] = {"FCFS": FirstComeFirstServed, "Priority": ByPriority, "MLFQ": SkipJoinMLFQ}
NAMES = tuple(_POLICIES)


def named(name: str) -> Policy:
    """The policy of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _POLICIES:
        raise ValueError(f"the scheduling policy is {name!r}; it must be one of {', '.join(NAMES)}")
    return _POLICIES[name]()
