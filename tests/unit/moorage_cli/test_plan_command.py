"""What `moor plan` says, without a cluster."""

import json

import pytest
import yaml

from moorage_cli.main import main

CANARY = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "chat"},
    "spec": {
        "model": {"source": "python://model==1"},
        "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "2Gi"}},
        "replicas": 2,
    },
}

SMALL = {  # SmolLM2-135M's
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def planned(tmp_path, capsys):
    """`planned(manifest, *flags)` -> status, stdout, stderr."""

    def run(manifest, *flags):
        file = tmp_path / "manifest.yaml"
        file.write_text(manifest if isinstance(manifest, str) else yaml.safe_dump(manifest))
        status = main(["plan", "--offline", "-f", str(file), *flags])
        return status, *capsys.readouterr()

    return run


def test_a_new_deployment(planned):
    assert planned(CANARY) == (
        0,
        """\
LLMDeployment default/chat would be created

the operator would, one after the other
  create ControllerRevision chat-r1  (revision 1 is candidate)
  create Deployment chat-r1  (revision 1: 2 wanted)
  create Service chat  (revision 1 serves)
  create PodDisruptionBudget chat  (2 replicas: node drains take one at a time)
  change ControllerRevision chat-r1  (revision 1 is stable)
  each replica of chat-r1 asks for cpu 250m, memory 2Gi

the rollout, where every replica starts at once and every gate holds (neither takes time here)
  +0s     r1 (stable) 100 % on 2 replicas  2 of 2 replicas answer requests.
  in the end Serving: 2 of 2 replicas answer requests.
""",
        "",
    )


def test_memory_and_money_follow_from_what_a_person_gives(planned, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "prices.yaml").write_text("{currency: EUR, perHour: {cpu: 0.04, memory: 0.005}}")
    flags = ("--model-config", str(tmp_path / "config.json"), "--prices", str(tmp_path / "prices.yaml"))
    _, printed, _ = planned(CANARY, *flags)
    assert "  memory  about 0.4 GiB of 2 GiB at least: weights 0.3 GiB, and 0.2 GiB for one request of 8192" in printed
    assert "  cost    0.04 EUR an hour for 2 replicas at 0.02 EUR each\n" in printed
    assert "nodes" not in printed, "there is no cluster to look at"


def test_the_manifests_are_those_that_the_operator_renders(planned):
    _, printed, _ = planned(CANARY, "--manifests", "--runtime-image", "runtime:9", "-n", "team-a")
    documents = list(yaml.safe_load_all(printed.split("---\n", 1)[1]))
    assert [one["kind"] for one in documents] == ["ControllerRevision", "Deployment", "Service", "PodDisruptionBudget"]
    assert {one["metadata"]["namespace"] for one in documents} == {"team-a"}
    server = documents[1]["spec"]["template"]["spec"]["containers"][0]
    assert server["image"] == "runtime:9"


def test_a_branch_is_looked_up_first(planned):
    manifest = CANARY | {"spec": {"model": {"source": "hf://org/model"}}}
    status, printed, _ = planned(manifest, "--manifests")
    assert status == 0
    assert "- hf://org/model@COMMIT" in printed
    assert "create Pod chat-r1-resolve  (revision 1: hf://org/model may move, so look it up)" in printed
    assert "in the end Serving: 1 of 1 replica answers requests." in printed


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (CANARY | {"spec": {"model": {"source": "nowhere"}}}, "moor: spec.model.source: "),
        (CANARY | {"spec": {**CANARY["spec"], "replicsa": 2}}, "moor: unknown fields: spec.replicsa; "),
        ({"kind": "ConfigMap"}, "has no LLMDeployment; moor plans nothing else"),
        ("a: [", "while parsing"),
    ],
)
def test_what_would_not_be_accepted_ends_with_1_and_one_line(planned, manifest, said):
    status, printed, error = planned(manifest)
    assert (status, printed) == (1, "")
    assert said in error
    assert error.count("\n") == 1
