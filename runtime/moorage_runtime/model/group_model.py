"""A model that several ranks compute, as its leader's engine sees it: one model, one runner, one budget of memory."""

from moorage_runtime.engine.plan import Limits, Sampled, StepPlan
from moorage_runtime.group.leader import LOAD_SECONDS, Leader
from moorage_runtime.group.messages import Loaded, Measure, Memory, Probe, Run, Step
from moorage_runtime.kernels.library import KernelsError
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.errors import ExchangeError
from moorage_runtime.model.group_memory import GroupBudget, memory_of
from moorage_runtime.model.loaded import KVBudget, PartModel, PartRunner
from moorage_runtime.model.native import arrays_of


class GroupModel:
    """See `LoadedModel`."""

    def __init__(self, own: PartModel, whole: ModelConfig, leader: Leader) -> None:
        """When the leader's own part is loaded; waits for the others'.

        Raises:
            GroupError: a rank is lost, or cannot load its part.
        """
        self.config = whole
        self.dtype = own.dtype
        self.kernels = f"{own.kernels}, {leader.place.ranks} ranks"
        self.weight_bytes = own.weight_bytes + sum(each.weight_bytes for each in leader.hear(Loaded, LOAD_SECONDS))
        self._own = own
        self._leader = leader

    def runner(self, limits: Limits) -> "GroupRunner":
        """See `LoadedModel`."""
        self._leader.tell(
            Run(limits.context_length, limits.total_blocks, limits.max_running, limits.token_budget, limits.vocab_size)
        )
        return GroupRunner(self._own.runner(limits), self._leader)

    def probe(self, blocks: int, layers: int | None = None) -> "GroupRunner":
        """See `LoadedModel`."""
        self._leader.tell(Probe(blocks, layers))
        return GroupRunner(self._own.probe(blocks, layers), self._leader)

    def budget(self) -> KVBudget:
        """See `LoadedModel`: of the rank that has the least room."""
        self._leader.tell(Measure())
        own = memory_of(self._own.budget(), rank=0, local_ranks=self._leader.place.local_ranks)
        return GroupBudget.of([own, *self._leader.hear(Memory)])


class GroupRunner:
    """Has all ranks compute each plan together."""

    def __init__(self, own: PartRunner, leader: Leader) -> None:
        self._own = own
        self._leader = leader

    def execute(self, plan: StepPlan) -> list[Sampled]:
        """See `moorage_runtime.engine.plan.Runner`.

        Raises:
            GroupError: a rank is lost.
        """
        arrays = arrays_of(plan)
        self._leader.tell(Step(**arrays.to_bytes()))
        try:
            return self._own.compute(plan, arrays)
        except KernelsError as error:
            raise self._leader.broken(str(error)) from error
        except ExchangeError as error:
            raise self._leader.broken(str(error), vague=True) from error
