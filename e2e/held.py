"""One streaming request as it comes over the wire, comments and all: what OpenAI's client leaves out.

    python -m e2e.held BASE_URL MODEL

Says as JSON when it was sent, and what came how many seconds later.
"""

import http.client
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from e2e.client import QUESTION, SHORT
from e2e.kit import Kit
from e2e.stack import ROOT

_MOST_SECONDS = 300.0


@dataclass
class Held:
    """What a client saw."""

    began: float = 0.0
    """When the request was sent, as Unix time."""
    status: int = 0
    headers: float = 0.0
    comments: list[float] = field(default_factory=list)
    """Keep-alives, from before the answer began."""
    first_token: float = 0.0
    ended: float = 0.0
    done: bool = False
    """Whether the stream came to its proper end."""


def held(kit: Kit, model: str) -> Held:
    """Ask once, in the cluster's network, and wait for the whole answer."""
    program = [sys.executable, "-m", "e2e.held", kit.gateway, model]
    argv = kit.stack.cluster.inside(program)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Held(**json.loads(done.stdout))


def main() -> None:
    """Ask, and print what was seen."""
    address, model = sys.argv[1:]
    url = urlsplit(address)
    connection = http.client.HTTPConnection(str(url.hostname), url.port or 80, timeout=_MOST_SECONDS)
    body = json.dumps({"model": model, "messages": QUESTION, "max_tokens": SHORT, "temperature": 0, "stream": True})
    began, seen = time.monotonic(), Held(began=time.time())
    connection.request("POST", f"{url.path}/chat/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    seen.status, seen.headers = answer.status, time.monotonic() - began
    for line in answer:
        _take(line.decode().strip(), time.monotonic() - began, seen)
    seen.ended = time.monotonic() - began
    print(json.dumps(asdict(seen)))


def _take(line: str, at: float, seen: Held) -> None:
    if line.startswith(":"):
        seen.comments.append(at)
    elif line == "data: [DONE]":
        seen.done = True
    elif line.startswith("data:") and not seen.first_token:
        choices = json.loads(line.removeprefix("data:")).get("choices", ())
        seen.first_token = at if any(one["delta"].get("content") for one in choices) else 0.0


if __name__ == "__main__":
    main()
