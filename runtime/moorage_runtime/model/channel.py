"""The engine's end of the socket between it and the API process."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import zmq

from moorage_runtime.engine.errors import StartError
from moorage_runtime.engine.messages import Command, Event, Failed, decode_commands, encode_events

_LINGER_MS = 2000
_QUIET_MS = 250
_TEND_MS = 1000


class Channel:
    """The engine's end of the socket. An exception that leaves its `with` is told to the other end as `Failed`."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = _LINGER_MS
        self._socket.connect(address)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    def watch(self, descriptors: Iterable[int]) -> None:
        """File descriptors that end a wait for commands, too, when there is something to read."""
        for descriptor in descriptors:
            self._poller.register(descriptor, zmq.POLLIN)

    def send(self, event: Event) -> None:
        """One frame; waits while the other end has too many unread."""
        self._socket.send(encode_events([event]))

    def receive(self, *, wait: bool, tend: Callable[[], None] | None = None) -> list[Command]:
        """Everything that has arrived; with `wait`, at least one frame.

        Until then `tend` is called every second, and when something is to be read of what is watched.
        """
        while wait and tend is not None and not self._has_arrived():
            tend()
        commands: list[Command] = decode_commands(self._socket.recv()) if wait else []
        while self._socket.poll(0):
            commands += decode_commands(self._socket.recv())
        return commands

    def is_quiet(self) -> bool:
        """Whether nothing arrives for a moment, so that nobody waits for what is done meanwhile."""
        return not self._socket.poll(_QUIET_MS)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell why, then close; the exception goes on and ends the process with code 1."""
        if isinstance(error, StartError):
            self.send(Failed(error.reason, str(error)))
        elif isinstance(error, Exception):
            self.send(Failed("EngineFailed", f"{type(error).__name__}: {error}"))
        self._socket.close()
        self._context.term()

    def _has_arrived(self) -> bool:
        return any(found is self._socket for found, _ in self._poller.poll(_TEND_MS))
