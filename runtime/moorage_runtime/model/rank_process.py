"""A rank of a group that does not lead: it loads its part, and computes what the leader says until that ends."""

import gc

from moorage_runtime.engine.messages import Joined, Loading, LoadingPhase, Shutdown
from moorage_runtime.engine.plan import Limits
from moorage_runtime.group.follower import Follower
from moorage_runtime.group.messages import Loaded, Measure, Probe, Run, Step, Stop
from moorage_runtime.group.place import Place
from moorage_runtime.kernels.library import KernelsError
from moorage_runtime.model import allocator
from moorage_runtime.model.arguments import Asked, Sibling, start_siblings
from moorage_runtime.model.channel import Channel
from moorage_runtime.model.errors import ExchangeError, GroupError, StartError
from moorage_runtime.model.group_memory import memory_of
from moorage_runtime.model.loaded import PartModel, PartRunner
from moorage_runtime.model.part import Parts
from moorage_runtime.model.start import threads_of
from moorage_runtime.model.step_arrays import StepArrays

_LAST_WORDS_SECONDS = 1.0


class RankProcess:
    """Its life. `channel` is that of the first rank of a pod, whose API process wants to know how it does."""

    def __init__(self, asked: Asked, place: Place, channel: Channel | None) -> None:
        self._asked = asked
        self._place = place
        self._channel = channel
        self._siblings: list[Sibling] = []

    def run(self) -> None:
        """Until the leader says that it is over.

        Raises:
            StartError: this rank cannot take part, or the group is broken.
        """
        allocator.keep_memory()
        parts = Parts.open(self._asked.settings, self._place.ranks)
        if self._channel is not None:
            self._siblings = start_siblings(self._asked, self._asked.rank, self._place.leader, memory=None)
            self._say("WaitingForRanks", f"rank {self._asked.rank} looks for rank 0 at {self._place.leader}")
        hello = parts.hello(self._asked.rank)
        follower = Follower.join(
            self._place.leader,
            hello,
            local_ranks=self._place.local_ranks,
            memory=self._asked.memory,
            look=self._look,
        )
        try:
            self._follow(parts, follower)
        except StartError as error:
            follower.say_why(error)
            raise
        finally:
            follower.close()

    def _follow(self, parts: Parts, follower: Follower) -> None:
        threads = threads_of(self._asked.settings, self._place)
        self._say("LoadingWeights", "loading weights")
        model = parts.load(follower.links, threads, lambda _done: None)
        allocator.trim()
        follower.send(Loaded(model.weight_bytes))
        self._say("WarmingUp", "waiting for the leader")
        runner: PartRunner | None = None
        computes = False
        while not isinstance(message := follower.next(self._look, expects=computes), Stop):
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
        if self._channel is not None:
            self._channel.send(Joined(self._asked.rank, self._place.ranks))
        return model.runner(
            Limits(
                context_length=message.context_length,
                vocab_size=message.vocab_size,
                total_blocks=message.total_blocks,
                max_running=message.max_running,
                token_budget=message.token_budget,
            )
        )

    def _say(self, phase: LoadingPhase, message: str) -> None:
        if self._channel is not None:
            self._channel.send(Loading(phase, 0.0, message))

    def _look(self) -> None:
        """End when this pod is told to and does not want to wait for the leader, or when another rank of it has ended.

        Raises:
            GroupError: one has.
        """
        for rank, sibling in enumerate(self._siblings, self._asked.rank + 1):
            if code := sibling.poll():
                raise GroupError(f"rank {rank} ended with exit code {code}")
        if self._channel is not None and any(isinstance(each, Shutdown) for each in self._channel.receive(wait=False)):
            raise SystemExit(0)


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
