"""What every gateway has in its table for one model, from its own telemetry, at each change.

    python -m e2e.routed NAMESPACE/NAME URL...      # until it is ended; URL: http://POD:8081/telemetry?watch

One line of JSON for each change, so that a test sees what no look once in a while would.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from e2e.kit import Kit
from e2e.stack import GATEWAY_SERVICE, ROOT, SYSTEM_NAMESPACE
from e2e.waiting import eventually

SILENCE_SECONDS: Final = 15.0
"""A gateway tells something every few seconds, if only that nothing has changed."""


@dataclass(frozen=True)
class View:
    """One gateway's table for the model."""

    at: float
    gateway: str
    revisions: list[tuple[int, int, int]]
    """Number, weight, and how many replicas requests can be sent to."""

    @property
    def weights(self) -> dict[int, int]:
        """Revision -> share of requests."""
        return {number: weight for number, weight, _ in self.revisions}

    @property
    def targets(self) -> dict[int, int]:
        """Revision -> replicas in the table."""
        return {number: targets for number, _, targets in self.revisions}

    @property
    def routable(self) -> int:
        """How many replicas get requests."""
        return sum(targets for _, weight, targets in self.revisions if weight)


@dataclass
class Tables:
    """What all gateways told, in that order."""

    gateways: int
    views: list[View] = field(default_factory=list)

    def until(self, accept: Callable[[View], bool], since: float = 0, seconds: float = 300) -> float:
        """Wait until each gateway has told, after `since`, what is accepted; return when the last one first did."""

        def look() -> dict[str, float]:
            return {one.gateway: one.at for one in reversed(self.views) if one.at >= since and accept(one)}

        return max(eventually(look, lambda found: len(found) == self.gateways, seconds).values())

    def fewest(self) -> int:
        """The least number of replicas that got requests in any view."""
        return min(one.routable for one in self.views)

    def read(self, lines: Iterable[str]) -> None:
        """Take views as they come, until they end."""
        self.views.extend(View(**json.loads(line)) for line in lines)


@contextmanager
def routed(kit: Kit, name: str) -> Iterator[Tables]:
    """Follow the gateways' tables for an LLMDeployment of the case for as long as the context lasts."""
    selector = f"--selector=app.kubernetes.io/name={GATEWAY_SERVICE}"
    pods = kit.stack.get("pods", selector, f"--namespace={SYSTEM_NAMESPACE}")["items"]
    addresses = [pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    urls = [f"http://{address}:8081/telemetry?watch" for address in addresses]
    program = [sys.executable, "-m", "e2e.routed", f"{kit.namespace}/{name}", *urls]
    tables = Tables(gateways=len(urls))
    with subprocess.Popen(kit.stack.cluster.inside(program), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=tables.read, args=(process.stdout,))
        reader.start()
        try:
            tables.until(lambda _: True)
            yield tables
        finally:
            process.terminate()
            reader.join()


def main() -> None:
    """Follow every gateway in a thread of its own."""
    model, *urls = sys.argv[1:]
    printing = threading.Lock()
    threads = [threading.Thread(target=_follow, args=(url, model, printing)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _follow(url: str, model: str, printing: threading.Lock) -> None:
    last = None
    with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as lines:
        for line in lines:
            told = json.loads(line)
            revisions = _revisions(told, model)
            if revisions is None or revisions == last:
                continue
            last = revisions
            with printing:
                print(json.dumps(asdict(View(time.time(), told["gateway"], revisions))), flush=True)


def _revisions(told: dict[str, Any], model: str) -> list[tuple[int, int, int]] | None:
    """What a line says of the model; None when it says nothing. Figures alone are no change."""
    found = (one for one in told["models"] if f"{one['namespace']}/{one['deployment']}" == model)
    rows = next((one["revisions"] for one in found), None)
    return rows and [(row["number"], row["weight"], len(row["targets"])) for row in rows]


if __name__ == "__main__":
    main()
