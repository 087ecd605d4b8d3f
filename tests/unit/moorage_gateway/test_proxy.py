"""Requests and answers between a client and replicas, over real sockets."""

import asyncio
import random

import aiohttp
import pytest

EVENT = b'data: {"choices":[{"delta":{"content":"h\xc3\xa9llo"}}]}\n\n'


async def test_a_whole_answer_passes_untouched_with_its_status_and_headers(serve, make_replica, ask):
    async def behave(connection, _seen):
        await connection.answer(
            b'{"a": 1 }', status="429 Too Many Requests", headers="retry-after: 7\r\nx-other: y\r\n"
        )

    replica = await make_replica(behave)
    serve(replica)
    answer = await ask()
    assert (answer.status, answer.body) == (429, b'{"a": 1 }')
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-other"] == "y"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_body_reaches_the_replica_byte_for_byte(serve, make_replica, ask, path):
    replica = await make_replica()
    serve(replica)
    body = b'{ "model":"chat",\n"messages":[{"content":"\\u00e9\xc3\xa9"}],"x":1e5,"x":2 }'
    await ask(body, path=path)
    assert replica.seen[0].body == body
    assert replica.seen[0].line == f"POST {path} HTTP/1.1"


async def test_a_chunked_request_body_arrives_whole(serve, make_replica, gateway, http):
    async def parts():
        yield b'{"model":'
        await asyncio.sleep(0)
        yield b'"chat"}'

    replica = await make_replica()
    serve(replica)
    async with http.post(f"{gateway.url}/v1/chat/completions", data=parts()) as answer:
        assert answer.status == 200
    assert replica.seen[0].body == b'{"model":"chat"}'
    assert replica.seen[0].header("content-length") == ["16"]


async def test_a_stream_passes_byte_for_byte_however_it_is_cut(serve, make_replica, ask):
    chance = random.Random(7)
    whole = b"".join(b": ping\n\n" if chance.random() < 0.1 else EVENT for _ in range(500)) + b"data: [DONE]\n\n"

    async def behave(connection, _seen):
        await connection.start_stream()
        rest = whole
        while rest:
            size = chance.choice([1, 2, 7, 100, 5000])
            await connection.chunk(rest[:size])
            rest = rest[size:]
        await connection.end_stream()

    serve(await make_replica(behave))
    answer = await ask()
    assert answer.body == whole
    assert answer.headers["content-type"] == "text/event-stream"


async def test_tokens_reach_the_client_before_the_stream_ends(serve, make_replica, gateway, http):
    go_on = asyncio.Event()

    async def behave(connection, _seen):
        await connection.start_stream()
        await connection.chunk(EVENT)
        await go_on.wait()
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end_stream()

    serve(await make_replica(behave))
    async with http.post(f"{gateway.url}/v1/chat/completions", json={"model": "chat", "stream": True}) as answer:
        assert await answer.content.readany() == EVENT
        go_on.set()
        assert await answer.read() == b"data: [DONE]\n\n"


async def test_connections_to_replicas_are_kept(serve, make_replica, ask):
    replica = await make_replica()
    serve(replica)
    for _ in range(20):
        await ask()
    assert (len(replica.seen), replica.connections) == (20, 1)


async def test_the_replica_learns_the_name_that_the_client_used(serve, make_replica, ask):
    replica = await make_replica()
    serve(replica)
    await ask({"model": "team-a/chat"})
    assert replica.seen[0].header("x-moorage-model") == ["team-a/chat"]


async def test_of_the_clients_headers_only_tracing_goes_on(serve, make_replica, ask):
    replica = await make_replica()
    serve(replica)
    await ask(
        headers={
            "x-moorage-model": "other",
            "X-Moorage-Load": "running=0,waiting=0",
            "authorization": "Bearer secret",
            "cookie": "a=b",
            "connection": "x-request-id",
            "te": "trailers",
            "x-request-id": "42",
            "traceparent": "00-1-2-01",
        }
    )
    got = dict(replica.seen[0].headers)
    assert got.pop("host").startswith("127.0.0.1:")
    assert got == {
        "content-type": "application/json",
        "content-length": "17",
        "x-moorage-model": "chat",
        "x-request-id": "42",
        "traceparent": "00-1-2-01",
    }


async def test_of_the_answers_headers_hop_by_hop_and_internal_ones_stay_here(serve, make_replica, ask):
    async def behave(connection, _seen):
        extra = (
            "x-moorage-load: running=3,waiting=1\r\nX-Moorage-Other: 1\r\nserver: engine\r\nkeep-alive: timeout=5\r\n"
        )
        named = "connection: keep-alive, x-mine\r\nx-mine: 1\r\nproxy-authenticate: Basic\r\nx-yours: 2\r\n"
        await connection.answer(b"{}", headers=extra + named)

    serve(await make_replica(behave))
    answer = await ask()
    assert {name.lower() for name in answer.headers} == {"content-type", "content-length", "date", "x-yours"}


async def test_a_redirect_is_passed_on_and_never_followed(serve, make_replica, gateway, http):
    async def behave(connection, _seen):
        await connection.answer(
            b"{}", status="307 Temporary Redirect", headers=f"location: http://x{elsewhere.port}/\r\n"
        )

    elsewhere = await make_replica()
    serve(await make_replica(behave))
    url = f"{gateway.url}/v1/completions"
    async with http.post(url, json={"model": "chat"}, allow_redirects=False) as answer:
        assert answer.status == 307
    assert elsewhere.connections == 0


async def test_the_load_that_an_answer_reports_counts(serve, make_replica, ask, gateway):
    async def behave(connection, _seen):
        await connection.answer(b"{}", headers="x-moorage-load: running=4,waiting=2\r\n")

    replica = await make_replica(behave)
    serve(replica)
    await ask()
    assert gateway.targets.load == {replica.name: 5}  # six there, of which one was ours and is over


async def test_requests_go_to_the_replica_with_the_least_load(serve, make_replica, ask, until):
    hold = asyncio.Event()

    async def slow(connection, _seen):
        await hold.wait()
        await connection.answer(b"{}")

    replicas = [await make_replica(slow) for _ in range(3)]
    serve(*replicas)
    asking = [asyncio.create_task(ask()) for _ in range(9)]
    await until(lambda: sum(len(replica.seen) for replica in replicas) == 9)
    assert [len(replica.seen) for replica in replicas] == [3, 3, 3]
    hold.set()
    await asyncio.gather(*asking)


# ── failures before the first byte ─────────────────────────────────────────────────────────────────────────────────


async def _die(connection, _seen):
    connection.die()


async def _die_in_head(connection, _seen):
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-le")
    connection.die()


async def _die_in_body(connection, _seen):
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    connection.die()


async def _die_before_token(connection, _seen):
    await connection.start_stream()
    connection.die()


async def _drain(connection, _seen):
    await connection.answer(b'{"error":{"code":"draining"}}', status="503 Service Unavailable")


async def _bad_gateway(connection, _seen):
    await connection.answer(b"{}", status="502 Bad Gateway")


async def _no_http(connection, _seen):
    await connection.send(b"SSH-2.0-OpenSSH\r\n\r\n")
    connection.die()


@pytest.mark.parametrize(
    "failure", [_die, _die_in_head, _die_in_body, _die_before_token, _drain, _bad_gateway, _no_http]
)
async def test_a_failure_before_the_first_byte_is_tried_once_more_elsewhere(serve, make_replica, ask, gateway, failure):
    bad, good = await make_replica(failure), await make_replica()
    serve(bad, good)
    gateway.targets.report(good.name, 5)  # so that the bad one comes first
    answer = await ask()
    assert (answer.status, answer.body) == (200, b'{"object":"chat.completion"}')
    assert (len(bad.seen), len(good.seen)) == (1, 1)


async def test_a_replica_that_refuses_connections_costs_no_request(serve, make_replica, ask, gateway):
    gone, good = await make_replica(), await make_replica()
    await gone.stop()
    serve(gone, good)
    gateway.targets.report(good.name, 5)
    assert (await ask()).status == 200


async def test_there_is_no_third_try(serve, make_replica, ask, gateway):
    replicas = [await make_replica(_die) for _ in range(4)]
    serve(*replicas)
    answer = await ask()
    assert answer.status == 502
    assert sum(len(replica.seen) for replica in replicas) == 2
    assert answer.json() == {
        "error": {
            "message": "The replica of `team-a/chat` that served this request closed the connection before its answer "
            "was complete.",
            "type": "server_error",
            "param": None,
            "code": "replica_failed",
        }
    }


async def test_a_refusal_of_every_replica_reaches_the_client_as_it_is(serve, make_replica, ask):
    serve(await make_replica(_drain), await make_replica(_drain))
    answer = await ask()
    assert (answer.status, answer.body) == (503, b'{"error":{"code":"draining"}}')


@pytest.mark.parametrize("status", ["400 Bad Request", "429 Too Many Requests", "500 Internal Server Error"])
async def test_other_errors_of_a_replica_are_answers(serve, make_replica, ask, status):
    async def behave(connection, _seen):
        await connection.answer(b'{"error":{}}', status=status)

    replicas = [await make_replica(behave) for _ in range(2)]
    serve(*replicas)
    assert (await ask()).status == int(status[:3])
    assert sum(len(replica.seen) for replica in replicas) == 1


async def test_the_only_replica_is_asked_again_when_it_closed_a_kept_connection(serve, make_replica, ask):
    deaths = []

    async def behave(connection, _seen):
        if len(replica.seen) == 2:
            deaths.append(1)
            connection.die()
        else:
            await connection.answer(b"{}")

    replica = await make_replica(behave)
    serve(replica)
    assert [(await ask()).status for _ in range(3)] == [200, 200, 200]
    assert deaths == [1]


# ── failures after the first byte ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("torn", [b"", b'data: {"half'])
async def test_a_stream_that_dies_in_the_middle_ends_with_an_error_event(serve, make_replica, ask, torn):
    async def behave(connection, _seen):
        await connection.start_stream()
        await connection.chunk(EVENT + torn)
        connection.die()

    bad, other = await make_replica(behave), await make_replica(behave)
    serve(bad, other)
    answer = await ask()
    *events, last, end = answer.body.split(b"\n\n")
    assert events == [EVENT.rstrip()] + ([torn] if torn else [])
    assert last.startswith(b'data: {"error":{"message":"The replica of `team-a/chat` that served this request closed')
    assert end == b""
    assert len(bad.seen) + len(other.seen) == 1  # nothing is sent twice


async def test_a_long_answer_that_dies_in_the_middle_is_not_passed_off_as_whole(serve, make_replica, gateway, http):
    async def behave(connection, _seen):
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 3_000_000)
        connection.die()

    serve(await make_replica(behave))
    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.post(f"{gateway.url}/v1/completions", json={"model": "chat"}) as answer:
            await answer.read()


# ── clients that go away ───────────────────────────────────────────────────────────────────────────────────────────


async def _hang_up_after(gateway, *, expect: bytes) -> None:
    reader, writer = await gateway.connect()
    body = b'{"model":"chat","stream":true}'
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    if expect:
        await reader.readuntil(expect)
    else:
        await writer.drain()
    return writer


@pytest.mark.parametrize("in_stream", [True, False])
async def test_the_replica_is_told_at_once_when_the_client_goes(serve, make_replica, gateway, until, in_stream):
    left = asyncio.Event()

    async def behave(connection, _seen):
        if in_stream:
            await connection.start_stream()
            await connection.chunk(EVENT)
        await connection.closed_by_peer()
        left.set()

    replica = await make_replica(behave)
    serve(replica)
    writer = await _hang_up_after(gateway, expect=b"\n\n\r\n" if in_stream else b"")
    await until(lambda: len(replica.seen) == 1)
    writer.transport.abort()
    async with asyncio.timeout(20):
        await left.wait()
    await until(lambda: gateway.targets.load == {replica.name: 0})
    labels = {"namespace": "team-a", "deployment": "chat", "revision": "1"}
    assert gateway.figure("moorage_gateway_errors_total", kind="client_gone", **labels) == 1
    assert len(replica.seen) == 1


async def test_a_slow_client_does_not_fill_memory(serve, make_replica, gateway, until):
    sent = 0

    async def behave(connection, _seen):
        nonlocal sent
        await connection.start_stream()
        while True:
            await connection.chunk(b"x" * 65536)
            sent += 65536

    serve(await make_replica(behave))
    writer = await _hang_up_after(gateway, expect=b"\r\n\r\n")

    async def stalled() -> None:
        before = -1
        while before != sent:
            before = sent
            for _ in range(200):
                await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await stalled()
    assert sent < 64 * 2**20
    writer.transport.abort()


# ── figures ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_request_counts_once_with_its_revision(serve, make_replica, ask, gateway):
    async def behave(connection, _seen):
        await connection.start_stream()
        await connection.chunk(EVENT)
        await connection.end_stream()

    serve(await make_replica(behave))
    for _ in range(3):
        await ask()
    labels = {"namespace": "team-a", "deployment": "chat", "revision": "1"}
    assert gateway.figure("moorage_gateway_requests_total", code="200", **labels) == 3
    assert gateway.figure("moorage_gateway_time_to_first_token_seconds_count", **labels) == 3
    assert gateway.figure("moorage_gateway_request_duration_seconds_count", **labels) == 3
    assert gateway.figure("moorage_gateway_requests_in_flight", **labels) == 0
