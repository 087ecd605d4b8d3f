"""The command line: what it prints goes where scripts expect it, and mistakes end in one sentence."""

import subprocess
import sys

import pytest

from e2e.cluster.paths import REPOSITORY


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*arguments):
        argv = [sys.executable, "-m", "e2e.cluster", *arguments]
        return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    return run


def test_a_name_that_no_node_could_have(tool):
    done = tool("up", "--provider", "local", "--name", "Not_A_Name")
    assert done.returncode == 1
    assert done.stderr == (
        "error: 'Not_A_Name' cannot be a cluster's name: up to 32 lower-case letters, digits and inner hyphens\n"
    )


def test_an_unknown_provider_in_the_environment(tool, monkeypatch):
    monkeypatch.setenv("MOORAGE_PROVIDER", "minikube")
    done = tool("status")
    assert done.returncode == 1
    assert done.stderr == "error: Unknown provider 'minikube': it is one of local, kind\n"


def test_a_cluster_that_is_not_there(tool):
    status = tool("status", "--provider", "local", "--name", "nowhere")
    assert (status.returncode, status.stdout) == (1, "nowhere (local): absent, there is nothing of it\n")
    env = tool("env", "--provider", "local", "--name", "nowhere")
    assert (env.returncode, env.stdout) == (1, "")
    assert env.stderr == "error: The cluster nowhere is not up; run `up` first\n"
    down = tool("down", "--provider", "local", "--name", "nowhere")
    assert (down.returncode, down.stderr) == (0, "✓ there is no cluster nowhere\n")
