"""How much of its processors a server uses."""

import os
import subprocess
import sys

import pytest

from moorage_runtime.server.cpu import CpuMeter, spent_seconds

TICK = 1 / os.sysconf("SC_CLK_TCK")


class World:
    """A clock and what has been computed, set by the test."""

    def __init__(self):
        self.now = self.spent = 100.0

    def pass_(self, seconds, computed):
        self.now += seconds
        self.spent += computed


@pytest.fixture
def world():
    return World()


@pytest.fixture
def meter(world):
    return CpuMeter(2.0, lambda: world.spent, lambda: world.now)


def test_nothing_is_known_before_the_first_second_is_over(meter, world):
    assert meter.utilization() is None
    world.pass_(0.5, 1)
    assert meter.utilization() is None


def test_it_is_the_share_since_it_was_measured_last(meter, world):
    world.pass_(1, 1.5)
    assert meter.utilization() == 0.75
    world.pass_(10, 2)
    assert meter.utilization() == 0.1


def test_who_asks_often_gets_the_last_second(meter, world):
    world.pass_(1, 1)
    for _ in range(4):
        assert meter.utilization() == 0.5
        world.pass_(0.25, 0)
    assert meter.utilization() == 0


@pytest.mark.parametrize(("computed", "found"), [(2.1, 1), (-0.5, 0)])
def test_it_is_never_more_than_all_nor_less_than_nothing(meter, world, computed, found):
    world.pass_(1, computed)
    assert meter.utilization() == found


def _process(proc, pid, parent, ticks, name="python"):
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    times = " ".join(map(str, ticks))
    (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1 4194560 0 0 0 0 {times} 20 0 1 0 5 0 0\n")


def test_a_process_and_its_descendants_count_and_no_others(tmp_path):
    _process(tmp_path, 10, 1, (1, 2, 3, 4))
    _process(tmp_path, 11, 10, (10, 20, 0, 0), "a) R (b")
    _process(tmp_path, 12, 11, (100, 0, 0, 0))
    _process(tmp_path, 13, 1, (5000, 0, 0, 0))
    (tmp_path / "14").mkdir()  # has just ended
    (tmp_path / "self").mkdir()
    assert spent_seconds(tmp_path, 10) == pytest.approx(140 * TICK)


def test_a_real_child_counts_while_it_runs_and_afterwards():
    program = "import sys, time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\nsys.stdin.read()"
    before = spent_seconds()
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"done\n"
        assert spent_seconds() - before >= 0.2 - 2 * TICK
        child.stdin.close()
        child.wait()
    assert spent_seconds() - before >= 0.2 - 2 * TICK
