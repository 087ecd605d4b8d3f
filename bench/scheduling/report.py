"""From what was seen to rows, and from rows to ratios."""

from collections.abc import Sequence
from statistics import mean, quantiles

from bench.scheduling.drive import Outcome

Row = dict[str, str | int | float]
_COMPARED = ("mean_s", "p95_s", "short_mean_s", "short_p95_s", "long_mean_s", "long_p95_s", "ttft_mean_s", "ttft_p95_s")


def row(policy: str, outcome: Outcome) -> Row:
    """Completion and first token of all, of short and of long jobs, in seconds after their arrival."""
    done = [one.done for one in outcome.seen]
    short = [one.done for one in outcome.seen if not one.job.is_long]
    long = [one.done for one in outcome.seen if one.job.is_long]
    first = [one.first for one in outcome.seen]
    figures = {"": done, "short_": short, "long_": long, "ttft_": first}
    made: Row = {"policy": policy, "jobs": len(done), "preemptions": outcome.preemptions}
    for name, values in figures.items():
        made[f"{name}mean_s"] = round(mean(values), 3)
        made[f"{name}p95_s"] = round(quantiles(values, n=20, method="inclusive")[-1], 3)
    return made


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """MLFQ's figures as shares of FCFS's: below 1 is sooner."""
    by_policy = {made["policy"]: made for made in rows}
    mlfq, fcfs = by_policy["MLFQ"], by_policy["FCFS"]
    return {name: round(float(mlfq[name]) / float(fcfs[name]), 3) for name in _COMPARED}


def table(rows: Sequence[Row]) -> str:
    """For people."""
    columns = ("policy", "jobs", "preemptions", *_COMPARED)
    lines = [columns, *[tuple(str(made[column]) for column in columns) for made in rows]]
    return "\n".join("  " + " ".join(f"{cell:>12}" for cell in line) for line in lines)
