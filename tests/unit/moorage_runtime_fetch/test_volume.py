"""`pvc://`: what is taken from a volume, and what never is."""

import hashlib
import json
import os

import pytest

WEIGHTS = b"weights" * 100


def model(folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS} | more
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_model_in_a_folder(fetch, claim):
    model(claim / "a", **{"README.md": b"#", "pytorch_model.bin": b"pickle", "modeling.py": b"boom", ".env": b"secret"})
    done = fetch("pvc://models/a")
    assert done.code == 0, done.stderr
    assert done.names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert done.termination["bytes"] == len(WEIGHTS) + 4
    lines = "".join(
        f"{name}\0{(done.into / name).stat().st_size}\0{hashlib.sha256((done.into / name).read_bytes()).hexdigest()}\n"
        for name in done.names
    )
    assert done.termination["digest"] == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_one_gguf_file_of_several(fetch, claim):
    model(claim, **{"a.gguf": b"a", "b.gguf": b"b"})
    (claim / "model.safetensors").unlink()
    assert "several GGUF files: a.gguf, b.gguf; name one" in fetch("pvc://models").refused("InvalidSource")
    assert fetch("pvc://models/b.gguf").names == ["b.gguf"]


def test_a_second_run_is_done_at_once_and_a_lost_file_is_fetched_again(fetch, claim):
    model(claim)
    first = fetch("pvc://models")
    (claim / "model.safetensors").write_bytes(b"changed at the source")
    again = fetch("pvc://models")
    assert (again.code, again.termination["digest"]) == (0, first.termination["digest"])
    (first.into / "config.json").unlink()
    third = fetch("pvc://models")
    assert third.termination["digest"] != first.termination["digest"]
    assert (third.into / "model.safetensors").read_bytes() == b"changed at the source"


def test_another_source_replaces_what_was_there(fetch, claim):
    model(claim / "a", **{"vocab.json": b"{}"})
    model(claim / "b")
    assert "vocab.json" in fetch("pvc://models/a").names
    assert "vocab.json" not in fetch("pvc://models/b").names


def test_the_digest_decides(fetch, claim):
    model(claim)
    wrong = "sha256:" + "0" * 64
    assert f"not {wrong}" in fetch("pvc://models", "--digest", wrong).refused("DigestMismatch")
    right = fetch("pvc://models").termination["digest"]
    assert fetch("pvc://models", "--digest", right).code == 0


@pytest.mark.parametrize("path", ["nothing", "a/b"])
def test_nothing_at_that_place(fetch, claim, path):
    assert f"has nothing at '{path}'" in fetch(f"pvc://models/{path}").refused("ModelNotFound")


def test_a_claim_that_is_not_mounted(fetch):
    assert "the claim 'models' is not mounted" in fetch("pvc://models/a").refused("ModelNotFound")


def test_an_empty_folder(fetch, claim):
    (claim / "notes.txt").write_text("no model")
    assert "neither safetensors nor GGUF" in fetch("pvc://models").refused("ModelNotFound")


def test_pickled_weights(fetch, claim):
    (claim / "pytorch_model.bin").write_bytes(b"pickle")
    assert "pickled (pytorch_model.bin)" in fetch("pvc://models").refused("InvalidSource")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_needs_code(fetch, claim, name):
    model(claim, **{name: json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}).encode()})
    assert f"{name} has 'auto_map'" in fetch("pvc://models").refused("InvalidSource")


def test_links_within_the_claim_are_followed_and_others_refused(fetch, claim, tmp_path):
    model(claim / "blobs")
    (claim / "snapshot").mkdir()
    for name in ("config.json", "model.safetensors"):
        (claim / "snapshot" / name).symlink_to(f"../blobs/{name}")
    done = fetch("pvc://models/snapshot")
    assert done.names == ["config.json", "model.safetensors"]
    assert not any((done.into / name).is_symlink() for name in done.names)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_link_that_leads_out(fetch, claim, tmp_path, place):
    outside = tmp_path / "outside"
    model(outside)
    if place == "folder":
        (claim / "a").symlink_to(outside)
    else:
        model(claim / "a")
        (claim / "a" / "tokenizer.json").unlink()
        (claim / "a" / "tokenizer.json").symlink_to(outside / "tokenizer.json")
    assert "a link that leads out" in fetch("pvc://models/a").refused("InvalidSource")


def test_a_pipe_is_no_model_file(fetch, claim):
    model(claim)
    (claim / "tokenizer.json").unlink()
    os.mkfifo(claim / "tokenizer.json")
    assert "not a regular file" in fetch("pvc://models").refused("InvalidSource")


def test_a_model_over_the_limit(fetch, claim):
    model(claim)
    assert "are allowed (--max-gib)" in fetch("pvc://models", "--max-gib", "0.0000001").refused("InvalidSource")


def test_a_read_only_target(fetch, claim, tmp_path):
    model(claim)
    (tmp_path / "model").rmdir()
    (tmp_path / "model").write_text("a file where the folder should be")
    done = fetch("pvc://models")
    assert (done.code, done.termination["reason"]) == (1, "FetchFailed")
