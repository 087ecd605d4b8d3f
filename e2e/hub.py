"""A model hub inside the cluster, with SmolLM2 in safetensors, made from the GGUF file in the runtime's image."""

from pathlib import Path
from typing import Final, Literal

from e2e.kit import Kit
from e2e.stack import ROOT, SYSTEM_NAMESPACE

_FILES: Final = Path(__file__).parent / "cases" / "hub"
_SERVER: Final = ROOT / "tests" / "unit" / "moorage_runtime_fetch" / "hub_server.py"


def publish(kit: Kit, source: str, weights: Literal["BF16", "F32"]) -> str:
    """Start it in the case's namespace, with weights of that type under the name of `source`; its address."""
    operator = kit.stack.get("deployment", "moorage-operator", f"--namespace={SYSTEM_NAMESPACE}")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    image = next(one["value"] for one in container["env"] if one["name"] == "MOORAGE_RUNTIME_IMAGE")
    files = [f"--from-file={path}" for path in (_SERVER, _FILES / "serve.py")]
    kit.kubectl("create", "configmap", "hub", *files)
    pod = (_FILES / "pod.yaml").read_text()
    for name, value in {"IMAGE": image, "REPOSITORY": source.removeprefix("hf://"), "WEIGHTS": weights}.items():
        pod = pod.replace(name, value)
    kit.apply(pod)
    kit.kubectl("wait", "--for=condition=Ready", "pod/hub", "--timeout=240s")
    return f"http://hub.{kit.namespace}"
