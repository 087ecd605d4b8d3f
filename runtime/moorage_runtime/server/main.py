"""`moorage-runtime`: serve one model over OpenAI's API."""

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from moorage_runtime import termination
from moorage_runtime.server.engine_process import engine_command
from moorage_runtime.server.listener import ListenError, listen
from moorage_runtime.server.model_card import ModelCard, ModelCardError, load_card
from moorage_runtime.server.options import Options
from moorage_runtime.server.server import Server

_MIB = 2**20
_PROGRAM = "moorage-runtime"
_EPILOG = """\
examples:
  moorage-runtime serve ./SmolLM2-135M-Instruct
  moorage-runtime serve ./model.gguf --served-name chat --context-length 4096 --max-running 16

  curl http://127.0.0.1:8000/v1/chat/completions -d '{"model": "chat", "stream": true,
       "messages": [{"role": "user", "content": "What is a harbour?"}]}'

SIGTERM (or Ctrl-C) lets running answers finish, then exits 0; a second one ends them at once.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = _options(_parser().parse_args(arguments))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        card = load_card(options.model)
        listener = listen(options.host, options.port)
    except ModelCardError as error:
        termination.report_failure(options.termination_log, _PROGRAM, "UnsupportedModel", str(error))
        return 1
    except ListenError as error:
        termination.report_failure(options.termination_log, _PROGRAM, "EngineFailed", str(error))
        return 1
    command = engine_command(
        str(options.model),
        context_length=options.context_length,
        max_running=options.max_running,
        dtype=options.dtype,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, listener:
        return runner.run(_serve(options, listener, card, command))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Serve a large language model.",
        epilog="`%(prog)s serve --help` has options and examples. `moorage-fetch` brings a model to a folder.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the model in a folder over OpenAI's API",
        description="Serve one model over OpenAI's API: chat and text completions, streamed or not.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(serve)
    return parser


def _add_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "model", type=Path, metavar="MODEL", help="folder with safetensors or GGUF files, or a GGUF file"
    )
    serve.add_argument("--served-name", metavar="NAME", help='what clients put in "model"; default: MODEL\'s own name')
    serve.add_argument(
        "--context-length",
        type=_positive,
        metavar="N",
        help="tokens of prompt and answer together; less takes less memory (default: what the model was trained for)",
    )
    serve.add_argument(
        "--max-running", type=_positive, default=16, metavar="N", help="requests computed together (default: 16)"
    )
    serve.add_argument(
        "--max-waiting",
        type=_positive,
        metavar="N",
        help="requests that may wait for a place before clients get 429 (default: 8 x --max-running)",
    )
    serve.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="type of weights and KV cache (default: what the checkpoint has and the machine computes well)",
    )
    serve.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")  # noqa: S104 - a pod
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000; 0 takes a free one)")
    serve.add_argument(
        "--max-body-mib", type=_positive, default=16, metavar="N", help="largest request body in MiB (default: 16)"
    )
    serve.add_argument(
        "--termination-log",
        type=Path,
        default=termination.DEFAULT_PATH,
        metavar="FILE",
        help="where Kubernetes reads why the container ended; written if it exists (default: %(default)s)",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _options(parsed: argparse.Namespace) -> Options:
    return Options(
        model=parsed.model,
        served_name=parsed.served_name or parsed.model.resolve().stem,
        context_length=parsed.context_length,
        max_running=parsed.max_running,
        max_waiting=parsed.max_waiting or 8 * parsed.max_running,
        dtype=parsed.dtype,
        host=parsed.host,
        port=parsed.port,
        max_body=parsed.max_body_mib * _MIB,
        termination_log=parsed.termination_log,
    )


async def _serve(options: Options, listener: socket.socket, card: ModelCard, command: Sequence[str]) -> int:
    # `Server` makes events of the running loop, so it is built here.
    return await Server(options, card, command).run(listener)


if __name__ == "__main__":
    sys.exit(main())
