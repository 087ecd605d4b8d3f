"""One LLMDeployment as it changes: `kubectl get --watch`, read in a thread so that the clock on the screen goes on."""

import json
import queue
import threading
from collections.abc import Iterator
from typing import IO, Any, Final

from moorage_cli.cluster import LLMDEPLOYMENTS, Cluster
from moorage_cli.errors import CommandError

TICK: Final = 1.0
"""Seconds after which a picture is drawn anew although nothing came."""
_END: Final = object()


def changes(cluster: Cluster, name: str) -> Iterator[dict[str, Any] | None]:
    """The object now and after each change; None for each second without one.

    Raises:
        CommandError: it is not there, or was deleted.
    """
    while True:  # the API server ends every watch after a while
        cluster.deployment(name)  # whose error says more than that of a watch
        arguments = ("get", LLMDEPLOYMENTS, name, "--watch", "--output-watch-events", "--output=json")
        with cluster.stream(*arguments) as stream:
            for event in _ticking(stream):
                if event is not None and event["type"] == "DELETED":
                    raise CommandError(f"{name} was deleted")
                yield None if event is None else event["object"]


def _ticking(stream: IO[str]) -> Iterator[dict[str, Any] | None]:
    events: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(stream, events), daemon=True).start()
    while True:
        try:
            event = events.get(timeout=TICK)
        except queue.Empty:
            yield None
            continue
        if event is _END:
            return
        yield event


def _read(stream: IO[str], events: "queue.Queue[Any]") -> None:
    try:
        for event in documents(stream):
            events.put(event)
    except ValueError:
        pass  # the stream was closed under us: the block that reads the queue is over
    finally:
        events.put(_END)


def documents(lines: Iterator[str] | IO[str]) -> Iterator[dict[str, Any]]:
    """JSON objects that follow one another, each over many lines, as kubectl prints them: `}` alone ends one."""
    held: list[str] = []
    for line in lines:
        held.append(line)
        if line.rstrip("\n") == "}" or (len(held) == 1 and line.rstrip().endswith("}")):
            yield json.loads("".join(held))
            held = []
