"""The HTTP listener: bound before anything else, so that a taken port is said at once and plainly."""

import contextlib
import logging
import socket
import sys
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

# Clients that find no room in the kernel's queue see a connection refused instead of a 429.
_BACKLOG = 2048
STALL_SECONDS = 60.0
"""A client that takes nothing for this long is gone, even if its machine still answers."""


class ListenError(OSError):
    """The address cannot be listened on."""


def listen(host: str, port: int, stall_seconds: float = STALL_SECONDS) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    The kernel ends connections whose client takes nothing for `stall_seconds` (Linux, RFC 5482): a timer of ours for
    every write would cost as much as the write.

    Raises:
        ListenError: the port is taken, or the host is not this machine's.
    """
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=_BACKLOG)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another address with --host, or another port "
            "with --port (0 takes a free one)."
        ) from error
    if sys.platform == "linux":  # accepted sockets inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_seconds * 1000))
    return listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class HttpServer(uvicorn.Server):
    """uvicorn, stopped by `should_exit` alone: its own SIGTERM handler would close the listener while requests run."""

    def __init__(self, app: ASGIApp) -> None:
        # It warns of everyone who sends what is no HTTP, and so lets strangers fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=1,  # answers have been waited for; what is left has not sent its body
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield
