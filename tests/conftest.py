"""What every tier of tests shares."""

from pathlib import Path

import pytest
from hypothesis import settings

# No deadline per example: nothing here asserts time, and a machine may be busy. The blob makes a failure repeatable.
settings.register_profile("moorage", deadline=None, print_blob=True)
settings.load_profile("moorage")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of this repository."""
    return Path(__file__).resolve().parents[1]
