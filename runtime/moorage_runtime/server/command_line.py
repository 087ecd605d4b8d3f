"""The words of `moorage-runtime`'s command line, and what they come to."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from moorage_runtime import termination
from moorage_runtime.engine.plan import MOST_RUNNING
from moorage_runtime.group.place import DEFAULT_PORT, place_of
from moorage_runtime.server.options import (
    DEFAULT_MAX_RUNNING,
    Device,
    Dtype,
    EngineOptions,
    Options,
    Quantization,
    SchedulingPolicy,
    choices,
)

PROGRAM = "moorage-runtime"
_MIB = 2**20
_LAST_PORT = 65535
_EPILOG = """\
examples:
  moorage-runtime serve ./SmolLM2-135M-Instruct
  moorage-runtime serve ./model.gguf --served-name chat --context-length 4096 --max-running 16
  moorage-runtime serve ./model --tensor-parallel 2

  curl http://127.0.0.1:8000/v1/chat/completions -d '{"model": "chat", "stream": true,
       "messages": [{"role": "user", "content": "What is a harbour?"}]}'

SIGTERM (or Ctrl-C) lets running answers finish (see --drain-seconds), then exits 0; a second one ends them at once.
Exit codes: 0 told to stop and everything finished; 1 could not start, or the engine failed; 2 wrong arguments.
"""


def parser() -> argparse.ArgumentParser:
    """The command line of the whole program."""
    program = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Serve a large language model.",
        epilog="`%(prog)s serve --help` has options and examples. `moorage-fetch` brings a model to a folder.",
    )
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the model in a folder, or in a GGUF file, over OpenAI's API",
        description="Serve one model over OpenAI's API: chat and text completions, streamed or not.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument(
        "model", type=Path, metavar="MODEL", help="folder with safetensors or GGUF files, or a GGUF file"
    )
    _add_engine(serve.add_argument_group("how the engine computes"))
    _add_group(serve.add_argument_group("one model on several ranks (processes), in this pod or over several"))
    _add_server(serve.add_argument_group("how the server answers"))
    return program


def _add_engine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--context-length",
        type=_positive,
        metavar="N",
        help="tokens of prompt and answer together; less takes less memory (default: what the model was trained for)",
    )
    group.add_argument(
        "--max-running",
        type=_places,
        default=DEFAULT_MAX_RUNNING,
        metavar="N",
        help="requests computed together; more: more tokens per second in all, slower each (default: %(default)s)",
    )
    group.add_argument(
        "--scheduling-policy",
        choices=choices(SchedulingPolicy),
        help="who computes when not all can: the first come (FCFS, the default), the lowest `priority` of the requests "
        "(Priority), or short work first without being told (MLFQ)",
    )
    group.add_argument(
        "--quantization",
        choices=choices(Quantization),
        help="store the weights of a safetensors model in fewer bits: smaller and faster, a little less exact "
        "(default: as the checkpoint has them)",
    )
    group.add_argument(
        "--dtype",
        choices=choices(Dtype),
        help="type of weights and KV cache (default: what the checkpoint has and the machine computes well)",
    )
    group.add_argument("--device", choices=choices(Device), help="where to compute (default: a GPU where there is one)")
    group.add_argument(
        "--threads", type=_positive, metavar="N", help="compute threads (default: the processors that this may use)"
    )
    group.add_argument(
        "--kv-tokens",
        type=_positive,
        metavar="N",
        help="tokens that all requests together keep in memory (default: what the memory limit leaves)",
    )


def _add_group(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tensor-parallel",
        type=_positive,
        default=1,
        metavar="N",
        help="ranks that compute the model together, each a part of every layer (default: %(default)s)",
    )
    group.add_argument(
        "--pods",
        type=_positive,
        metavar="P",
        help="pods that they are in, N / P in each (default: LWS_GROUP_SIZE, else 1)",
    )
    group.add_argument(
        "--rank",
        type=_rank,
        metavar="R",
        help="the first rank of this pod; rank 0 leads and takes the requests (default: by LWS_WORKER_INDEX, else 0)",
    )
    group.add_argument(
        "--leader-address",
        metavar="HOST[:PORT]",
        help=f"of rank 0, in all pods alike (default: LWS_LEADER_ADDRESS; port {DEFAULT_PORT})",
    )


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--served-name", metavar="NAME", help='what clients put in "model"; default: MODEL\'s own name')
    group.add_argument(
        "--max-waiting",
        type=_positive,
        metavar="N",
        help="requests that may wait for a place before clients get 429 (default: 8 x --max-running)",
    )
    group.add_argument(
        "--request-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="end requests that take longer; clients may ask for less with `timeout` (default: no limit)",
    )
    group.add_argument(
        "--drain-seconds",
        type=_seconds,
        metavar="SECONDS",
        help="end answers that still run so long after SIGTERM, with what they have (default: let them finish)",
    )
    group.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")  # noqa: S104 - a pod
    group.add_argument("--port", type=_port, default=8000, help="port to listen on (default: 8000; 0 takes a free one)")
    group.add_argument(
        "--max-body-mib",
        type=_positive,
        default=4,
        metavar="N",
        help="largest request body in MiB; large ones are taken in one after the other, so many MiB at a time "
        "(default: 4)",
    )
    termination.add_flag(group)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _rank(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {value}")
    return value


def _places(text: str) -> int:
    value = _positive(text)
    if value > MOST_RUNNING:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_RUNNING}, not {value}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _port(text: str) -> int:
    value = _whole(text)
    if not 0 <= value <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {_LAST_PORT}, not {value}")
    return value


def options_of(parsed: argparse.Namespace, environment: Mapping[str, str] = MappingProxyType({})) -> Options:
    """What was asked for, with what follows from it.

    Raises:
        PlaceError: the options about ranks do not go together.
    """
    place = place_of(parsed.tensor_parallel, parsed.pods, parsed.rank, parsed.leader_address, environment)
    engine = EngineOptions(
        model=parsed.model,
        max_running=parsed.max_running,
        scheduling_policy=parsed.scheduling_policy,
        context_length=parsed.context_length,
        dtype=parsed.dtype,
        quantization=parsed.quantization,
        device=parsed.device,
        threads=parsed.threads,
        kv_tokens=parsed.kv_tokens,
        tensor_parallel=place.ranks if place else None,
        local_ranks=place.local_ranks if place else None,
        rank=place.first_rank if place else None,
        leader_address=str(place.leader) if place else None,
    )
    return Options(
        engine=engine,
        served_name=parsed.served_name or parsed.model.resolve().name.removesuffix(".gguf"),
        max_waiting=parsed.max_waiting or 8 * parsed.max_running,
        request_timeout=parsed.request_timeout,
        drain_seconds=parsed.drain_seconds,
        host=parsed.host,
        port=parsed.port,
        max_body=parsed.max_body_mib * _MIB,
        termination_log=parsed.termination_log,
    )
