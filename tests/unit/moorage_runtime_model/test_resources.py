"""Limits of the container, read from trees of control groups as kernels lay them."""

import mmap
import os

import pytest

from moorage_runtime import resources

GIB = 2**30


class Machine:
    """A /sys/fs/cgroup and a /proc."""

    def __init__(self, folder):
        self.root, self.proc = folder / "cgroup", folder / "proc"
        (self.proc / "self").mkdir(parents=True)
        self.root.mkdir()
        self.write(self.proc / "meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n")
        self.groups("0::/")

    def groups(self, text):
        self.write(self.proc / "self" / "cgroup", text)

    def cgroup(self, path, text):
        self.write(self.root / path, text)

    @staticmethod
    def write(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    @property
    def quota(self):
        return resources.cpu_quota(self.root, self.proc)

    @property
    def memory(self):
        return resources.memory_limit(self.root, self.proc)

    @property
    def threads(self):
        return resources.compute_threads(self.root, self.proc)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def eight_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def test_version_2_in_a_container(machine):
    machine.cgroup("cpu.max", "150000 100000")
    machine.cgroup("memory.max", str(2 * GIB))
    assert (machine.quota, machine.memory) == (1.5, 2 * GIB)


def test_version_2_the_tightest_of_all_groups_above_counts(machine):
    machine.groups("0::/kubepods/pod1/container")
    machine.cgroup("kubepods/pod1/cpu.max", "50000 100000")
    machine.cgroup("kubepods/pod1/container/cpu.max", "max 100000")
    machine.cgroup("kubepods/memory.max", str(3 * GIB))
    machine.cgroup("kubepods/pod1/memory.max", str(4 * GIB))
    assert (machine.quota, machine.memory) == (0.5, 3 * GIB)


def test_version_1_in_a_container_that_sees_the_paths_of_its_host(machine):
    machine.groups("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc")
    machine.cgroup("cpu,cpuacct/cpu.cfs_quota_us", "250000")
    machine.cgroup("cpu,cpuacct/cpu.cfs_period_us", "100000")
    machine.cgroup("memory/memory.limit_in_bytes", str(GIB))
    assert (machine.quota, machine.memory) == (2.5, GIB)


def test_version_1_without_limits(machine):
    machine.groups("5:cpu:/\n4:memory:/")
    machine.cgroup("cpu/cpu.cfs_quota_us", "-1")
    machine.cgroup("cpu/cpu.cfs_period_us", "100000")
    machine.cgroup("memory/memory.limit_in_bytes", "9223372036854771712")
    assert (machine.quota, machine.memory) == (None, 8 * GIB)


def test_without_a_limit_memory_is_what_is_available(machine):
    machine.cgroup("memory.max", "max")
    assert machine.memory == 8 * GIB


@pytest.mark.usefixtures("eight_processors")
@pytest.mark.parametrize(
    ("quota", "threads"),
    [("max", 8), ("50000", 1), ("100000", 1), ("199999", 1), ("200000", 2), ("6400000", 8)],
)
def test_threads_are_whole_processors_of_the_quota_within_the_affinity(machine, quota, threads):
    machine.cgroup("cpu.max", f"{quota} 100000")
    assert machine.threads == threads


def test_the_real_files_can_be_read():
    assert resources.compute_threads() >= 1
    assert resources.memory_limit() > resources.resident_bytes() > 2**20


def test_memory_that_processes_share_is_known(machine):
    machine.write(machine.proc / "self" / "status", "VmRSS:\t 9000 kB\nRssShmem:\t    1200 kB\nThreads:\t1")
    assert resources.shared_bytes(machine.proc) == 1200 * 1024
    machine.write(machine.proc / "self" / "status", "Name:\tpython")
    assert resources.shared_bytes(machine.proc) == 0


def test_memory_that_is_shared_is_counted_where_it_was_touched():
    with mmap.mmap(-1, 8 * 2**20) as shared:
        before, resident = resources.shared_bytes(), resources.resident_bytes()
        shared.write(bytes(8 * 2**20))
        assert resources.shared_bytes() - before == pytest.approx(8 * 2**20, rel=0.1)
        assert resources.resident_bytes() - resident >= 7 * 2**20
