"""Figures that tests show for the project's bars, printed together when the run is over, by `tests` and `e2e` alike."""

import re
from collections.abc import Callable
from typing import Any, Final

import pytest

Bar = Callable[..., None]
SHORT_ENOUGH: Final = 100
LINES: Final = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Start with none."""
    config.stash[LINES] = []


@pytest.fixture(scope="session")
def bar(pytestconfig: pytest.Config) -> Bar:
    """`bar("R13", broken=0, streams=50)` says `R13  broken=0 streams=50` at the end of the run; floats to 3 digits."""

    def record(name: str, **figures: float | str) -> None:
        shown = " ".join(f"{key}={_short(value)}" for key, value in figures.items())
        pytestconfig.stash[LINES].append(f"{name}  {shown}")

    return record


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was shown in a process of its own to the one that prints (pytest-xdist)."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["bars"] = session.config.stash[LINES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what such a process has shown; one that died has told nothing."""
    told: dict[str, list[str]] = getattr(node, "workeroutput", {})
    node.config.stash[LINES] += told.get("bars", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print them in the order of their names: `R2` before `R13`."""
    lines = config.stash[LINES]
    if lines:
        terminalreporter.section("bars")
        for line in sorted(lines, key=_natural):
            terminalreporter.write_line(line)


def _short(value: float | str) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < SHORT_ENOUGH else f"{value:.0f}"
    return str(value)


def _natural(line: str) -> tuple[str, int, str]:
    letters, digits, rest = re.split(r"(\d+|$)", line, maxsplit=1)
    return letters, int(digits or 0), rest
