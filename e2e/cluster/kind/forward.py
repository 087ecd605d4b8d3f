"""Offering a Service of the cluster on this machine's loopback."""

import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from e2e.cluster.command import failure
from e2e.cluster.kind.place import Place
from e2e.cluster.local.start import open_port
from e2e.cluster.provider import Endpoint

_LOOPBACK: Final = "127.0.0.1"
_FORWARDING: Final = re.compile(rf"Forwarding from {re.escape(_LOOPBACK)}:(\d+) ")


@contextmanager
def from_node(place: Place, service: dict[str, Any], port: int) -> Iterator[Endpoint]:
    """Lead to the Service's own address in the node's network: a pod behind it may come and go meanwhile."""
    supervisor = place.forwarders
    name = f"{service['metadata']['namespace']}-{service['metadata']['name']}-{port}-{secrets.token_hex(4)}"
    local_port = open_port(supervisor, name, service["spec"]["clusterIP"], port)
    try:
        yield Endpoint(_LOOPBACK, local_port)
    finally:
        supervisor.stop(name)


@contextmanager
def through_api(place: Place, service: dict[str, Any], port: int) -> Iterator[Endpoint]:
    """Lead to one pod of the Service through the API server: where the node's network cannot be entered.

    Raises:
        ClusterError: the Service has no pod that runs.
    """
    metadata = service["metadata"]
    target = (f"--namespace={metadata['namespace']}", f"service/{metadata['name']}", f":{port}")
    argv = [*place.kubectl, "port-forward", f"--address={_LOOPBACK}", *target]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if (found := _FORWARDING.match(line)) is None:
                raise failure(argv, process.wait(), line)
            yield Endpoint(_LOOPBACK, int(found[1]))
        finally:
            process.terminate()
