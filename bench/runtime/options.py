"""What a person asked to be measured: flags, or variables of the environment with their names in capitals."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.runtime.cells import CELLS, QUICK, Cell
from bench.runtime.load import Timing
from bench.runtime.peers import CLASSES
from bench.runtime.result import OURS

_CHOICES = {
    "class": tuple(CLASSES),
    "cells": tuple(cell.name for cell in CELLS),
    "peers": tuple(dict.fromkeys(name for one in CLASSES.values() for name in one.servers if name != OURS)),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """A whole run takes about an hour, a quick one less than ten minutes."""

    classes: tuple[str, ...]
    cells: tuple[Cell, ...]
    peers: tuple[str, ...]
    rounds: int
    timing: Timing
    resume: bool


def read(argv: Sequence[str] | None, environ: Mapping[str, str] = os.environ) -> Options:
    """Parse; a variable is the default of the flag with its name."""
    asked = _parser(environ).parse_args(argv)
    names = asked.cells or (QUICK if asked.quick else _CHOICES["cells"])
    short = (2.0, 5.0) if asked.quick else (5.0, 25.0)
    return Options(
        classes=getattr(asked, "class") or _CHOICES["class"],
        cells=tuple(cell for cell in CELLS if cell.name in names),
        peers=asked.peers or _CHOICES["peers"],
        rounds=asked.rounds,
        timing=Timing(warm_up=asked.warm_up or short[0], window=asked.window or short[1]),
        resume=asked.resume,
    )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.runtime", description="The runtime beside its peers.")
    for flag, known in _CHOICES.items():
        help_ = f"of {', '.join(known)}; default: all"
        default = environ.get(flag.upper()) or None
        parser.add_argument(f"--{flag}", type=_choice(known), default=default, metavar="A,B", help=help_)
    rounds = environ.get("ROUNDS") or "3"
    parser.add_argument("--rounds", type=_at_least_one, default=rounds, help="default: 3")
    for flag, seconds in (("warm-up", 5), ("window", 25)):
        default = environ.get(flag.upper().replace("-", "_")) or None
        parser.add_argument(f"--{flag}", type=float, default=default, help=f"seconds; default: {seconds}")
    quick, resume = bool(environ.get("QUICK")), bool(environ.get("RESUME"))
    parser.add_argument("--quick", action="store_true", default=quick, help="three cells, short windows")
    parser.add_argument("--resume", action="store_true", default=resume, help="go on with the last run")
    return parser


def _choice(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        if not found or not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(known)}")
        return found

    return parse


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)
