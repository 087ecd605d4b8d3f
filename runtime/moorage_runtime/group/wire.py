"""A stream of frames: four bytes of length, then so many of content."""

import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Self

_LENGTH = struct.Struct("!I")
MOST_OF_A_STRANGER = 2**16
"""Bytes of a frame before the other end is known."""
MOST = 2**28
SEND_SECONDS = 30.0
_RECEIVE = 2**18
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 5, "TCP_USER_TIMEOUT": 30_000}
"""A machine that is gone, or cannot be reached, is noticed within 30 s."""


class WireError(Exception):
    """The stream has ended, or what came is no frame."""


class Wire:
    """One end. Reading never waits unless it is told for how long."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._buffer = bytearray()
        self.most = MOST_OF_A_STRANGER
        """Bytes of the largest frame that is taken."""
        stream.settimeout(0)
        tune(stream)

    def fileno(self) -> int:
        """For `poll`."""
        return self._socket.fileno()

    @property
    def host(self) -> str:
        """The other end's."""
        try:
            # An IPv4 address as a listener for both kinds sees it is one that a machine without IPv6 cannot call.
            return str(self._socket.getpeername()[0]).removeprefix("::ffff:")
        except OSError as error:
            raise WireError(f"the stream has ended ({error.strerror})") from error

    def send(self, frame: bytes, seconds: float = SEND_SECONDS) -> None:
        """Send one frame, which is waited for so long at most.

        Raises:
            WireError: the stream has ended, or nobody takes it in time.
        """
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(_LENGTH.pack(len(frame)) + frame)
            self._socket.settimeout(0)
        except OSError as error:
            raise WireError(f"the stream has ended ({error})") from error

    def poll(self) -> bytes | None:
        """A frame that has arrived; None: none yet.

        Raises:
            WireError: the stream has ended, or what came is no frame.
        """
        while (frame := self._take()) is None:
            try:
                received = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return None
            except OSError as error:
                raise WireError(f"the stream has ended ({error.strerror})") from error
            if not received:
                raise WireError("the stream has ended")
            self._buffer += received
        return frame

    def receive(self, seconds: float) -> bytes | None:
        """As `poll`, waiting for so long."""
        deadline = time.monotonic() + seconds
        while (frame := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not readable([self], left):
                return self.poll()
        return frame

    def detach(self) -> socket.socket:
        """The stream itself, for something else than frames.

        Raises:
            WireError: the other end has begun with that already.
        """
        if self._buffer:
            raise WireError("more has come than was to come")
        return self._socket

    def close(self) -> None:
        """End the stream."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `close`."""
        self.close()

    def _take(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self.most:
            raise WireError(f"a frame of {length} bytes is not taken here")
        if len(self._buffer) < (end := _LENGTH.size + length):
            return None
        frame = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return frame


def readable(sources: Sequence[Wire | socket.socket], seconds: float) -> list[int]:
    """File descriptors of those from which something can be read, after so long at most."""
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    return [found for found, _ in poll.poll(max(0.0, seconds) * 1000)]


def tune(stream: socket.socket) -> None:
    """Small messages leave at once; an end that cannot be reached is noticed."""
    if stream.family not in (socket.AF_INET, socket.AF_INET6):
        return
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in _KEEPALIVE.items():
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def listen(host: str | None, port: int) -> socket.socket:
    """A listening socket; None is every address of this machine."""
    if host is not None:
        return socket.create_server((host, port))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
