"""Clients as the world has them: most behave, some leave, some stop reading, some send nonsense."""

import asyncio
import json
import socket
import struct

PATH = b"/v1/completions"
# Few, because the tokenizer remembers thousands of words: memory that would look like a leak.
WORDS = ("harbour ", "ship ", "tide ", "quay ", "anchor ", "mole ")


async def connect(port, receive_buffer=None):
    """A connection; with `receive_buffer`, one that soon makes its peer wait."""
    connection = socket.socket()
    connection.setblocking(False)  # noqa: FBT003 - the standard library's
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=connection, limit=2**12)


def request(body):
    data = json.dumps(body).encode()
    head = b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % (PATH, len(data)) + data


def body(random, **more):
    """What most clients ask for."""
    prompt = "".join(random.choice(WORDS) for _ in range(random.randint(1, 8)))
    return {"model": "echo", "prompt": prompt, "n": random.choice((1, 1, 1, 2, 3)), "max_tokens": 40} | more


async def some(reader):
    data = await reader.read(4096)
    assert data, "the stream was cut"
    return data


async def patient(random, reader, writer):
    """Reads a whole answer, to the last byte."""
    stream = random.random() < 0.7
    writer.write(request(body(random, stream=stream)))
    if not stream:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        assert len(await reader.readexactly(length)) == length
        return
    head = await reader.readuntil(b"\r\n\r\n")
    tail = b""
    while b" 200 " in head and b"data: [DONE]" not in tail:
        tail = tail[-20:] + await some(reader)


async def leaver(random, reader, writer):
    """Is gone after a few bytes of its stream, politely or not."""
    writer.write(request(body(random, stream=True, ignore_eos=True, max_tokens=400)))
    for _ in range(random.randint(0, 6)):
        await reader.read(100)
    if random.random() < 0.5:
        linger = struct.pack("ii", 1, 0)  # a reset instead of an end
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def impatient(random, reader, writer):
    """Leaves before its answer in one piece is there."""
    writer.write(request(body(random, ignore_eos=True, max_tokens=400)))
    await writer.drain()
    await asyncio.sleep(random.random() / 50)


async def slow(random, reader, writer):
    """Reads a little, now and then; not to the end."""
    writer.write(request(body(random, stream=True, ignore_eos=True, max_tokens=200)))
    for _ in range(20):
        await reader.read(20)
        await asyncio.sleep(random.random() / 100)


async def half_closed(random, reader, writer):
    """Says that nothing more will come, perhaps in the middle of its request, and reads what there is."""
    data = request(body(random, stream=random.random() < 0.5))
    writer.write(data[: random.choice((len(data), random.randrange(len(data))))])
    writer.write_eof()
    await reader.read()


async def babbler(random, reader, writer):
    """Sends what is no HTTP at all."""
    writer.write(random.randbytes(random.randint(1, 300)) + b"\r\n\r\n")
    writer.write_eof()
    await reader.read()


async def muddler(random, reader, writer):
    """Sends HTTP with a body that is none of the API's."""
    good = json.dumps(body(random)).encode()
    broken = random.choice(
        (
            good[: random.randrange(len(good))],
            random.randbytes(50),
            json.dumps(body(random, temperature="hot")).encode(),
            json.dumps(body(random, model="other")).encode(),
            json.dumps(body(random, prompt="x " * 3000)).encode(),
            b"[" * 2000,
        )
    )
    writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (PATH, len(broken), broken))
    status = (await reader.readuntil(b"\r\n\r\n")).split()[1]
    assert status in (b"400", b"404"), status


async def toucher(random, reader, writer):
    """Connects, and leaves."""


KINDS = (patient, patient, patient, leaver, leaver, impatient, slow, half_closed, babbler, muddler, toucher)


async def visit(random, port):
    """One client of any kind, from its connection to its end."""
    reader, writer = await connect(port, random.choice((None, None, 2048)))
    try:
        await random.choice(KINDS)(random, reader, writer)
    except ConnectionError:
        pass  # what a client that misbehaves may get
    finally:
        writer.close()
