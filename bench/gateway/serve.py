"""The gateway's own parts, with a table made here instead of by watches."""

import asyncio
import random
import sys

import uvloop

from moorage_gateway import table
from moorage_gateway.app import App
from moorage_gateway.draw import Draws
from moorage_gateway.figures import Book
from moorage_gateway.lines import Lines, Patience
from moorage_gateway.metrics import Metrics
from moorage_gateway.proxy import Proxy
from moorage_gateway.request import Limits
from moorage_gateway.scrape import Scraper
from moorage_gateway.server import public_server
from moorage_gateway.settings import Settings
from moorage_gateway.signal import Signal
from moorage_gateway.table import Model, Revision, Target
from moorage_gateway.targets import Targets
from moorage_gateway.upstream import new_session


def _table(addresses: list[str]) -> table.Table:
    targets = tuple(Target(address, address, address) for address in addresses)
    return table.build([Model("default", "chat", "chat", 0, "Serving", "", (Revision(1, 100, targets),))])


async def _serve(port: int, addresses: list[str]) -> None:
    settings = Settings(host="127.0.0.1", public_port=port)
    limits = Limits(settings.max_header_bytes, settings.max_body_bytes, settings.client_seconds)
    routes, targets, book = _table(addresses), Targets(), Book()
    metrics = Metrics(book, targets)
    patience = Patience(
        settings.hold_requests, settings.hold_seconds, settings.hold_stream_seconds, settings.hold_mib * 2**20
    )
    lines = Lines(lambda: routes, Signal(), book, patience)
    async with new_session(settings.connect_seconds, settings.idle_seconds) as session:
        app = App(lambda: routes, Proxy(session, targets, book, lines, Draws(random.random)), metrics, limits)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                Scraper(lambda: routes, session, targets, lambda table: book.keep(table.full.values())).run()
            )
            group.create_task(public_server(app, settings, limits).serve())


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2:]))
