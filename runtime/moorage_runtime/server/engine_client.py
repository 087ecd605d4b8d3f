"""Talks to the engine process: sends requests, hands its outputs to whom they belong, notices its end."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec
import zmq
import zmq.asyncio

from moorage_runtime.engine.messages import (
    Cancel,
    Command,
    Event,
    Failed,
    FollowerLeaves,
    Joined,
    Leave,
    Loading,
    Output,
    Shutdown,
    Started,
    Stats,
    Step,
    Submit,
    decode_events,
    encode_commands,
)
from moorage_runtime.server.outputs import OutputStream

IDLE = Stats(
    running=0,
    waiting=0,
    kv_utilization=0.0,
    tokens_per_second=0.0,
    step_seconds=0.0,
    prompt_tokens=0,
    generated_tokens=0,
    preemptions=0,
)


class Listener(Protocol):
    """Who wants to know how the engine does."""

    def loading(self, event: Loading) -> None:
        """The engine is on its way."""

    def started(self, event: Started) -> None:
        """The engine has generated its first token."""

    def joined(self, event: Joined) -> None:
        """The engine computes its part of what another one leads."""

    def leaves(self, event: FollowerLeaves) -> None:
        """The engine leads a group that is to end when what runs is finished."""

    def failed(self, event: Failed) -> None:
        """The engine says that it cannot go on."""

    def stepped(self, stats: Stats) -> None:
        """The engine has made a step."""

    def lost(self, why: str) -> None:
        """The engine can no longer be talked to, though it may live."""


class EngineClient:
    """The API process's end of the socket. All methods belong to the event loop's thread."""

    def __init__(self, address: str, listener: Listener) -> None:
        """Bind `address`; the engine connects to it."""
        self._listener = listener
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PAIR)
        # Admission bounds what is in flight, so the socket need neither drop nor block.
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.set(zmq.LINGER, 1000)
        self._socket.bind(address)
        self._streams: dict[str, OutputStream] = {}
        self._commands: list[Command] = []
        self._numbers = itertools.count(1)
        self._failure: str | None = None
        self.stats = IDLE

    @property
    def open_sequences(self) -> int:
        """Sequences that were submitted and have not ended."""
        return len(self._streams)

    def submit(self, requests: Sequence[Submit]) -> OutputStream:
        """Submit sequences, whose ids are given here; their outputs come through one stream."""
        number = next(self._numbers)
        ids = [f"{number}.{index}" for index in range(len(requests))]
        stream = OutputStream(ids)
        if self._failure is not None:
            stream.fail(self._failure, time.monotonic())
            return stream
        for identifier, request in zip(ids, requests, strict=True):
            self._streams[identifier] = stream
            self._send(msgspec.structs.replace(request, id=identifier))
        return stream

    def cancel(self, ids: Sequence[str]) -> None:
        """End these sequences; those that have ended already are left alone."""
        for identifier in ids:
            if identifier in self._streams:
                self._send(Cancel(id=identifier))

    def shutdown(self) -> None:
        """Let the engine abort what it has, then end."""
        self._send(Shutdown())

    def leave(self) -> None:
        """Let the engine, a rank that has joined, tell its leader that this pod is to end."""
        self._send(Leave())

    def fail(self, message: str) -> None:
        """The engine is gone: every open request, and every later one, ends with this error."""
        self._failure = message
        now = time.monotonic()
        streams, self._streams = set(self._streams.values()), {}
        for stream in streams:
            stream.fail(message, now)

    def time_out(self) -> None:
        """End every open sequence as if its own time were over: what has been answered so far is an answer."""
        now = time.monotonic()
        for identifier in tuple(self._streams):
            self.cancel([identifier])
            self._deliver(Output(id=identifier, token_ids=[], finish_reason="timeout"), now)

    async def receive(self) -> None:
        """Handle the engine's messages until cancelled, or until one of them is none."""
        while True:
            frame = await self._socket.recv()
            try:
                events = decode_events(frame)
            except msgspec.DecodeError as error:
                self._listener.lost(f"The engine sent what is none of its messages: {error}.")
                return
            for event in events:
                self._handle(event)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
        self._context.term()

    def _handle(self, event: Event) -> None:
        match event:
            case Step(outputs=outputs, stats=stats):
                self.stats = stats
                now = time.monotonic()
                for output in outputs:
                    self._deliver(output, now)
                self._listener.stepped(stats)
            case Loading():
                self._listener.loading(event)
            case Started():
                self._listener.started(event)
            case Joined():
                self._listener.joined(event)
            case FollowerLeaves():
                self._listener.leaves(event)
            case Failed():
                self._listener.failed(event)

    def _deliver(self, output: Output, now: float) -> None:
        stream = self._streams.get(output.id)
        if stream is None:
            return
        if output.finish_reason is not None:
            del self._streams[output.id]
        if not stream.put(output, now):
            self.cancel(stream.open_ids)
            stream.fail("The client reads too slowly: its tokens were given up.", now)

    def _send(self, command: Command) -> None:
        """Queue a command; all of one turn of the event loop leave in one frame."""
        if not self._commands:
            asyncio.get_running_loop().call_soon(self._flush)
        self._commands.append(command)

    def _flush(self) -> None:
        commands, self._commands = self._commands, []
        self._socket.send(encode_commands(commands))
