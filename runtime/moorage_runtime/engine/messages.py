"""What the API process and the engine process say to each other.

Two processes, because a second thread that takes the interpreter lock costs the thread that drives torch a third of
its speed. They talk over one ZeroMQ PAIR socket: **the API process binds the address and then starts the engine, which
connects**. Every frame is the msgpack of a *list* of messages (`encode_commands` / `encode_events`), so that a step
costs one frame each way whatever the number of requests. Nothing here loads torch or a web framework.

The life of an engine, as its API process sees it::

    Loading*  (Started | Failed)      a process that sends Failed exits non-zero afterwards
    Step*                             one per step that computed or ended something
    Joined                            instead of both: of a rank of a group that follows another one's engine
    FollowerLeaves*                   from the engine that leads such a group
    (end of the process)              exit code 0 after Shutdown, anything else is a failure

A request that was submitted ends **exactly once**, with the one `Output` that carries a `finish_reason`. Cancelling a
request that has ended already is not an error: the two messages crossed.
"""

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "abort", "error", "timeout"]
FailureReason = Literal["InsufficientMemory", "UnsupportedModel", "EngineFailed"]
LoadingPhase = Literal["WaitingForRanks", "LoadingWeights", "WarmingUp"]


class SamplingParams(msgspec.Struct, frozen=True, array_like=True):
    """How the next token is chosen from the logits. The defaults change nothing: pure sampling at temperature 1.

    Order of application: repetition, presence and frequency penalty, logit bias, temperature, top-k, top-p, min-p.
    """

    temperature: float = 1.0
    """0 is greedy: the most likely token, the lowest id among equals."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose probabilities sum to at least this; in (0, 1]."""
    top_k: int = 0
    """Keep this many most likely tokens; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the most likely one's probability."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or output (CTRL, arXiv:1909.05858)."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of a token that the output has already."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a token once for each time that the output has it."""
    seed: int | None = None
    """The noise is a pure function of (seed, position): neighbours in the batch never change it. None draws a seed."""
    logit_bias: dict[int, float] = {}
    """Added to the logits of these token ids."""
    logprobs: int | None = None
    """None: none. n >= 0: the chosen token's log-probability and the n most likely tokens' (at most `MAX_LOGPROBS`)."""


MAX_LOGPROBS = 20
"""OpenAI's limit for `top_logprobs`."""


class Submit(msgspec.Struct, frozen=True, array_like=True, tag="submit"):
    """A new request. Ids are the API process's choice and are never used twice."""

    id: str
    prompt: list[int]
    """Token ids, at least one; with `max_tokens` at least 1 it must fit the context (else it ends with `error`)."""
    max_tokens: int
    """Tokens to generate at most; the engine lowers it to what the context leaves."""
    sampling: SamplingParams = SamplingParams()
    stop_token_ids: list[int] = []
    """The request ends with `stop` when one of these is generated. The engine adds none: eos belongs here.

    Stop *strings* are the API process's business, which has the text: it sends `Cancel`.
    """
    priority: int = 0
    """Lower starts earlier and is preempted later; equal ones go by arrival. Only the policy `Priority` looks at it."""
    cache_salt: str = ""
    """Requests share computed prefixes only with requests of the same salt (one tenant, one salt)."""
    timeout_seconds: float | None = None
    """Counted from the arrival at the engine; the request then ends with `timeout`. None: no limit."""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """The client left, or a stop string was seen. Acted on before the next step; answered by finish reason `abort`."""

    id: str


class Shutdown(msgspec.Struct, frozen=True, array_like=True, tag="shutdown"):
    """End every request with `abort`, then exit 0. Who wants answers to be complete waits for them first."""


class Leave(msgspec.Struct, frozen=True, array_like=True, tag="leave"):
    """To a rank that has joined: tell the leader that this pod is to end. It goes on until the leader has ended."""


Command = Submit | Cancel | Shutdown | Leave


class Loading(msgspec.Struct, frozen=True, array_like=True, tag="loading"):
    """How far the start has come, for people who wait."""

    phase: LoadingPhase
    fraction: float
    """Of this phase, 0 to 1."""
    message: str


class Started(msgspec.Struct, frozen=True, array_like=True, tag="started"):
    """A first token has been generated; the engine takes requests. Sent once."""

    architecture: str
    """As the checkpoint names it, for example `llama`."""
    vocab_size: int
    context_length: int
    """Tokens of prompt and output together: the smaller of what the model was trained for and what was asked for."""
    kv_capacity_tokens: int
    """Tokens of all requests together that fit the KV cache."""
    max_running: int
    """Requests that are computed together; others wait."""
    eos_token_ids: list[int]
    dtype: str
    """Type of activations and KV cache: `bfloat16`, `float16` or `float32`."""
    threads: int
    kernels: str
    """The path that computes, for example `torch-cpu onednn-packed, Q4_1 as bfloat16`."""
    weight_bytes: int
    load_seconds: float
    """From the start of the process to the first token."""


class Joined(msgspec.Struct, frozen=True, array_like=True, tag="joined"):
    """In the place of `Started`, from a rank that does not lead: it computes with the others. Rank 0 takes requests."""

    rank: int
    ranks: int


class FollowerLeaves(msgspec.Struct, frozen=True, array_like=True, tag="leaves"):
    """The pod of another rank was told to end: what runs may be finished, and then the whole group ends."""

    rank: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The engine cannot start or go on. The process exits non-zero after it."""

    reason: FailureReason
    message: str
    """A sentence for the person who wrote the resource: what is wrong and what to do."""


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities at one position, from the model's own logits: before penalties, bias and temperature."""

    chosen: float
    top: list[tuple[int, float]]
    """(token id, log-probability) of the most likely tokens, best first; as many as were asked for."""


class Output(msgspec.Struct, frozen=True, array_like=True):
    """What one step brought for one request."""

    id: str
    token_ids: list[int]
    """New tokens, possibly none. A stop token is included: it was generated and counts, but is not text."""
    logprobs: list[TokenLogprobs] | None = None
    """One per new token where asked for."""
    finish_reason: FinishReason | None = None
    """Set exactly once per request, in its last output."""
    cached_prompt_tokens: int = 0
    """Prompt tokens whose keys and values did not have to be computed; told with the first token."""
    error: str = ""
    """Why, when the finish reason is `error`."""
    queue_seconds: float = 0.0
    """From the arrival at the engine until the request was computed for the first time; told with the first token."""


class Stats(msgspec.Struct, frozen=True, array_like=True):
    """The engine after a step."""

    running: int
    waiting: int
    kv_utilization: float
    """Share of the KV blocks in use, 0 to 1."""
    tokens_per_second: float
    """Generated tokens per second over the last seconds; 0 in the report after which the engine is idle."""
    step_seconds: float
    prompt_tokens: int
    """Prompt tokens computed in this step, without those that are computed again after a preemption."""
    generated_tokens: int
    preemptions: int
    """Requests that were paused in this step, or lost their blocks and will be recomputed."""
    cached_prompt_tokens: int = 0
    """Prompt tokens of the requests admitted in this step that were found in the prefix cache."""


class Step(msgspec.Struct, frozen=True, array_like=True, tag="step"):
    """One step of the engine, or requests that ended between two steps."""

    outputs: list[Output]
    stats: Stats


Event = Loading | Started | Joined | FollowerLeaves | Failed | Step

_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(list[Command])
_events = msgspec.msgpack.Decoder(list[Event])


def encode_commands(commands: list[Command]) -> bytes:
    """The frame that the API process sends."""
    return _encoder.encode(commands)


def decode_commands(frame: bytes) -> list[Command]:
    """What the API process sent; `msgspec.ValidationError` when it is none of this protocol."""
    return _commands.decode(frame)


def encode_events(events: list[Event]) -> bytes:
    """The frame that the engine sends."""
    return _encoder.encode(events)


def decode_events(frame: bytes) -> list[Event]:
    """What the engine sent; `msgspec.ValidationError` when it is none of this protocol."""
    return _events.decode(frame)
