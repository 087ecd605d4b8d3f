"""The processes of a pod's other ranks: who has ended, and that none is left."""

import os

import pytest

from moorage_runtime.group import siblings
from moorage_runtime.group.errors import GroupError
from moorage_runtime.group.leader import Leader
from moorage_runtime.group.place import LOOPBACK, Address, Place
from moorage_runtime.group.siblings import Siblings


def test_one_that_ends_before_all_are_here_ends_the_meeting(kit):
    with Siblings() as ranks, Leader(Place(3, 0, 3, Address(LOOPBACK, 0)), ranks) as leader:
        ranks.start(2, ["/bin/sh", "-c", "exit 7"], [])
        with pytest.raises(GroupError, match="rank 2 ended with exit code 7 before all were here"):
            leader.gather(kit.own, lambda _missing: None, kit.deadline)
        assert ranks.ended() == {2: 7}


def test_who_does_not_end_by_itself_is_killed(monkeypatch):
    monkeypatch.setattr(siblings, "_LAST_SECONDS", 0.05)
    with Siblings() as ranks:
        ranks.start(1, ["sleep", "3600"], [])
        ranks.start(2, ["sleep", "3600"], [])
        assert ranks.ended() == {}
    assert ranks.ended() == {1: -9, 2: -9}


def test_what_is_inherited_is_open_in_a_sibling(monkeypatch):
    monkeypatch.setattr(siblings, "_LAST_SECONDS", 60.0)
    memory = os.memfd_create("test")
    try:
        with Siblings() as ranks:
            ranks.start(1, ["/bin/sh", "-c", f"printf hello > /proc/self/fd/{memory}"], [memory])
        assert os.fstat(memory).st_size == 5
    finally:
        os.close(memory)
