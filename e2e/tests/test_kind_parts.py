"""What kind's nodes are made of, without making one."""

import hashlib
import io
import json
import os
import stat
import sys
import tarfile
from pathlib import Path

import pytest

from e2e.cluster.kind import docker_archive, runc_trim
from e2e.cluster.kind.docker import Docker
from e2e.cluster.kind.provider import KindProvider
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError


@pytest.fixture
def layer(tmp_path):
    path = tmp_path / "layer.tar"
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("program")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    return path


def test_an_archive_names_its_layer_by_what_is_in_it(tmp_path, layer):
    archive = tmp_path / "image.tar"
    docker_archive.write(archive, layer, ["a:1", "b:2"], {"Entrypoint": ["/program"]})
    with tarfile.open(archive) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar}
    [manifest] = json.loads(files["manifest.json"])
    image = json.loads(files[manifest["Config"]])
    assert manifest["RepoTags"] == ["a:1", "b:2"]
    assert manifest["Config"] == hashlib.sha256(files[manifest["Config"]]).hexdigest() + ".json"
    [layer_name] = manifest["Layers"]
    assert image["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(files[layer_name]).hexdigest()]
    assert files[layer_name] == layer.read_bytes()
    assert image["config"] == {"Entrypoint": ["/program"]}


def test_trim_takes_out_what_needs_the_missing_capability():
    process = {
        "oomScoreAdj": -999,
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "ambient": []},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2**40, "soft": 10}],
    }
    runc_trim.trim(process)
    assert process["oomScoreAdj"] == 0
    assert process["capabilities"] == {"bounding": ["CAP_CHOWN"], "ambient": []}
    [limit] = process["rlimits"]
    assert limit["soft"] == 10
    assert limit["hard"] <= 2**40


def test_trim_leaves_alone_what_needs_nothing():
    process = {"oomScoreAdj": 500, "args": ["sh"]}
    runc_trim.trim(process)
    assert process == {"oomScoreAdj": 500, "args": ["sh"]}


@pytest.fixture
def runc(tmp_path, monkeypatch):
    """A program in runc's place that writes down how it was called."""
    said = tmp_path / "said"
    program = tmp_path / "bin" / "runc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > "{said}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return said


def become_runc(*arguments):
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", runc_trim.__file__, *arguments], os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_container_is_trimmed_before_runc_reads_it(tmp_path, runc, verb):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"process": {"oomScoreAdj": -5}, "root": {"path": "x"}}))
    arguments = ["--root", "r", verb, "--bundle", str(tmp_path), "id"]
    assert become_runc(*arguments) == 0
    assert json.loads(config.read_text()) == {"process": {"oomScoreAdj": 0}, "root": {"path": "x"}}
    assert runc.read_text().split() == arguments


def test_a_command_in_a_container_is_trimmed_as_well(tmp_path, runc):
    process = tmp_path / "process.json"
    process.write_text(json.dumps({"capabilities": {"effective": ["CAP_SYS_RESOURCE"]}}))
    assert become_runc("exec", "--process", str(process), "id") == 0
    assert json.loads(process.read_text()) == {"capabilities": {"effective": []}}


def test_other_verbs_reach_runc_as_they_are(runc):
    assert become_runc("delete", "--force", "id") == 0
    assert runc.read_text().split() == ["delete", "--force", "id"]


def test_an_engine_that_is_not_there_does_not_answer(tmp_path):
    assert not Docker(f"unix://{tmp_path}/nothing.sock").answers()


@pytest.mark.parametrize("name", ["../x", "A", "a_b", "", "-a", "x" * 33])
def test_a_name_that_no_node_could_have_is_refused(name):
    with pytest.raises(ClusterError, match="cannot be a cluster's name"):
        KindProvider(name).status()


def test_a_cluster_that_never_was(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cluster = KindProvider("never-was")
    assert not cluster.exists()
    assert cluster.status().state == "absent"
    with pytest.raises(ClusterError, match="The cluster never-was is not up: there is nothing of it"):
        cluster.inside(["true"])
    assert list(Path(tmp_path).iterdir()) == []


def test_a_cluster_whose_up_was_killed_at_once_is_only_a_folder_to_remove(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cluster = KindProvider("killed")
    cluster.kubeconfig.parent.mkdir(parents=True)
    assert cluster.status().reason == "`up` did not finish"
    cluster.down(Progress(quiet=True))
    assert not cluster.exists()
