"""Colours, bars and columns for a terminal; nothing but the text where it is none."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

_CODES: Final = {"green": "32", "red": "31", "yellow": "33", "cyan": "36", "grey": "90", "bold": "1"}
_FULL: Final = 100


@dataclass(frozen=True)
class Paint:
    """Puts colour on words, or not."""

    colour: bool = False

    @classmethod
    def on(cls, stream: IO[str]) -> "Paint":
        """Colour on a terminal only, and not where `NO_COLOR` is set (https://no-color.org)."""
        return cls(stream.isatty() and not os.environ.get("NO_COLOR"))

    def __call__(self, words: str, *kinds: str) -> str:
        """`words` in a colour, such as `green`, or `bold`."""
        if not self.colour or not words:
            return words
        return f"\x1b[{';'.join(_CODES[kind] for kind in kinds)}m{words}\x1b[0m"


def bar(percent: int, width: int = 20) -> str:
    """A share of 100 as a bar; what is not nothing is seen."""
    filled = max(int(percent > 0), percent * width // _FULL)
    return "█" * filled + "░" * (width - filled)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns as wide as their widest cell, as kubectl prints them."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def coloured_diff(lines: Sequence[str], paint: Paint) -> list[str]:
    """A unified diff with its usual colours."""
    colours = {"+": "green", "-": "red", "@": "cyan"}
    return [paint(line, colours[line[0]]) if line[:1] in colours else line for line in lines]


def print_lines(lines: Sequence[str]) -> None:
    """Print them, as one write."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
