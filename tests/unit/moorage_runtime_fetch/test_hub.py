"""`hf://` against a hub on loopback."""

import json
import time

import pytest

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def repository(hub):
    hub.repositories["org/name"] = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": WEIGHTS,
        "README.md": b"# model",
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"boom",
        "onnx/model.onnx": b"graph",
    }
    return hub.repositories["org/name"]


def asked_for(hub):
    return {path.rpartition("/")[2] for method, path, _ in hub.requests if "/resolve/" in path}


def test_only_the_needed_files_come_pinned_to_one_commit(fetch, hub, repository):
    done = fetch("hf://org/name", HF_ENDPOINT=hub.url)
    assert done.code == 0, done.stderr
    assert done.names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (done.into / "model.safetensors").read_bytes() == WEIGHTS
    assert asked_for(hub) == set(done.names)
    assert all(f"/resolve/{hub.commit}/" in path for _, path, _ in hub.requests if "/resolve/" in path)
    assert [path.name for path in done.into.iterdir() if path.name.startswith(".incoming")] == []


def test_a_model_has_the_same_digest_from_everywhere(fetch, hub, repository, claim):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (claim / name).write_bytes(repository[name])
    from_hub = fetch("hf://org/name", HF_ENDPOINT=hub.url).termination["digest"]
    assert fetch("pvc://models", "--digest", from_hub).code == 0


def test_a_killed_fetch_is_continued_by_the_next(fetch, fetching, hub, repository):
    """A pod is restarted in the middle of its weights: they go on where they stopped."""
    repository["model.safetensors"] = WEIGHTS * 8
    hub.stall_after = 12 << 20
    process = fetching("hf://org/name", HF_ENDPOINT=hub.url)
    assert hub.stalled.wait(60)
    deadline = time.monotonic() + 60
    while not (started := sorted(process.into.rglob(".*model.safetensors"))) or not started[0].stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    there = started[0].stat().st_size
    hub.stall_after = None
    hub.requests.clear()
    done = fetch("hf://org/name", HF_ENDPOINT=hub.url)
    assert done.code == 0, done.stderr
    assert (done.into / "model.safetensors").read_bytes() == WEIGHTS * 8
    assert [wanted for _, path, wanted in hub.requests if "safetensors" in path] == [f"bytes={there}-"]


def test_a_branch_that_moved_while_a_fetch_was_interrupted_mixes_nothing(fetch, fetching, hub, repository):
    hub.stall_after = 1 << 20
    process = fetching("hf://org/name", HF_ENDPOINT=hub.url)
    assert hub.stalled.wait(60)
    process.kill()
    hub.stall_after = None
    hub.commit = "d" * 40
    repository["config.json"] = b'{"of": "the next commit"}'
    done = fetch("hf://org/name", HF_ENDPOINT=hub.url)
    assert done.code == 0, done.stderr
    assert (done.into / "config.json").read_bytes() == repository["config.json"]
    assert (done.into / "model.safetensors").read_bytes() == WEIGHTS


def test_a_configuration_that_is_no_json_is_said_before_the_weights_come(fetch, hub, repository):
    repository["config.json"] = b"<html>"
    assert "config.json is not valid JSON" in fetch("hf://org/name", HF_ENDPOINT=hub.url).refused("InvalidSource")
    assert asked_for(hub) == {"config.json"}


def test_credentials(fetch, hub, repository):
    hub.token = "hf_secret"
    refused = fetch("hf://org/name", HF_ENDPOINT=hub.url)
    assert "refuses access" in refused.refused("Unauthorized")
    done = fetch("hf://org/name", HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret")
    assert done.code == 0, done.stderr
    assert "hf_secret" not in done.stderr + json.dumps(done.termination)


def test_no_such_model_and_no_such_revision(fetch, hub, repository):
    assert "no such model" in fetch("hf://org/other", HF_ENDPOINT=hub.url).refused("ModelNotFound")
    assert "name@v9" in fetch("hf://org/name@v9", HF_ENDPOINT=hub.url).refused("ModelNotFound")


def test_no_hub(fetch, free_tcp_port):
    done = fetch("hf://org/name", HF_ENDPOINT=f"http://127.0.0.1:{free_tcp_port}")
    assert "could not be downloaded" in done.refused("FetchFailed")


def test_a_model_that_needs_code_is_refused_before_its_weights_come(fetch, hub, repository):
    repository["config.json"] = json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}).encode()
    assert "auto_map" in fetch("hf://org/name", HF_ENDPOINT=hub.url).refused("InvalidSource")
    assert asked_for(hub) == {"config.json"}


def test_pickles_only(fetch, hub, repository):
    del repository["model.safetensors"]
    assert "pickled (pytorch_model.bin)" in fetch("hf://org/name", HF_ENDPOINT=hub.url).refused("InvalidSource")


@pytest.mark.parametrize("path", ["../../evil.gguf", "/etc/evil.gguf", "..\\evil.gguf"])
def test_a_listing_that_leads_out(fetch, hub, path, tmp_path):
    hub.repositories["org/name"] = {path: b"x"}
    assert "whose path leaves it" in fetch("hf://org/name", HF_ENDPOINT=hub.url).refused("InvalidSource")
    assert not list(tmp_path.rglob("evil*"))


def test_one_file_of_a_repository_with_several(fetch, hub):
    hub.repositories["org/name"] = {"m.Q4_0.gguf": b"small", "m.Q8_0.gguf": b"large"}
    assert "several GGUF files" in fetch("hf://org/name", HF_ENDPOINT=hub.url).refused("InvalidSource")
    assert fetch("hf://org/name/m.Q8_0.gguf", HF_ENDPOINT=hub.url).names == ["m.Q8_0.gguf"]
