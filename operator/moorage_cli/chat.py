"""`moor chat`: talk to a model through the gateway, as its clients do; the answer is streamed."""

import argparse
import http.client
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from moorage_api import names
from moorage_cli.cluster import Cluster
from moorage_cli.errors import CommandError
from moorage_cli.verbs import add_verb
from moorage_operator.manifest import namespace_of

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs

_EPILOG: Final = """\
On a terminal it is a conversation, ended by Ctrl-D. With -m, or where stdin is no terminal, it is one question.
examples:
  %(prog)s chat
  %(prog)s chat -m "What is a harbour?"
  %(prog)s team-a/chat --url http://gateway.example --max-tokens 200 < question.txt
"""
_FORWARDED: Final = re.compile(r"Forwarding from (127\.0\.0\.1:[0-9]+) ")
_PATIENCE: Final = 600.0
"""Seconds without a byte after which an answer is given up: a long prompt on a slow machine takes minutes."""
Message = dict[str, str]


def add_to(verbs: "Verbs") -> None:
    """Declare the verb."""
    parser = add_verb(
        verbs,
        "chat",
        "talk to a model; the answer is streamed",
        "Talk to a model through the gateway, as its clients do.",
        _EPILOG,
    )
    parser.add_argument("name", metavar="NAME", help="of the LLMDeployment; with --url, the name that clients use")
    parser.add_argument("-m", "--message", metavar="TEXT", help="one question, and the end")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
    parser.add_argument("--url", help="of the gateway, without /v1; default: kubectl port-forward to its Service")
    parser.add_argument(
        "--gateway-namespace", metavar="NAME", default="moorage-system", help="where the gateway is (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask, and print the answers as they come."""
    cluster = Cluster.of(options)
    if options.url:
        _converse(options, options.url.rstrip("/"), options.name)
        return 0
    deployment = cluster.deployment(options.name)
    inside = Cluster(kubeconfig=options.kubeconfig, context=options.context, namespace=options.gateway_namespace)
    inside.run("get", f"service/{names.GATEWAY}")  # whose error says more than that of a port-forward
    with _forwarded(inside) as url:
        _converse(options, url, f"{namespace_of(deployment)}/{options.name}")
    return 0


@contextmanager
def _forwarded(cluster: Cluster) -> Iterator[str]:
    """The gateway on a free port of this machine."""
    with cluster.stream("port-forward", f"service/{names.GATEWAY}", ":80") as stream:
        found = _FORWARDED.match(stream.readline())
        if found is None:
            raise CommandError(
                "kubectl port-forward did not reach the gateway; `moor doctor` says how it is, --gateway-namespace "
                "names where it is, and --url another way to it"
            )
        yield f"http://{found[1]}"


def _converse(options: argparse.Namespace, url: str, model: str) -> None:
    said: list[Message] = [{"role": "system", "content": options.system}] if options.system else []
    for question in _questions(options.message):
        said.append({"role": "user", "content": question})
        body = {"model": model, "messages": said, "stream": True}
        if options.max_tokens:
            body["max_tokens"] = options.max_tokens
        answer = ""
        for piece in _asked(url, body):
            sys.stdout.write(piece)
            sys.stdout.flush()
            answer += piece
        print()
        said.append({"role": "assistant", "content": answer})


def _questions(message: str | None) -> Iterator[str]:
    if message is not None:
        yield message
        return
    if not sys.stdin.isatty():
        yield sys.stdin.read()
        return
    while True:
        try:
            question = input("> ")
        except EOFError:
            print()
            return
        if question.strip():
            yield question


def _asked(url: str, body: dict[str, Any]) -> Iterator[str]:
    """The pieces of one answer."""
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"--url {url}: write http:// or https:// before it")
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:  # noqa: S310 - checked above
            yield from pieces(answer)
    except urllib.error.HTTPError as error:
        raise CommandError(_refusal(error)) from None
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"{url}: {error}; is the gateway there? `moor doctor` finds out") from error


def pieces(lines: Iterable[bytes]) -> Iterator[str]:
    """The text of a stream of server-sent events, as OpenAI's API sends them.

    Raises:
        CommandError: the stream ended with an error, or without its end.
    """
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise CommandError(f"the answer broke off: {event['error'].get('message', event['error'])}")
        for choice in event.get("choices", ()):
            yield choice.get("delta", {}).get("content") or ""
    raise CommandError("the answer broke off: the connection ended before it")


def _refusal(error: urllib.error.HTTPError) -> str:
    """The message of an OpenAI error, else the status."""
    try:
        said = json.loads(error.read())["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = error.reason
    return f"{error.code}: {said}"
