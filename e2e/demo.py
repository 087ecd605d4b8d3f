"""From nothing to a streamed answer: a cluster, the images, the chart, one LLMDeployment, one question.

    make demo

Everything that is shown here is a command that a person can run; the last lines say which.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from openai import OpenAI

from e2e.cluster.choose import choose
from e2e.cluster.progress import Progress
from e2e.cluster.provider import DEFAULT_NAME, ClusterError
from e2e.stack import GATEWAY_PORT, GATEWAY_SERVICE, ROOT, SYSTEM_NAMESPACE, Stack, bring_up

MANIFEST: Final = ROOT / "examples" / "quickstart.yaml"
MODEL: Final = "chat"
QUESTION: Final = "What is a harbour? Answer in two sentences."
READY_DEADLINE_S: Final = 300.0
TROUBLE_S: Final = 30.0
"""How long the model may be in trouble: a fetch is tried again, a broken image stays broken."""
NOTE_WIDTH: Final = 100


def main() -> int:
    """Run the demo; 0 when the answer was streamed."""
    arguments = _parse()
    progress = Progress()
    started = time.monotonic()
    try:
        cluster = choose(arguments.name, arguments.provider)
        stack = bring_up(cluster, progress)
        serve(stack, progress)
        print(stack.kubectl("get", "llmdeployments"), flush=True)
        stream_answer(stack)
    except ClusterError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; `make demo` goes on from here, `make down` removes everything", file=sys.stderr)
        return 130
    print(_what_next(arguments.name, time.monotonic() - started))
    return 0


def serve(stack: Stack, progress: Progress) -> None:
    """Apply the example and follow its status until it serves.

    Raises:
        ClusterError: it is in trouble, or does not serve within the deadline; the message is the object's own.
    """
    _forget_failed(stack)
    stack.kubectl("apply", "--filename", str(MANIFEST))
    with progress.step(f"{MANIFEST.relative_to(ROOT)} serves") as step:
        deadline = give_up = time.monotonic() + READY_DEADLINE_S
        while not _is_ready(llmdep := stack.get("llmdeployment", MODEL)):
            said, now = _said(llmdep), time.monotonic()
            step.note(said[:NOTE_WIDTH])
            give_up = min(give_up, now + TROUBLE_S) if _is_stuck(llmdep) else deadline
            if now > give_up:
                raise ClusterError(f"{MODEL} does not serve: {said}; see `kubectl describe llmdep {MODEL}`")
            time.sleep(0.5)  # a person reads this, and the status is a small object


def _forget_failed(stack: Stack) -> None:
    """Remove what an earlier run left in trouble: a revision keeps its image, so a mended one would not reach it."""
    found = stack.kubectl("get", "llmdeployment", MODEL, "--ignore-not-found", "--output=json")
    if found and _is_stuck(json.loads(found)):
        stack.kubectl("delete", "llmdeployment", MODEL)


def _is_stuck(llmdep: dict[str, Any]) -> bool:
    """Whether it neither serves nor is on its way."""
    return all(_condition(llmdep, kind).get("status") == "False" for kind in ("Ready", "Progressing"))


def _is_ready(llmdep: dict[str, Any]) -> bool:
    current = llmdep.get("status", {}).get("observedGeneration") == llmdep["metadata"]["generation"]
    return current and _condition(llmdep, "Ready").get("status") == "True"


def _said(llmdep: dict[str, Any]) -> str:
    ready = _condition(llmdep, "Ready")
    return f"{ready.get('reason', 'Pending')}: {ready.get('message', 'the operator has not seen it yet')}"


def _condition(llmdep: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = llmdep.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def stream_answer(stack: Stack) -> None:
    """Ask one question through the gateway and print the answer as it comes."""
    with stack.cluster.forward(SYSTEM_NAMESPACE, GATEWAY_SERVICE, GATEWAY_PORT) as gateway:
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none")
        print(f"> {QUESTION}", flush=True)
        for piece in _pieces(client):
            print(piece, end="", flush=True)
        print(flush=True)


def _pieces(client: OpenAI) -> Iterator[str]:
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=96, temperature=0, stream=True
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def _what_next(name: str, seconds: float) -> str:
    tool = f"{Path(sys.executable).relative_to(ROOT) if Path(sys.executable).is_relative_to(ROOT) else 'python'}"
    return f"""
Done in {seconds:.0f} s. The cluster stays up; try:
  eval "$({tool} -m e2e.cluster env --name {name})"     # kubectl and helm of this cluster
  kubectl get llmdeployments --watch
  kubectl scale llmdep/{MODEL} --replicas=2
  kubectl explain llmdeployment.spec.model
  kubectl -n {SYSTEM_NAMESPACE} port-forward service/{GATEWAY_SERVICE} 8080:{GATEWAY_PORT} &
  curl -N localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{MODEL}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
Remove everything:
  make down"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the cluster (default: %(default)s)")
    parser.add_argument("--provider", choices=("local", "kind"), help="default: what works on this machine")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
