"""A rank of a group that does not lead: it loads its part, and computes what the leader says until that ends."""

import gc
from contextlib import ExitStack
from functools import partial

from moorage_runtime.engine.messages import Joined, Leave, Loading, LoadingPhase, Shutdown
from moorage_runtime.engine.plan import Limits
from moorage_runtime.group.errors import GroupError
from moorage_runtime.group.follower import Follower
from moorage_runtime.group.messages import Leaving, Loaded, Measure, Probe, Run, Step, Stop
from moorage_runtime.group.place import Place
from moorage_runtime.group.siblings import Siblings
from moorage_runtime.kernels.library import KernelsError
from moorage_runtime.model import allocator
from moorage_runtime.model.arguments import Asked, start_siblings
from moorage_runtime.model.channel import Channel
from moorage_runtime.model.division import Division
from moorage_runtime.model.errors import ExchangeError
from moorage_runtime.model.group_memory import memory_of
from moorage_runtime.model.loaded import PartModel, PartRunner
from moorage_runtime.model.start import threads_of
from moorage_runtime.model.step_arrays import StepArrays

_LAST_WORDS_SECONDS = 1.0


class RankProcess:
    """Its life. `channel` is that of the first rank of a pod, whose API process wants to know how it does."""

    def __init__(self, asked: Asked, place: Place, channel: Channel | None, siblings: Siblings) -> None:
        self._asked = asked
        self._place = place
        self._channel = channel
        self._siblings = siblings

    def run(self) -> None:
        """Until the leader says that it is over.

        Raises:
            StartError: this rank cannot take part, or the group is broken.
        """
        allocator.keep_memory()
        with ExitStack() as group:
            follower, model = self._join(group)
            allocator.trim()
            follower.send(Loaded(model.weight_bytes))
            self._follow(follower, model)

    def _join(self, group: ExitStack) -> tuple[Follower, PartModel]:
        """Meet the others and load: the division, and with it the mapped files, ends with this frame."""
        division = Division.open(self._asked.settings, self._place.ranks, self._place.local_ranks)
        if division.because:
            self._say("LoadingWeights", f"computing with torch: {division.because}")
        if self._channel is not None:
            start_siblings(self._siblings, self._asked, self._asked.rank, self._place.leader, memory=None)
        self._say("WaitingForRanks", f"rank {self._asked.rank} looks for rank 0 at {self._place.leader}")
        streams = self._asked.memory is None and not division.by_torch
        hello = division.hello(self._asked.rank)
        follower = group.enter_context(Follower.join(self._place.leader, hello, streams=streams, look=self._look))
        look = partial(self._look, follower)
        links = follower.links(look, local_ranks=self._place.local_ranks, memory=self._asked.memory)
        self._say("LoadingWeights", "loading weights")
        threads = threads_of(self._asked.settings, self._place)

        def progress(_done: float) -> None:
            look()
            follower.look()

        return follower, division.load(links, threads, progress)

    def _follow(self, follower: Follower, model: PartModel) -> None:
        self._say("WarmingUp", "waiting for the leader")
        look = partial(self._look, follower)
        runner: PartRunner | None = None
        computes = False
        while not isinstance(message := follower.next(look, expects=computes), Stop):
            match message:
                case Probe() | Run():
                    runner = None  # its memory is free before the next one takes its own
                    runner = self._runner(model, message)
                case Measure():
                    follower.send(memory_of(model.budget(), self._asked.rank, self._place.local_ranks))
                case Step():
                    computes = True
                    _compute(runner, message, follower)
                case _:
                    raise GroupError(f"rank 0 said {type(message).__name__} in the middle")
        _end(message)

    def _runner(self, model: PartModel, message: Probe | Run) -> PartRunner:
        if isinstance(message, Probe):
            return model.probe(message.blocks, message.layers)
        gc.collect()
        gc.freeze()  # as the leader does: no collection need visit what lives as long as the process
        runner = model.runner(
            Limits(
                context_length=message.context_length,
                vocab_size=message.vocab_size,
                total_blocks=message.total_blocks,
                max_running=message.max_running,
                token_budget=message.token_budget,
            )
        )
        if self._channel is not None:
            self._channel.send(Joined(self._asked.rank, self._place.ranks))
        return runner

    def _say(self, phase: LoadingPhase, message: str) -> None:
        if self._channel is not None:
            self._channel.send(Loading(phase, 0.0, message))

    def _look(self, follower: Follower | None = None) -> None:
        """Notice what happens in this pod while something else is waited for.

        Raises:
            GroupError: another rank of it has ended, or the leader is gone.
            SystemExit: it was told to end, and does not wait for the leader.
        """
        for rank, code in self._siblings.ended().items():
            if code:  # 0: the leader has said that it is over, and this rank hears it presently
                raise GroupError(f"rank {rank} ended with exit code {code}")
        for command in () if self._channel is None else self._channel.receive(wait=False):
            if isinstance(command, Shutdown):
                raise SystemExit(0)
            if isinstance(command, Leave) and follower is not None:
                follower.send(Leaving())


def _compute(runner: PartRunner | None, step: Step, follower: Follower) -> None:
    if runner is None:
        raise GroupError("rank 0 wants a step before it said with what")
    try:
        runner.follow(StepArrays.from_bytes(**{name: getattr(step, name) for name in step.__struct_fields__}))
    except (KernelsError, ExchangeError, ValueError) as error:
        # The leader may have ended the group, and left its reason.
        last = follower.last_words(_LAST_WORDS_SECONDS)
        if last is not None:
            _end(last)
        raise GroupError(str(error)) from error


def _end(stop: Stop) -> None:
    if stop.reason:
        raise GroupError(f"rank 0 has ended: {stop.reason}")
