"""A listening socket to which anybody may come: ranks, a scanner, ranks of another group or of this one's last life."""

import socket
import time
from collections.abc import Sequence

from moorage_runtime.group.errors import GroupError
from moorage_runtime.group.wire import Wire, WireError, readable

LOOK_SECONDS = 0.2
_HELLO_SECONDS = 5.0
_MOST_STRANGERS = 64


class Door:
    """Who comes is a stranger until the first frame. There are a few seconds for it, in which nobody else waits."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._strangers: dict[Wire, float] = {}

    def turn(self, watched: Sequence[Wire] = ()) -> list[tuple[Wire, bytes]]:
        """Wait a moment, or until somebody comes or says something.

        Args:
            watched: Others whose words end the wait.

        Returns:
            Strangers that have said something, and what. They are the caller's from here on.

        Raises:
            GroupError: no more streams can be taken.
        """
        if self._listener.fileno() in readable([self._listener, *self._strangers, *watched], LOOK_SECONDS):
            self._admit()
        said = []
        for wire, deadline in tuple(self._strangers.items()):
            try:
                frame = wire.poll()
            except WireError:
                self._send_away(wire)
                continue
            if frame is not None:
                del self._strangers[wire]
                said.append((wire, frame))
            elif time.monotonic() > deadline:
                self._send_away(wire)
        return said

    def close(self) -> None:
        """Send all strangers away; the listener is its owner's."""
        for wire in tuple(self._strangers):
            self._send_away(wire)

    def _admit(self) -> None:
        try:
            stream = self._listener.accept()[0]
        except ConnectionAbortedError:
            return
        except OSError as error:
            raise GroupError(f"the group's port can take no more streams: {error}") from error
        if len(self._strangers) >= _MOST_STRANGERS:
            self._send_away(next(iter(self._strangers)))
        self._strangers[Wire(stream)] = time.monotonic() + _HELLO_SECONDS

    def _send_away(self, wire: Wire) -> None:
        del self._strangers[wire]
        wire.close()
