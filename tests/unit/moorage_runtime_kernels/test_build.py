"""How the library is built: once, again after an edit, and with reasons where it cannot be."""

import ctypes
import platform

import pytest

from moorage_runtime.kernels import build, library
from moorage_runtime.kernels.build import CompileError, NoCompilerError

SOURCE = 'extern "C" __attribute__((visibility("default"))) int answer() { return %s; }\n'


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "answer.cpp").write_text(SOURCE % "41")
    other_machine = "avx2" if platform.machine() == "aarch64" else "neon"
    (tmp_path / "src" / f"other_{other_machine}.cpp").write_text("#error this machine cannot compile it")
    return tmp_path


def built(folder, name="a.so"):
    return build.build(folder / name, folder / "objects")


def test_only_what_changed_is_built_again(sources):
    assert built(sources)
    assert ctypes.CDLL(str(sources / "a.so")).answer() == 41
    assert not built(sources)
    (sources / "src" / "answer.cpp").write_text(SOURCE % "42")
    assert built(sources)
    assert len(list((sources / "objects").glob("*.o"))) == 1
    assert built(sources, "b.so")
    assert ctypes.CDLL(str(sources / "b.so")).answer() == 42


def test_a_header_is_part_of_what_changed(sources):
    built(sources)
    (sources / "src" / "some.h").write_text("#pragma once\n")
    assert built(sources)


def test_a_compiler_s_error_is_told(sources, capfd):
    (sources / "src" / "answer.cpp").write_text(SOURCE % "nonsense")
    with pytest.raises(CompileError, match="nonsense"):
        built(sources)
    assert "nonsense" in capfd.readouterr().err


def test_no_compiler_and_no_sources_are_reasons(sources, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NoCompilerError, match="no-such-compiler"):
        built(sources)
    monkeypatch.delenv("CXX")
    for file in (sources / "src").iterdir():
        file.unlink()
    with pytest.raises(NoCompilerError, match="no sources"):
        built(sources)


@pytest.fixture
def fresh_library():
    library.library.cache_clear()
    yield
    library.library.cache_clear()


@pytest.mark.usefixtures("fresh_library")
def test_a_library_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")
    with pytest.raises(library.KernelsError, match=r"none\.so was not built"):
        library.library()
    (tmp_path / "none.so").write_text("no library")
    with pytest.raises(library.KernelsError, match=r"none\.so cannot be loaded"):
        library.library()
