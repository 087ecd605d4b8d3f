"""Connections to replicas, and which of their headers reach a client."""

from functools import lru_cache
from typing import Final

import aiohttp
from yarl import URL

from moorage_api import names
from moorage_gateway.answers import Headers

_KEEP_ALIVE_SECONDS: Final = 4.0
"""Idle connections go before the replica closes them: uvicorn, which most engines use, does so after 5 s."""
_NOT_PASSED_BACK: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Hop-by-hop headers (RFC 9110, 7.6.1), and those that this server writes itself."""
_INTERNAL_PREFIX: Final = names.INTERNAL_HEADER_PREFIX.encode()


def new_session(connect_seconds: float, idle_seconds: float) -> aiohttp.ClientSession:
    """The client towards replicas: a kept connection for each request at once, nothing added, no redirect followed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("accept", "accept-encoding", "user-agent"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=idle_seconds),
    )


@lru_cache(maxsize=8192)
def url(address: str, path: str) -> URL:
    """Where a path of a replica is; parsed once."""
    return URL(f"http://{address}{path}", encoded=True)


def passed_back(answer: aiohttp.ClientResponse) -> Headers:
    """The headers of an answer that go on to the client."""
    named = answer.headers.get("connection", "").lower().encode()
    dropped = _NOT_PASSED_BACK.union(token.strip() for token in named.split(b",")) if named else _NOT_PASSED_BACK
    return [
        (lower, value)
        for name, value in answer.raw_headers
        if (lower := name.lower()) not in dropped and not lower.startswith(_INTERNAL_PREFIX)
    ]
