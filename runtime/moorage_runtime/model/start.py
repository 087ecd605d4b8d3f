"""From a model on disk to an engine that has generated its first token."""

import gc
import time
from collections.abc import Callable

from moorage_runtime import resources
from moorage_runtime.engine.blocks import BLOCK_TOKENS, blocks_for
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.errors import StartError
from moorage_runtime.engine.messages import Loading, LoadingPhase, SamplingParams, Started, Submit
from moorage_runtime.engine.plan import Limits
from moorage_runtime.group.leader import Leader
from moorage_runtime.group.place import Place
from moorage_runtime.model import allocator, native
from moorage_runtime.model.checkpoint import Checkpoint, open_checkpoint
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.device import Device, device_of
from moorage_runtime.model.division import Division
from moorage_runtime.model.errors import ExchangeError, InsufficientMemoryError
from moorage_runtime.model.group_model import GroupModel
from moorage_runtime.model.loaded import LoadedModel
from moorage_runtime.model.measure import largest_step, token_budget
from moorage_runtime.model.settings import Settings

Report = Callable[[Loading], None]


def start(settings: Settings, report: Report, leader: Leader | None = None) -> tuple[Engine, Started]:
    """Load, measure, warm up.

    Args:
        settings: What is asked for.
        report: Told how far it is.
        leader: Of the ranks that compute the model together; None: this process computes it alone.

    Raises:
        GroupError: one of them did not come, or is lost.
        UnsupportedModelError: the model's files are none that this runtime computes.
        InsufficientMemoryError: they do not fit, with one request of the context length, the memory limit.
    """
    began = time.monotonic()
    allocator.keep_memory()
    threads = threads_of(settings, leader.place if leader else None)
    model = _load(settings, threads, report) if leader is None else _load_part(settings, threads, report, leader)
    allocator.trim()
    limits = _limits(model, settings, report)
    engine = Engine(model.runner(limits), limits)
    _warm_up(engine)
    gc.collect()
    gc.freeze()  # weights and modules live as long as the process: no collection need visit them again
    return engine, Started(
        architecture=model.config.architecture,
        vocab_size=limits.vocab_size,
        context_length=limits.context_length,
        kv_capacity_tokens=limits.total_blocks * BLOCK_TOKENS,
        max_running=limits.max_running,
        eos_token_ids=list(model.config.eos_token_ids),
        dtype=model.dtype,
        threads=threads,
        kernels=model.kernels,
        weight_bytes=model.weight_bytes,
        load_seconds=time.monotonic() - began,
    )


def _load(settings: Settings, threads: int, report: Report) -> LoadedModel:
    _say(report, "LoadingWeights", 0.0, f"opening {settings.model}")
    checkpoint = open_checkpoint(settings.model, settings.quantization)
    device = device_of(settings.device)

    def progress(done: float) -> None:
        _say(report, "LoadingWeights", done, "loading weights")

    if device == "cpu":
        why_not = native.refusal(checkpoint.config, settings.dtype)
        if why_not is None:
            return native.load(checkpoint, settings.dtype, threads, progress)
        _say(report, "LoadingWeights", 0.0, f"computing with torch: {why_not}")
    return _load_with_torch(checkpoint, device, settings.dtype, threads, progress)


def _load_part(settings: Settings, threads: int, report: Report, leader: Leader) -> LoadedModel:
    """The first rank's part, while the others load theirs."""
    division = Division.open(settings, leader.place.ranks, leader.place.local_ranks)
    if division.because:
        _say(report, "LoadingWeights", 0.0, f"computing with torch: {division.because}")
    links = leader.gather(
        division.hello(rank=0), lambda who: _say(report, "WaitingForRanks", 0.0, who), torch=division.by_torch
    )

    def progress(done: float) -> None:
        leader.look()
        _say(report, "LoadingWeights", done, "loading weights")

    try:
        own = division.load(links, threads, progress)
    except ExchangeError as error:
        raise leader.broken(str(error), vague=True) from error
    _say(report, "LoadingWeights", 1.0, "waiting for the other ranks' weights")
    return GroupModel(own, division.config, leader)


def _load_with_torch(
    checkpoint: Checkpoint, device: Device, dtype: str | None, threads: int, progress: Callable[[float], None]
) -> LoadedModel:
    import torch  # noqa: PLC0415 - takes seconds to load, and the kernels do without

    from moorage_runtime.model.torch_path.load import load  # noqa: PLC0415 - as torch

    torch.set_num_threads(threads)
    return load(checkpoint, device, dtype, progress)


def _limits(model: LoadedModel, settings: Settings, report: Report) -> Limits:
    _say(report, "WarmingUp", 0.0, "measuring a step")
    context_length = _context_length(model.config, settings.context_length)
    budget = token_budget(model)
    return Limits(
        context_length=context_length,
        vocab_size=model.config.vocab_size,
        total_blocks=_kv_blocks(model, settings, context_length, budget),
        max_running=settings.max_running,
        token_budget=budget,
        policy=settings.scheduling_policy,
    )


def _kv_blocks(model: LoadedModel, settings: Settings, context_length: int, budget: int) -> int:
    if settings.kv_tokens is not None:
        if settings.kv_tokens < context_length:
            raise InsufficientMemoryError(
                f"a KV cache of {settings.kv_tokens} tokens (--kv-tokens) does not hold contextLength {context_length}"
                "; raise the one, or lower the other (--context-length)"
            )
        return blocks_for(settings.kv_tokens)
    largest_step(model, context_length, settings.max_running, budget)
    return model.budget().kv_blocks(context_length, settings.max_running)


def _warm_up(engine: Engine) -> None:
    engine.submit(Submit("warm-up", prompt=[0] * BLOCK_TOKENS, max_tokens=2, sampling=SamplingParams(temperature=0.0)))
    while engine.has_work:
        for output in engine.step().outputs:
            if output.error:
                raise StartError(f"the first token failed: {output.error}")


def threads_of(settings: Settings, place: Place | None) -> int:
    """One for each rank of a group, whose ranks wait for each other all the time; alone all that there are."""
    return settings.threads or (resources.compute_threads() if place is None else 1)


def _context_length(config: ModelConfig, asked: int | None) -> int:
    return config.context_length if asked is None else min(config.context_length, asked)


def _say(report: Report, phase: LoadingPhase, fraction: float, message: str) -> None:
    report(Loading(phase, fraction, message))
