"""What the leader of a group and its followers say to each other: msgpack in frames, over one TCP stream per follower.

The life of a follower's stream::

    Hello (Refused | Join)            then both open what exchanges go through, and load their parts
    Loaded
    (Probe | Run | Step | Measure -> Memory | Ping -> Pong)*
    Stop

A follower that cannot go on says `Problem` and ends; one whose pod was told to end says `Leaving`, and computes on
until the leader has finished what runs. Exchanges of numbers within a step go another way (`links`): nothing here is
sent while a step is computed.
"""

import msgspec

from moorage_runtime.engine.messages import FailureReason
from moorage_runtime.group.fingerprint import Fingerprint

PROTOCOL = 1


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="moorage-rank"):
    """A follower asks to be taken."""

    protocol: int
    ranks: int
    rank: int
    model: Fingerprint
    computing: str
    """What all ranks must share, in words: who computes, in which type, and what is rounded."""
    port: int
    """Where it takes streams of ranks above it; 0: nowhere."""
    because: str = ""
    """Why it computes like that, where nobody asked for it."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """It is not taken."""

    reason: str
    again: bool = False
    """Whether it may be later on."""


class Join(msgspec.Struct, frozen=True, array_like=True, tag="join"):
    """The group is complete."""

    token: bytes
    """Ranks know by it that a stream comes from their own group."""
    peers: list[tuple[str, int]]
    """Host and port of each rank."""
    port: int
    """The leader's, for torch's own meeting; 0: none."""


class Link(msgspec.Struct, frozen=True, array_like=True, tag="link"):
    """The one frame on a stream between two ranks for exchanges: who opened it."""

    token: bytes
    rank: int


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag="loaded"):
    """The part's weights are in memory."""

    weight_bytes: int


class Probe(msgspec.Struct, frozen=True, array_like=True, tag="probe"):
    """Make a runner to measure with; see `LoadedModel.probe`."""

    blocks: int
    layers: int | None


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    """Make the runner that serves; see `LoadedModel.runner`."""

    context_length: int
    total_blocks: int
    max_running: int
    token_budget: int
    vocab_size: int


class Step(msgspec.Struct, frozen=True, array_like=True, tag="step"):
    """Compute this with the others; see `moorage_runtime.model.step_arrays`."""

    tokens: bytes
    starts: bytes
    counts: bytes
    offsets: bytes
    tables: bytes
    samples: bytes
    drawn: bytes


class Measure(msgspec.Struct, frozen=True, array_like=True, tag="measure"):
    """Say how much memory there is for a KV cache."""


class Memory(msgspec.Struct, frozen=True, array_like=True, tag="memory"):
    """Bytes of a rank."""

    pool: str
    """Ranks of one pool share its memory: a pod's, or a GPU's."""
    limit: int
    """Of the pool."""
    used: int
    """By this rank."""
    block: int
    """Of one block of this rank's KV cache."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Are you there? Sent while there is nothing to compute."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong"):
    """Yes."""


class Leaving(msgspec.Struct, frozen=True, array_like=True, tag="leaving"):
    """This rank's pod was told to end."""


class Problem(msgspec.Struct, frozen=True, array_like=True, tag="problem"):
    """Why a follower ends."""

    reason: FailureReason
    message: str


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """The group ends."""

    reason: str
    """Empty: because it was told to."""


FromLeader = Refused | Join | Probe | Run | Step | Measure | Ping | Stop
FromFollower = Hello | Loaded | Memory | Pong | Leaving | Problem

encode = msgspec.msgpack.Encoder().encode
decode_leader = msgspec.msgpack.Decoder(FromLeader).decode
decode_follower = msgspec.msgpack.Decoder(FromFollower).decode
decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_link = msgspec.msgpack.Decoder(Link).decode
