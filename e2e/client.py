"""OpenAI's own client as a user inside the cluster would run it: one question, or a load that runs until told to stop.

    python -m e2e.client BASE_URL MODEL ask [--stream]
    python -m e2e.client BASE_URL MODEL load --workers 2      # ends when standard input ends, or after --seconds
    python -m e2e.client BASE_URL MODEL load --tokens 400     # each answer is that long, whatever the model says

The answer is JSON on standard output, of a load one line for each request as it ends, so that a test reads what a user
saw, and when.
"""

import argparse
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Final

from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam

QUESTION: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": "What is a harbour?"}]
SHORT: Final = 16
"""Tokens of an answer when nothing else is said."""
MAX_LOAD_SECONDS: Final = 900.0


@dataclass(frozen=True)
class Record:
    """One request of a load. Times are of the wall clock, to be compared with what a test did meanwhile."""

    started: float
    ended: float
    error: str | None


def main() -> None:
    """Do what the command line says and print the answer as JSON."""
    arguments = _parse()
    # The client's own retries would hide a lost request.
    client = OpenAI(base_url=arguments.base_url, api_key="none", max_retries=0, timeout=120)
    if arguments.verb == "ask":
        print(json.dumps(ask(client, arguments.model, stream=arguments.stream)))
    else:
        pace = arguments.workers, arguments.seconds, arguments.tokens
        load(client, arguments.model, *pace, pause=arguments.pause)


def ask(client: OpenAI, model: str, *, stream: bool, tokens: int | None = None) -> dict[str, object]:
    """Ask one question; with `stream` the answer's pieces stay apart. `tokens`: the answer is exactly that long."""
    length, exact = tokens or SHORT, {"ignore_eos": tokens is not None}
    if not stream:
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=length, temperature=0, extra_body=exact
        )
        return {"pieces": [answer.choices[0].message.content], "finish_reason": answer.choices[0].finish_reason}
    pieces: list[str] = []
    finish_reason = None
    for chunk in client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=length, temperature=0, stream=True, extra_body=exact
    ):
        for choice in chunk.choices:
            pieces += [choice.delta.content] if choice.delta.content else []
            finish_reason = choice.finish_reason or finish_reason
    return {"pieces": pieces, "finish_reason": finish_reason}


def load(client: OpenAI, model: str, workers: int, seconds: float, tokens: int | None, *, pause: float) -> None:
    """Ask again and again from `workers` threads until standard input ends, at most for `seconds`.

    Each worker waits `pause` seconds between two requests.
    """
    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    deadline = threading.Timer(seconds, stop.set)
    deadline.daemon = True
    deadline.start()
    printing = threading.Lock()

    def work() -> None:
        while not stop.is_set():
            record = _request(client, model, tokens)
            with printing:
                print(json.dumps(asdict(record)), flush=True)
            stop.wait(pause)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _stop_at_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _request(client: OpenAI, model: str, tokens: int | None) -> Record:
    started, error = time.time(), None
    try:
        answer = ask(client, model, stream=True, tokens=tokens)
        # A stream that simply ends was cut.
        error = None if answer["finish_reason"] in ("stop", "length") else f"cut after {answer['pieces']}"
    except OpenAIError as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Record(started, time.time(), error)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m e2e.client", description=__doc__.splitlines()[0])
    parser.add_argument("base_url", help="http://HOST[:PORT]/v1")
    parser.add_argument("model", help="the model's public name")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("ask").add_argument("--stream", action="store_true")
    loader = verbs.add_parser("load")
    loader.add_argument("--workers", type=int, default=2)
    loader.add_argument("--tokens", type=int, help="length of each answer (default: short, and as the model ends it)")
    loader.add_argument("--pause", type=float, default=0, help="seconds between two requests of a worker (default: 0)")
    loader.add_argument("--seconds", type=float, default=MAX_LOAD_SECONDS, help="at most (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
