"""Request smuggling: whatever a client sends, no replica sees a request that this gateway did not mean to send.

After each case the same connections carry an honest request, which must arrive as itself.
"""

import asyncio
import re

import pytest

POST = b"POST /v1/completions HTTP/1.1\r\n"
HOST = b"host: x\r\n"
BODY = b'{"model":"chat"}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"

CASES = {
    "length and chunked": POST + HOST + LENGTH + CHUNKED + b"\r\n" + CHUNKS + HIDDEN,
    "chunked and length": POST + HOST + CHUNKED + LENGTH + b"\r\n" + CHUNKS + HIDDEN,
    "length 0 and chunked": POST + HOST + b"content-length: 0\r\n" + CHUNKED + b"\r\n" + CHUNKS + HIDDEN,
    "two lengths": POST + HOST + LENGTH + b"content-length: 5\r\n\r\n" + BODY + HIDDEN,
    "two equal lengths": POST + HOST + LENGTH + LENGTH + b"\r\n" + BODY,
    "list of lengths": POST + HOST + b"content-length: 16, 16\r\n\r\n" + BODY,
    "negative length": POST + HOST + b"content-length: -1\r\n\r\n" + BODY,
    "signed length": POST + HOST + b"content-length: +16\r\n\r\n" + BODY,
    "hexadecimal length": POST + HOST + b"content-length: 0x10\r\n\r\n" + BODY,
    "overflowing length": POST + HOST + b"content-length: 18446744073709551632\r\n\r\n" + BODY,
    "length with a space before the colon": POST + HOST + b"content-length : 16\r\n\r\n" + BODY + HIDDEN,
    "length after a tab": POST + HOST + b"content-length:\t16\r\n\r\n" + BODY,
    "length with a null": POST + HOST + b"content-length: 16\x00\r\n\r\n" + BODY,
    "chunked with a tab": POST + HOST + b"transfer-encoding:\tchunked\r\n\r\n" + CHUNKS,
    "chunked in quotes": POST + HOST + b'transfer-encoding: "chunked"\r\n\r\n' + CHUNKS + HIDDEN,
    "xchunked": POST + HOST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS + HIDDEN,
    "chunked, identity": POST + HOST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNKS + HIDDEN,
    "identity": POST + HOST + b"transfer-encoding: identity\r\n" + LENGTH + b"\r\n" + BODY + HIDDEN,
    "gzip, chunked": POST + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "two encodings": POST + HOST + CHUNKED + b"transfer-encoding: identity\r\n\r\n" + CHUNKS + HIDDEN,
    "chunked with a space before the colon": POST + HOST + b"transfer-encoding : chunked\r\n\r\n" + CHUNKS + HIDDEN,
    "chunked with a vertical tab": POST + HOST + b"transfer-encoding: \x0bchunked\r\n\r\n" + CHUNKS + HIDDEN,
    "folded header": POST + HOST + b"x: 1\r\n transfer-encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "folded encoding": POST + HOST + b"transfer-encoding:\r\n chunked\r\n\r\n" + CHUNKS + HIDDEN,
    "bare line feeds": b"POST /v1/completions HTTP/1.1\nhost: x\n" + b"content-length: 16\n\n" + BODY + HIDDEN,
    "bare carriage return in a value": POST + HOST + b"x: a\rtransfer-encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "line feed in a value": POST + HOST + b"x: a\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "null in a name": POST + HOST + b"x\x00y: 1\r\n" + LENGTH + b"\r\n" + BODY,
    "header without a colon": POST + HOST + b"transfer-encoding chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "header without a name": POST + HOST + b": chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "chunk size with a sign": POST + HOST + CHUNKED + b"\r\n+10\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunk size with 0x": POST + HOST + CHUNKED + b"\r\n0x10\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunk size that overflows": POST
    + HOST
    + CHUNKED
    + b"\r\n10000000000000010\r\n"
    + BODY
    + b"\r\n0\r\n\r\n"
    + HIDDEN,
    "chunk longer than it says": POST + HOST + CHUNKED + b"\r\n4\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunk extension with a line feed": POST + HOST + CHUNKED + b"\r\n10;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunk ended by a line feed": POST + HOST + CHUNKED + b"\r\n10\n" + BODY + b"\n0\n\n" + HIDDEN,
    "trailer that frames": POST + HOST + CHUNKED + b"\r\n10\r\n" + BODY + b"\r\n0\r\ncontent-length: 99\r\n\r\n",
    "trailer of ours": POST + HOST + CHUNKED + b"\r\n10\r\n" + BODY + b"\r\n0\r\nx-moorage-model: other\r\n\r\n",
    "absolute URL": b"POST http://elsewhere/v1/completions HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "URL with a line break": b"POST /v1/completions%0d%0aevil:1 HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "path that climbs": b"POST /v1/../hidden HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "HTTP/1.0 with chunks": b"POST /v1/completions HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n" + CHUNKS + HIDDEN,
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "upgrade to h2c": POST
    + HOST
    + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    + LENGTH
    + b"\r\n"
    + BODY,
    "upgrade to websocket": b"GET /v1/models HTTP/1.1\r\n"
    + HOST
    + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "body that follows an upgrade": POST
    + HOST
    + b"connection: upgrade\r\nupgrade: h2c\r\n"
    + LENGTH
    + b"\r\n"
    + HIDDEN,
    "CONNECT": b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "body on a GET": b"GET /v1/models HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "pipelined": POST + HOST + LENGTH + b"\r\n" + BODY + HIDDEN,
    "connection names a header": POST + HOST + b"connection: content-length\r\n" + LENGTH + b"\r\n" + BODY,
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
}


async def _send(gateway, data: bytes) -> bytes:
    """Send, end the sending side's part with a request to close, and read what there is."""
    reader, writer = await gateway.connect()
    writer.write(data + b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("case", CASES)
async def test_a_replica_sees_only_whole_requests_that_were_meant(gateway, serve, make_replica, ask, case):
    replica = await make_replica()
    serve(replica)
    await ask()  # a kept connection for the case to hide something on
    replica.seen.clear()
    await _send(gateway, CASES[case])
    honest = b'{"model":"chat","honest":true}'
    reply = await ask(honest)
    assert (reply.status, reply.body) == (200, b'{"object":"chat.completion"}')
    *smuggled, last = replica.seen
    assert last.body == honest
    assert len(smuggled) <= 1
    for seen in (*smuggled, last):
        assert seen.line == f"POST {'/v1/completions' if seen is not last else '/v1/chat/completions'} HTTP/1.1"
        assert seen.body in (BODY, honest)
        assert {name for name, _ in seen.headers} == {"host", "content-type", "content-length", "x-moorage-model"}
        assert seen.header("x-moorage-model") == ["chat"]
        assert seen.header("content-length") == [str(len(seen.body))]


@pytest.mark.parametrize(
    "case",
    ["length and chunked", "two lengths", "negative length", "garbage", "header without a colon", "null in a name"],
)
async def test_what_is_no_valid_http_is_400_and_the_connection_closes(gateway, case):
    answer = await _send(gateway, CASES[case])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer
    assert b'"type":"invalid_request_error"' in answer


@pytest.mark.parametrize("case", ["upgrade to h2c", "upgrade to websocket", "body that follows an upgrade", "CONNECT"])
async def test_an_upgrade_is_refused_with_what_to_do_and_ends_the_connection(gateway, case):
    answer = await _send(gateway, CASES[case])
    assert re.findall(rb"HTTP/1\.1 \d+", answer) == [b"HTTP/1.1 400"]
    assert b"set your client to HTTP/1.1" in answer
