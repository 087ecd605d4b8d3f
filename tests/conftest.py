"""What every tier of tests shares."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline per example: nothing here asserts time, and a machine may be busy. The same examples each time, so that
# what is red has been made so by a change. `make search` goes where no run has been; a blob makes its find repeatable.
settings.register_profile("moorage", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("moorage")

if importlib.util.find_spec("triton"):
    # Triton decides when it is loaded, which torch does when it is loaded itself, whether its own functions are
    # interpreted: so this comes before all tests. The variable is not left behind: engines that tests start on a
    # machine with a GPU would run by the interpreter.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("triton.language")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of this repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def load_module():
    """Loads a module that lies beside tests, which are no packages."""

    def load(path: Path):
        name = f"beside_tests_{path.parent.name}_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
