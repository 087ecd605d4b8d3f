"""`moorage-runtime`: serve one model over OpenAI's API."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence

import uvloop

from moorage_runtime import termination
from moorage_runtime.group.place import PlaceError
from moorage_runtime.server.command_line import PROGRAM, options_of, parser
from moorage_runtime.server.engine_process import engine_command
from moorage_runtime.server.listener import ListenError, listen
from moorage_runtime.server.model_card import ModelCard, ModelCardError, load_card
from moorage_runtime.server.options import Options
from moorage_runtime.server.server import Server


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    program = parser()
    try:
        options = options_of(program.parse_args(arguments), os.environ)
    except PlaceError as error:
        program.error(str(error))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        card = load_card(options.engine.model)
        listener = listen(options.host, options.port)
    except ModelCardError as error:
        termination.report_failure(options.termination_log, PROGRAM, "UnsupportedModel", str(error))
        return 1
    except ListenError as error:
        termination.report_failure(options.termination_log, PROGRAM, "EngineFailed", str(error))
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, listener:
        return runner.run(_serve(options, listener, card))


async def _serve(options: Options, listener: socket.socket, card: ModelCard) -> int:
    # `Server` makes events of the running loop, so it is built here.
    return await Server(options, card, engine_command(options.engine)).run(listener)


if __name__ == "__main__":
    sys.exit(main())
