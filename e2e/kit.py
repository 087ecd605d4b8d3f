"""The verbs that end-to-end cases are written in: apply, wait for a condition with a deadline, ask, load."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from e2e.client import MAX_LOAD_SECONDS, Record
from e2e.stack import GATEWAY_PORT, GATEWAY_SERVICE, ROOT, SYSTEM_NAMESPACE, CommandError, Stack
from e2e.waiting import eventually

CHILDREN: Final = (
    "deployments,replicasets,statefulsets,pods,services,networkpolicies,controllerrevisions,poddisruptionbudgets"
)
OPERATOR: Final = "moorage-operator"
MANAGED: Final = "app.kubernetes.io/managed-by=moorage"
READ_ALL: Final = """
import sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url, timeout=10).read().decode())
"""


@dataclass
class Load:
    """A load that goes on while a test does something."""

    records: list[Record] = field(default_factory=list)
    """The requests that have ended, in that order."""

    def failures(self) -> list[Record]:
        """Return the requests that were not answered in full."""
        return [record for record in self.records if record.error]

    def goes_on(self, count: int = 4, seconds: float = 120) -> None:
        """Wait until `count` requests that start from now on have ended."""
        now = time.time()
        eventually(lambda: sum(record.started > now for record in self.records), lambda ended: ended >= count, seconds)

    def read(self, lines: Iterable[str]) -> None:
        """Take the client's records as they come, until it ends."""
        for line in lines:
            self.records.append(Record(**json.loads(line)))


class Change(list[str]):
    """What a watch has brought: the texts of the fields that it is for."""

    def __init__(self, fields: Iterable[str]) -> None:
        super().__init__(fields)
        self.at = time.time()
        """When it came."""


@dataclass(frozen=True)
class Kit:
    """One case's namespace on the stack."""

    stack: Stack
    namespace: str
    directory: Path

    eventually = staticmethod(eventually)

    def create_namespace(self) -> None:
        """Make the case's namespace, fresh: what an interrupted run left behind goes first."""
        self.delete_namespace()
        self.stack.namespace(self.namespace)

    def delete_namespace(self, *, wait: bool = True) -> None:
        """Remove the namespace with everything in it; without `wait` it goes while the test does something else."""
        how = ("--timeout=120s",) if wait else ("--wait=false",)
        self.stack.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", *how)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the case's namespace."""
        return self.stack.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def apply(self, manifest: str) -> str:
        """Apply a manifest of the case's folder, or one given as YAML text."""
        text = manifest if "\n" in manifest else (self.directory / manifest).read_text()
        return self.kubectl("apply", "--filename=-", stdin=text)

    def refused(self, manifest: str) -> str:
        """Apply a manifest that must be refused, and return what the person reads."""
        try:
            self.apply(manifest)
        except CommandError as error:
            return str(error)
        raise AssertionError("the API server took it")

    def get(self, *arguments: str) -> Any:
        """Return `kubectl get` as JSON."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def patch(self, name: str, **spec: Any) -> None:
        """Change these fields of an LLMDeployment's spec (a merge patch: null removes)."""
        change = json.dumps({"spec": spec})
        self.kubectl("patch", "llmdeployment", name, "--type=merge", f"--patch={change}")

    def status(self, name: str) -> dict[str, Any]:
        """Return the status of an LLMDeployment; empty while there is none."""
        return dict(self.get("llmdeployment", name).get("status", {}))

    def weights(self, name: str) -> dict[int, int]:
        """Return the share of requests of each revision that runs, as the status has it."""
        return {one["number"]: one["weight"] for one in self.status(name).get("revisions", ())}

    def row(self, name: str) -> dict[str, str]:
        """Return what `kubectl get -o wide` says of an LLMDeployment, by column; empty where a column has nothing."""
        header, line = self.kubectl("get", "llmdeployment", name, "--output=wide").splitlines()
        columns = list(re.finditer(r"\S+\s*", header))
        ends = [*(column.end() for column in columns[:-1]), None]
        return {
            column[0].strip(): line[column.start() : end].strip() for column, end in zip(columns, ends, strict=True)
        }

    def events(self, reason: str) -> list[str]:
        """Return the messages of the namespace's events with that reason."""
        return [event["message"] for event in self.get("events", f"--field-selector=reason={reason}")["items"]]

    def moor(self, *arguments: str) -> str:
        """Run `moor` in the case's namespace, as a person would, and return what it printed."""
        return self.stack.moor(*arguments, f"--namespace={self.namespace}")

    def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        """Return a condition of an LLMDeployment at its current generation; empty while there is none."""
        llmdep = self.get("llmdeployment", name)
        conditions = llmdep.get("status", {}).get("conditions", [])
        current = [c for c in conditions if c["observedGeneration"] == llmdep["metadata"]["generation"]]
        return next((c for c in current if c["type"] == kind), {})

    def wait_ready(self, name: str, seconds: int = 240) -> None:
        """Wait as a person would, with `kubectl wait`."""
        self.kubectl("wait", "--for=condition=Ready", f"llmdeployment/{name}", f"--timeout={seconds}s")

    def reaches(self, name: str, reason: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until Ready has that reason, which is the column STATUS, at the current generation; return it."""
        return self.eventually(lambda: self.condition(name), lambda ready: ready.get("reason") == reason, seconds)

    @contextmanager
    def watched(self, *what: str, fields: Sequence[str]) -> Iterator[list[Change]]:
        """Collect fields (JSON paths) of objects, as they are and at each change, for as long as the context lasts."""
        template = "|".join(f"{{{field}}}" for field in fields) + r'{"\n"}'  # tabs would come as blanks
        program = [str(self.stack.cluster.binaries / "kubectl"), "--namespace", self.namespace]
        argv = [*program, "get", *what, "--watch", f"--output=jsonpath={template}"]
        seen: list[Change] = []
        with subprocess.Popen(argv, env=self.stack.environment, stdout=subprocess.PIPE, text=True) as process:
            reader = threading.Thread(target=_collect, args=(process.stdout, seen))
            reader.start()
            try:
                yield seen
            finally:
                process.terminate()
                reader.join()

    def children(self) -> list[str]:
        """Return the names of everything that the operator or its workloads made in the namespace."""
        return self.kubectl("get", CHILDREN, "--selector", MANAGED, "--output=name").split()

    @property
    def gateway(self) -> str:
        """The gateway's base address inside the cluster."""
        service = self.stack.get("service", GATEWAY_SERVICE, f"--namespace={SYSTEM_NAMESPACE}")
        return f"http://{service['spec']['clusterIP']}:{GATEWAY_PORT}/v1"

    def counted(self, name: str) -> dict[int, Counter[str]]:
        """What all gateways have counted of each revision that is in their tables: finished `requests` and `errors`."""
        totals: dict[int, Counter[str]] = defaultdict(Counter)
        for model in (model for view in self._views() for model in view["models"]):
            if (model["namespace"], model["deployment"]) == (self.namespace, name):
                for row in model["revisions"]:
                    totals[row["number"]].update(requests=row["requests"], errors=row["errors"])
        return totals

    def _views(self) -> list[dict[str, Any]]:
        selector = f"--selector=app.kubernetes.io/name={GATEWAY_SERVICE}"
        pods = self.stack.get("pods", selector, f"--namespace={SYSTEM_NAMESPACE}")["items"]
        urls = [f"http://{pod['status']['podIP']}:8081/telemetry" for pod in pods]
        argv = self.stack.cluster.inside([sys.executable, "-c", READ_ALL, *urls])
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines() if line]

    @contextmanager
    def without_gateways(self) -> Iterator[None]:
        """The installation's gateways, scaled to none for as long as the context lasts; open streams run on."""
        with self._without(GATEWAY_SERVICE):
            yield

    @contextmanager
    def without_operators(self) -> Iterator[None]:
        """The installation's operators, scaled to none and gone for as long as the context lasts."""
        with self._without(OPERATOR):
            pods = f"--selector=app.kubernetes.io/name={OPERATOR}"
            self.stack.kubectl("wait", "--for=delete", "pod", pods, f"--namespace={SYSTEM_NAMESPACE}", "--timeout=60s")
            yield

    @contextmanager
    def _without(self, name: str) -> Iterator[None]:
        deployment = ("deployment", name, f"--namespace={SYSTEM_NAMESPACE}")
        count = self.stack.get(*deployment)["spec"]["replicas"]
        self.stack.kubectl("scale", *deployment, "--replicas=0")
        try:
            yield
        finally:
            self.stack.kubectl("scale", *deployment, f"--replicas={count}")

    def ask(
        self, model: str, question: str | None = None, *, stream: bool, tokens: int | None = None, at: str | None = None
    ) -> dict[str, Any]:
        """Ask one question with the official client, in the cluster's network, at the gateway or another address.

        `tokens`: the length of the answer; without it it is short.
        """
        asked = [f"--question={question}"] if question is not None else []
        length = [f"--tokens={tokens}"] if tokens else []
        argv = self._client(model, "ask", *(["--stream"] if stream else []), *asked, *length, at=at)
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    @contextmanager
    def load(
        self,
        model: str,
        workers: int = 2,
        tokens: int | None = None,
        *,
        pause: float = 0,
        at: str | None = None,
        seconds: float = MAX_LOAD_SECONDS,
    ) -> Iterator[Load]:
        """Run a load with the official client in the cluster's network for as long as the context lasts.

        `tokens`: the length of each answer; without it they are short. `pause`: seconds between two requests of a
        worker. `at`: another address than the gateway's. `seconds`: when it ends by itself, should nobody end it.
        """
        length, limits = [f"--tokens={tokens}"] if tokens else [], [f"--pause={pause}", f"--seconds={seconds}"]
        argv = self._client(model, "load", f"--workers={workers}", *limits, *length, at=at)
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            load = Load()
            reader = threading.Thread(target=load.read, args=(process.stdout,))
            reader.start()
            try:
                yield load
            finally:
                process.stdin.close()  # tells the client to end
                reader.join()

    def _client(self, model: str, *arguments: str, at: str | None = None) -> list[str]:
        program = [sys.executable, "-m", "e2e.client", at or self.gateway, model, *arguments]
        return self.stack.cluster.inside(program)


def _collect(lines: Iterable[str], into: list[Change]) -> None:
    into.extend(Change(line.rstrip("\n").split("|")) for line in lines)
