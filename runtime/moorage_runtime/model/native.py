"""A model computed by the C++ kernels (`moorage_runtime.kernels`), without torch."""

from array import array
from collections.abc import Callable
from typing import get_args

from moorage_runtime import resources
from moorage_runtime.engine.blocks import BLOCK_TOKENS
from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.engine.plan import MOST_RUNNING, Limits, Sampled, StepPlan
from moorage_runtime.kernels import library
from moorage_runtime.kernels.library import Counters, Model, Session, SessionOptions
from moorage_runtime.model import memory
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.native_group import MOST_ROWS, NativeGroup
from moorage_runtime.model.sampler import GREEDY_BELOW, sample
from moorage_runtime.model.step_arrays import StepArrays
from moorage_runtime.model.tensors import Checkpoint
from moorage_runtime.model.weights import Asked, computed_format, pack, packed_bytes

SPIN_NS = 30_000
"""How long a thread that waits for others keeps its processor: about what a sleep and a wake-up cost."""
_LANES = 16
_MOST_HEAD_DIM = 512


class NativeModel:
    """See `moorage_runtime.model.loaded.LoadedModel`."""

    def __init__(
        self, config: ModelConfig, model: Model, *, stored: str, dtype: str, threads: int, group: NativeGroup | None
    ) -> None:
        self.config = config
        self.dtype = dtype
        self._group = group
        self.weight_bytes = model.bytes
        self._model = model
        self._stored = stored
        self._threads = threads
        self._probe: NativeRunner | None = None

    @property
    def kernels(self) -> str:
        """See `LoadedModel`: for example `native amx Q4_1, attention amx`."""
        with self._session(rows=1, samples=1, blocks=1, layers=1) as session:
            return f"native {library.path()} {self._stored}, attention {session.ops}"

    def runner(self, limits: Limits) -> "NativeRunner":
        """See `LoadedModel`."""
        self._probe = None
        rows = max(limits.token_budget, limits.max_running)
        return NativeRunner(self._session(rows, limits.max_running, limits.total_blocks, self.config.layers))

    def probe(self, blocks: int, layers: int | None = None) -> "NativeRunner":
        """See `LoadedModel`; its memory is held until the next probe or the runner is made."""
        self._probe = None
        session = self._session(MOST_ROWS, MOST_RUNNING, blocks, layers or self.config.layers)
        self._probe = NativeRunner(session)
        return self._probe

    def budget(self) -> memory.MemoryBudget:
        """See `LoadedModel`."""
        itemsize = 4 if self.dtype == "float32" else 2
        block = self.config.layers * BLOCK_TOKENS * self.config.kv_size * itemsize
        return memory.MemoryBudget(resources.memory_limit(), resources.resident_bytes(), block)

    def _session(self, rows: int, samples: int, blocks: int, layers: int) -> Session:
        options = SessionOptions(
            threads=self._threads,
            rows=rows,
            samples=samples,
            blocks=blocks,
            layers=layers,
            bf16_cache=self.dtype == "bfloat16",
            spin_ns=SPIN_NS if self._processors_needed() <= resources.compute_threads() else 0,
            kernels=library.lowered_to(),
        )
        return Session(self._model, options, self._group.group if self._group else None)

    def _processors_needed(self) -> int:
        return self._threads * (self._group.local_ranks if self._group else 1)


class NativeRunner:
    """Computes plans with one model and one cache."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def execute(self, plan: StepPlan) -> list[Sampled]:
        """See `moorage_runtime.engine.plan.Runner`."""
        return self.compute(plan, arrays_of(plan))

    def compute(self, plan: StepPlan, arrays: StepArrays) -> list[Sampled]:
        """As `execute`, where the plan's arrays are at hand."""
        best = self.follow(arrays)
        sequences = [chunk.sequence for chunk in plan.chunks if chunk.samples]
        sampled = [Sampled(token) if token >= 0 else Sampled(None) for token in best]
        for row, sequence in enumerate(sequences):
            if best[row] >= 0 and arrays.drawn[row]:
                (sampled[row],) = sample(self._session.logits[row : row + 1], [sequence])
        return sampled

    def follow(self, arrays: StepArrays) -> "array[int]":
        """One step; the most likely token of each sampling chunk, -1 where the model computed no finite number.

        Only rank 0 of a group knows them; what the others return says nothing.
        """
        best = array("i", bytes(4 * len(arrays.samples)))
        self._session.step(arrays.input(best))
        return best

    @property
    def counters(self) -> Counters:
        """Where time went so far."""
        return self._session.counters()


def arrays_of(plan: StepPlan) -> StepArrays:
    """A plan as the kernels take it."""
    return StepArrays.of(
        plan.chunks, [not is_greedy(chunk.sequence.sampling) for chunk in plan.chunks if chunk.samples]
    )


def refusal(config: ModelConfig, dtype: str | None) -> str | None:
    """Why the kernels do not compute a model in a type, or cannot be used here; None when they do."""
    if dtype not in (None, *get_args(Asked)):
        return f"{dtype} is computed on a GPU only"
    if config.head_dim % _LANES or config.head_dim > _MOST_HEAD_DIM:
        return f"heads have {config.head_dim} numbers; a multiple of {_LANES}, at most {_MOST_HEAD_DIM}, is computed"
    try:
        library.library()
    except library.KernelsError as error:
        return str(error)
    return None


def load(
    checkpoint: Checkpoint,
    asked: str | None,
    threads: int,
    progress: Callable[[float], None],
    group: NativeGroup | None = None,
) -> NativeModel:
    """Pack the weights for this machine; with a group the checkpoint is this rank's part of one.

    Raises:
        InsufficientMemoryError: they do not fit.
        UnsupportedModelError: a tensor is missing or of an unknown type.
    """
    memory.check_fits(packed_bytes(checkpoint, asked), resources.memory_limit(), resources.resident_bytes())
    name = "model.layers.0.mlp.down_proj.weight"
    some_matrix = checkpoint.layout(name)
    stored = computed_format(name, some_matrix, asked) if some_matrix else "F32"
    model = pack(checkpoint, asked, threads, progress)
    dtype = "float32" if stored == "F32" else "bfloat16"
    return NativeModel(checkpoint.config, model, stored=stored, dtype=dtype, threads=threads, group=group)


def is_greedy(sampling: SamplingParams) -> bool:
    """Whether the most likely token, without its probability, is all that is wanted."""
    penalties = (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    plain = sampling.temperature < GREEDY_BELOW and penalties == (1.0, 0.0, 0.0)
    return plain and not sampling.logit_bias and sampling.logprobs is None
