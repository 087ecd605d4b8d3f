"""From a checked request to a running answer: prompt, admission, sampling, submission."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from moorage_runtime.engine.messages import SamplingParams, Started, Submit
from moorage_runtime.server.answer import Answer
from moorage_runtime.server.encode import encode
from moorage_runtime.server.engine_client import EngineClient
from moorage_runtime.server.errors import ContextTooLongError, InvalidRequestError, ModelNotFoundError, QueueFullError
from moorage_runtime.server.fields import shortened
from moorage_runtime.server.generation import Generation
from moorage_runtime.server.generation_config import SamplingDefaults
from moorage_runtime.server.logprobs import TokenNames
from moorage_runtime.server.metrics import Metrics
from moorage_runtime.server.model_card import ModelCard
from moorage_runtime.server.options import Options
from moorage_runtime.server.requests import ChatRequest, CompletionRequest
from moorage_runtime.server.state import ServerState


@dataclass(frozen=True)
class Load:
    """Requests on this server: `waiting` ones have no place in the batch yet."""

    running: int
    waiting: int


class Service:
    """Everything that a route needs. One per server."""

    def __init__(
        self,
        *,
        card: ModelCard,
        client: EngineClient,
        state: ServerState,
        metrics: Metrics,
        options: Options,
    ) -> None:
        self.name = options.served_name
        self.card = card
        self.client = client
        self.state = state
        self.metrics = metrics
        self.names = TokenNames(card.tokenizer)
        self.started_at = int(time.time())
        self._options = options

    def load(self) -> Load:
        """Counted here, so that it is true at once; the engine knows when memory keeps more of them waiting."""
        engine = self.state.engine
        sequences = self.client.open_sequences
        waiting = max(self.client.stats.waiting, sequences - (engine.max_running if engine else 0))
        waiting = min(waiting, sequences)
        return Load(sequences - waiting, waiting)

    def public_name(self, asked: str, from_gateway: str | None) -> str:
        """The name to answer with: the gateway says which one its client used, else it must be this server's.

        Raises:
            ModelNotFoundError: the client asked for another model.
        """
        if from_gateway is not None:
            return from_gateway
        if asked != self.name:
            raise ModelNotFoundError(shortened(asked), self.name)
        return asked

    async def chat(self, request: ChatRequest) -> Answer:
        """Start to answer a conversation."""
        engine = self.state.require_ready()
        if self.card.template is None:
            raise InvalidRequestError(
                "This model has no chat template. Use /v1/completions.", param="messages", code="no_chat_template"
            )
        text = self.card.template.render(request.messages)
        # The template writes the special tokens itself.
        prompt = await self._encode(text, engine, "messages", special=False)
        return self._submit(engine, [prompt], request.generation, param="messages")

    async def complete(self, request: CompletionRequest) -> Answer:
        """Start to continue one or several prompts."""
        engine = self.state.require_ready()
        prompts = [await self._prompt_ids(prompt, engine) for prompt in request.prompts]
        return self._submit(engine, prompts, request.generation, param="prompt")

    async def _prompt_ids(self, prompt: str | list[int], engine: Started) -> list[int]:
        if isinstance(prompt, str):
            ids = await self._encode(prompt, engine, "prompt", special=True)
            return ids if self.card.bos_token_id is None else [self.card.bos_token_id, *ids]
        _check_ids(prompt, engine.vocab_size, "prompt")
        return prompt

    async def _encode(self, text: str, engine: Started, param: str, *, special: bool) -> list[int]:
        return await encode(self.card.tokenizer, text, special=special, context=engine.context_length, param=param)

    def _submit(self, engine: Started, prompts: Sequence[list[int]], how: Generation, param: str) -> Answer:
        arrived = time.monotonic()
        max_tokens = min(_max_tokens(engine.context_length, prompt, how.max_tokens, param) for prompt in prompts)
        _check_ids(how.logit_bias, engine.vocab_size, "logit_bias")
        self._check_priority(how.priority)
        self._admit(engine, len(prompts) * how.n)
        ending = self.card.eos_token_ids.union(engine.eos_token_ids)
        requests = [
            Submit(
                id="",
                prompt=prompt,
                max_tokens=max_tokens,
                sampling=_sampling(how, self.card.defaults, choice),
                stop_token_ids=[] if how.ignore_eos else sorted(ending),
                priority=how.priority,
                cache_salt=how.cache_salt,
                timeout_seconds=self._timeout(how),
            )
            for prompt in prompts
            for choice in range(how.n)
        ]
        self.metrics.asked(choices=how.n, max_tokens=max_tokens)
        return Answer(
            client=self.client,
            stream=self.client.submit(requests),
            metrics=self.metrics,
            tokenizer=self.card.tokenizer,
            stops=how.stop,
            prompt_tokens=[len(request.prompt) for request in requests],
            choices=how.n,
            ending_ids=ending,
            arrived=arrived,
        )

    def _check_priority(self, priority: int) -> None:
        policy = self._options.engine.scheduling_policy or "FCFS"
        if priority and policy != "Priority":
            raise InvalidRequestError(
                f"'priority' has no effect here: this server schedules by {policy}. It is for servers that run with "
                "--scheduling-policy Priority.",
                param="priority",
                code="unsupported_parameter",
            )

    def _timeout(self, how: Generation) -> float | None:
        """The shorter of what the client and the operator of the server allow."""
        limits = [limit for limit in (how.timeout_seconds, self._options.request_timeout) if limit is not None]
        return min(limits, default=None)

    def _admit(self, engine: Started, new: int) -> None:
        # An idle server takes any request, however many choices it asks for.
        waiting = self.client.open_sequences + new - engine.max_running
        if waiting > self._options.max_waiting and self.client.open_sequences:
            raise QueueFullError(self.load().waiting)


def _max_tokens(context: int, prompt: list[int], asked: int | None, param: str) -> int:
    if not prompt:
        raise InvalidRequestError("The prompt has no tokens.", param=param, code="empty_string")
    room = context - len(prompt)
    if room < 1:
        raise ContextTooLongError(context=context, prompt=len(prompt), asked=None, param=param)
    if asked is not None and asked > room:
        raise ContextTooLongError(context=context, prompt=len(prompt), asked=asked, param="max_tokens")
    return room if asked is None else asked


def _check_ids(ids: Sequence[int] | dict[int, float], vocabulary: int, param: str) -> None:
    beyond = next((token for token in ids if token >= vocabulary), None)
    if beyond is not None:
        raise InvalidRequestError(
            f"Invalid value for '{param}': token id {beyond} is not in the model's vocabulary of {vocabulary}.",
            param=param,
            code="invalid_value",
        )


def _sampling(how: Generation, defaults: SamplingDefaults, choice: int) -> SamplingParams:
    """What the client asked for over what the model recommends; choices of one request get seeds of their own."""
    return SamplingParams(
        temperature=_first(how.temperature, defaults.temperature),
        top_p=_first(how.top_p, defaults.top_p),
        top_k=defaults.top_k if how.top_k is None else how.top_k,
        min_p=_first(how.min_p, defaults.min_p),
        repetition_penalty=_first(how.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=how.presence_penalty,
        frequency_penalty=how.frequency_penalty,
        seed=None if how.seed is None else _wrapped(how.seed + choice),
        logit_bias=how.logit_bias,
        logprobs=how.logprobs,
    )


def _wrapped(seed: int) -> int:
    """Seeds are signed 64-bit numbers; the one after the last is the first."""
    return (seed + 2**63) % 2**64 - 2**63


def _first(asked: float | None, default: float) -> float:
    return default if asked is None else asked
