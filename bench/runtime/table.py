"""The result for people: one block per class and cell, on standard error."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.runtime.result import Ratio

_HEAD = "server                tok/s  TTFT p50   p95 ms  ITL p50   p95 ms  RSS MiB  client   ratio"


def table(rows: Sequence[Mapping[str, Any]], ratios: Iterable[Ratio]) -> str:
    """Every cell's servers below each other; `ratio` is ours over theirs, with what it should be where it is not."""
    by_peer = {(ratio.class_name, ratio.cell, ratio.peer): ratio for ratio in ratios}
    lines: list[str] = []
    for class_name, cell in dict.fromkeys((row["class"], row["cell"]) for row in rows):
        mine = [row for row in rows if (row["class"], row["cell"]) == (class_name, cell)]
        lines += ["", f"{class_name}, {cell} ({mine[0]['clients']} clients, {mine[0]['prompt']} tokens in)", _HEAD]
        lines += [_line(row, by_peer.get((class_name, cell, row["server"]))) for row in mine]
    return "\n".join(lines)


def _line(row: Mapping[str, Any], ratio: Ratio | None) -> str:
    figures = (
        f"{row['server']:18}{row['tok_s']:9.1f}{row['ttft_p50_ms']:10.0f}{row['ttft_p95_ms']:9.0f}"
        f"{row['itl_p50_ms']:9.1f}{row['itl_p95_ms']:9.1f}{row['rss_mib']:9}{row['client_cpu']:8.1%}"
    )
    if ratio is None:
        return figures
    return figures + f"{ratio.value:8.2f}" + ("" if ratio.met else f"  (goal {ratio.goal})")
