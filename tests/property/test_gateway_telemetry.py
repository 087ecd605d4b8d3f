"""A reader that puts the lines together has the view that a fresh reader would get."""

import asyncio
import contextlib

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_gateway import table
from moorage_gateway.clock import Clock
from moorage_gateway.figures import Book
from moorage_gateway.signal import Signal
from moorage_gateway.table import Model, Revision, Target
from moorage_gateway.targets import Targets
from moorage_gateway.telemetry import Pace, Telemetry
from moorage_gateway.view import View

NAMES = ("chat", "code", "smol")


@st.composite
def tables(draw):
    models = []
    for name in draw(st.sets(st.sampled_from(NAMES))):
        sizes = draw(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 2)), max_size=3))
        revisions = (
            Revision(n, weight, tuple(Target(f"{name}-{n}-{p}", "pod", "h:1") for p in range(pods)))
            for n, (weight, pods) in enumerate(sizes, 1)
        )
        models.append(Model("team-a", name, name, 0, "Serving", "", tuple(revisions)))
    return table.build(models)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("table"), tables()),
        st.tuples(st.just("eject"), st.sampled_from([f"{name}-1-0" for name in NAMES])),
        st.tuples(st.just("recover"), st.sampled_from([f"{name}-1-0" for name in NAMES])),
        st.tuples(st.just("hold"), st.dictionaries(st.sampled_from([("team-a", name) for name in NAMES]), st.just(1))),
    ),
    max_size=12,
)


class Gateway:
    def __init__(self):
        self.table, self.targets, self.book, self.changes = table.EMPTY, Targets(), Book(), Signal()
        clock = Clock()
        view = View(lambda: self.table, self.book, self.targets, clock)
        self.telemetry = Telemetry("g", clock, view, self.changes, pace=Pace(tick=0.001, soonest=0, heartbeat=3600))

    def do(self, what, value):
        if what == "table":
            self.table = value
        elif what == "hold":
            self.book.held = value
        elif what == "eject":
            for _ in range(3):
                self.targets.failed(value, 0, connected=False)
        else:
            self.targets.succeeded(value)
        self.changes.tell()


class Reader:
    """Puts lines together."""

    def __init__(self):
        self.models, self.lines = {}, 0

    async def send(self, message):
        for text in message.get("body", b"").splitlines():
            line = orjson.loads(text)
            assert line["whole"] is (self.lines == 0)
            self.lines += 1
            self.models |= {f"{m['namespace']}/{m['deployment']}": m for m in line["models"]}
            for name in line["removed"]:
                del self.models[name]

    async def receive(self):
        await asyncio.Event().wait()


def _whole(telemetry):
    return {f"{m['namespace']}/{m['deployment']}": m for m in orjson.loads(telemetry.whole())["models"]}


async def _follow(changes):
    gateway, reader = Gateway(), Reader()
    watching = asyncio.create_task(gateway.telemetry.watch(reader.receive, reader.send))
    for change in changes:
        gateway.do(*change)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not reader.lines or reader.models != _whole(gateway.telemetry):  # noqa: ASYNC110 - another task
                    await asyncio.sleep(0)
        assert reader.models == _whole(gateway.telemetry)
    gateway.telemetry.close()
    await watching


@settings(max_examples=100, deadline=None)
@given(steps)
def test_lines_put_together_are_the_view(changes):
    asyncio.run(_follow(changes))
