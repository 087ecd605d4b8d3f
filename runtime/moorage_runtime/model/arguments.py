"""The command line of an engine's process, and of the processes of further ranks that it starts."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from moorage_runtime.engine import policy
from moorage_runtime.group.place import Address, Place
from moorage_runtime.group.siblings import Siblings
from moorage_runtime.model.device import Device
from moorage_runtime.model.quantized import Quantization
from moorage_runtime.model.settings import Settings

MODULE = "moorage_runtime.model.process"


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line, parsed."""

    settings: Settings
    socket: str | None
    """Where the API process listens; a rank that was started by another one has none."""
    rank: int
    place: Place | None
    """None: this process computes the whole model."""
    memory: int | None
    """File descriptor of the memory that all ranks of the group share."""
    given: Mapping[str, Any]
    """The options by their names."""


def parse(argv: list[str] | None) -> Asked:
    """Read a command line; wrong ones end the process."""
    given = vars(_parser().parse_args(argv))
    names = Settings.__dataclass_fields__
    settings = Settings(**{name: value for name, value in given.items() if name in names})
    ranks, rank, local = given["tensor_parallel"], given["rank"], given["local_ranks"]
    place = None
    if ranks > 1:
        place = Place(ranks, rank // local * local, local, Address.parse(given["leader_address"]))
    return Asked(settings, given["socket"], rank, place, given["memory_fd"], given)


def start_siblings(siblings: Siblings, asked: Asked, first: int, leader: Address, memory: int | None) -> None:
    """Start the processes of this pod's other ranks. They end with this one.

    Args:
        siblings: Where they are kept.
        asked: The command line of this process, of which theirs is made.
        first: The rank of this process.
        leader: Where they find rank 0.
        memory: File descriptor of the memory that all ranks share.
    """
    assert asked.place is not None  # noqa: S101 - for the type checker: only groups have siblings
    own = {"socket": None, "leader_address": leader, "memory_fd": memory}
    for rank in range(first + 1, first + asked.place.local_ranks):
        command = [sys.executable, "-m", MODULE, *_words({**asked.given, **own, "rank": rank})]
        siblings.start(rank, command, [] if memory is None else [memory])


def _words(options: Mapping[str, Any]) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None)
    return [word for pair in pairs for word in pair]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=MODULE, description="The engine of moorage-runtime.")
    parser.add_argument("--model", type=Path, required=True, help="folder with safetensors, or a GGUF file")
    parser.add_argument("--socket", help="ZeroMQ address that the API process has bound")
    parser.add_argument("--max-running", type=int, default=64, help="requests computed together; default: 64")
    parser.add_argument("--context-length", type=int, help="tokens of a request; default: the model's")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: the checkpoint's")
    parser.add_argument("--quantization", choices=get_args(Quantization), help="round the weights as they are loaded")
    parser.add_argument("--device", choices=get_args(Device), help="default: a GPU where there is one")
    parser.add_argument("--threads", type=int, help="compute threads; default: the control group's quota")
    parser.add_argument("--kv-tokens", type=int, help="size of the KV cache; default: what fits the memory limit")
    parser.add_argument("--scheduling-policy", choices=policy.NAMES, default="FCFS", help="default: %(default)s")
    group = parser.add_argument_group("several ranks that compute one model")
    group.add_argument("--tensor-parallel", type=int, default=1, help="ranks of the group")
    group.add_argument("--local-ranks", type=int, default=1, help="of them in this pod")
    group.add_argument("--rank", type=int, default=0, help="this process's")
    group.add_argument("--leader-address", default="127.0.0.1:0", help="where rank 0 listens")
    group.add_argument("--memory-fd", type=int, help="inherited memory that all ranks share")
    return parser
