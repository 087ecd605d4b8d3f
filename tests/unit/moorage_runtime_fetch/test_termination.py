"""A termination message is whole JSON within what the kubelet keeps, whatever the error."""

import json

import pytest

from moorage_runtime.termination import report_failure


@pytest.mark.parametrize("message", ["short", "a" * 9000, '\n"\x01' * 3000, "…" * 3000, ""])
def test_it_fits(tmp_path, message):
    path = tmp_path / "log"
    path.touch()
    report_failure(path, "program", "EngineFailed", message)
    assert len(path.read_bytes()) <= 4096
    said = json.loads(path.read_text())
    assert said["reason"] == "EngineFailed"
    assert message.startswith(said["error"])
    assert said["error"] or not message
