"""Programs of the distribution, installed where they are missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster.paths import REPOSITORY
from e2e.tests.test_command import is_blocked
from e2e.waiting import eventually

ENSURE = """
import os
from e2e.cluster import packages
from e2e.cluster.progress import Progress
os.geteuid = lambda: 0  # what is called is no real apt-get
packages.ensure([packages.Requirement("a-package", "a-program-of-it")], Progress())
"""
APT_GET = """#!/bin/sh
echo "$@" >> {folder}/calls
read -r _ < {folder}/go
printf '#!/bin/sh\\n' > {folder}/bin/a-program-of-it
chmod +x {folder}/bin/a-program-of-it
"""


@pytest.fixture
def machine(tmp_path):
    """Variables of a machine whose apt-get says what it is asked for, and waits to be let go."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "calls").touch()
    os.mkfifo(tmp_path / "go")
    apt_get = tmp_path / "bin" / "apt-get"
    apt_get.write_text(APT_GET.format(folder=tmp_path))
    apt_get.chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_two_that_miss_the_same_install_it_once(tmp_path, machine):
    def ensure():
        argv, variables = [sys.executable, "-c", ENSURE], {**os.environ, **machine}
        return subprocess.Popen(argv, cwd=REPOSITORY, env=variables, stderr=subprocess.PIPE, text=True)

    def calls():
        return (tmp_path / "calls").read_text().splitlines()

    def waits_or_calls_too():
        locks = Path("/proc/locks").read_text().splitlines()
        return any(is_blocked(line, second.pid) for line in locks) or len(calls()) > 1

    with ensure() as first:
        eventually(calls, bool)
        with ensure() as second:
            eventually(waits_or_calls_too, bool)
            for _ in calls():
                (tmp_path / "go").write_text("go\n")
            said = second.communicate()[1]
    assert (first.returncode, second.returncode, len(calls())) == (0, 0, 1), said
    assert calls()[0].endswith(" a-package")
    assert "waiting for another process that works on packages" in said
