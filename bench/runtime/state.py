"""What has been measured so far: one line of JSON for each window, so that an interrupted run can go on."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.runtime.answers import Sample
from bench.runtime.load import Timing


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One window of one server."""

    class_name: str
    cell: str
    round: int
    server: str
    sample: Sample
    rss_mib: float
    client_cpu: float
    """Share of a core that the clients took."""
    server_cpu: float
    """Cores that the server took."""


class State:
    """A file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def begin(self, timing: Timing) -> None:
        """A new run."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._append({"timing": asdict(timing)})

    def resume(self, timing: Timing) -> list[Measured]:
        """What an interrupted run measured; its windows must have been as long as these.

        Raises:
            SystemExit: they were not.
        """
        # A run that was killed may have left half a line.
        text = self._path.read_text().rpartition("\n")[0] + "\n"
        self._path.write_text(text)
        head, *lines = text.splitlines()
        before = Timing(**json.loads(head)["timing"])
        if before != timing:
            raise SystemExit(f"{self._path} was measured with {before}, not {timing}: resume with the same")
        return _last(_measured(json.loads(line)) for line in lines)

    def add(self, measured: Measured) -> None:
        """Keep a window."""
        self._append(asdict(measured))

    def _append(self, value: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(value) + "\n")


def latest(folder: Path) -> Path:
    """The state of the last run.

    Raises:
        SystemExit: there is none.
    """
    found = sorted(folder.glob("*.jsonl"))
    if not found:
        raise SystemExit(f"nothing to resume in {folder}")
    return found[-1]


def whole(measured: Iterable[Measured], servers: Sequence[str]) -> list[Measured]:
    """Those of groups (class, cell, round) that have every server; in half a group nothing can be compared."""
    groups: dict[tuple[str, str, int], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.class_name, one.cell, one.round), []).append(one)
    complete = [group for group in groups.values() if set(servers) <= {one.server for one in group}]
    return [one for group in complete for one in group]


def _last(measured: Iterable[Measured]) -> list[Measured]:
    """Each window once: half a group was measured again when its run was taken up."""
    return list({(one.class_name, one.cell, one.round, one.server): one for one in measured}.values())


def _measured(values: dict[str, Any]) -> Measured:
    return Measured(**{**values, "sample": Sample(**values["sample"])})
