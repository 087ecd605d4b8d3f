"""The example of a quantised model: bfloat16 from a hub, rounded to 4 bits as it is loaded, and to 8 by an edit."""

import json

import pytest
import yaml

from e2e.stack import ROOT, SYSTEM_NAMESPACE

EXAMPLE = ROOT / "examples" / "quantized-cpu.yaml"
HUB_SERVER = ROOT / "tests" / "unit" / "moorage_runtime_fetch" / "hub_server.py"


@pytest.fixture(scope="module")
def helper(kit):
    """The example's name; a smaller model stands on the hub under the name of its own."""
    manifest = yaml.safe_load(EXAMPLE.read_text())
    spec = manifest["spec"]
    spec["engine"]["env"] = [{"name": "HF_ENDPOINT", "value": hub(kit, spec["model"]["source"])}]
    spec["resources"]["requests"] = {"cpu": "100m", "memory": "512Mi"}
    kit.apply(yaml.safe_dump(manifest))
    kit.wait_ready("helper")
    return f"{kit.namespace}/helper"


def hub(kit, source):
    """Start the hub; its address."""
    operator = kit.stack.get("deployment", "moorage-operator", f"--namespace={SYSTEM_NAMESPACE}")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    image = next(one["value"] for one in container["env"] if one["name"] == "MOORAGE_RUNTIME_IMAGE")
    files = [f"--from-file={path}" for path in (HUB_SERVER, kit.directory / "hub.py")]
    kit.kubectl("create", "configmap", "hub", *files)
    pod = (kit.directory / "hub.yaml").read_text()
    kit.apply(pod.replace("IMAGE", image).replace("REPOSITORY", source.removeprefix("hf://")))
    kit.kubectl("wait", "--for=condition=Ready", "pod/hub", "--timeout=240s")
    return f"http://hub.{kit.namespace}"


def kernels(kit, revision):
    """What computes a revision's answers, in its replica's own words."""
    (pod,) = kit.get("pods", f"--selector=moorage.dev/deployment=helper,moorage.dev/revision={revision}")["items"]
    path = f"/api/v1/namespaces/{kit.namespace}/pods/{pod['metadata']['name']}:8000/proxy/telemetry"
    return json.loads(kit.kubectl("get", f"--raw={path}"))["kernels"]


def test_the_example_answers_with_weights_of_4_bits(kit, helper, bar):
    answer = kit.ask(helper, stream=True)
    bar("quantized", bits=4, kernels=kernels(kit, 1))
    assert "harbour" in "".join(answer["pieces"])
    assert " Q4_1, " in kernels(kit, 1)


def test_an_edit_to_8_bits_takes_over_and_no_request_is_lost(kit, helper, bar):
    with kit.load(helper, workers=1) as load:
        load.goes_on(2)
        kit.patch("helper", model={"quantization": "Int8"})
        kit.eventually(lambda: kit.weights("helper"), lambda weights: weights == {2: 100}, 300)
        load.goes_on(2)
    bar("quantized", bits=8, kernels=kernels(kit, 2), requests=len(load.records), lost=len(load.failures()))
    assert load.failures() == []
    assert " Q8_0, " in kernels(kit, 2)
    assert "harbour" in "".join(kit.ask(helper, stream=True)["pieces"])
