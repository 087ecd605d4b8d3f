"""Reasons and condition types: words that programs compare, with an explanation for people."""

import re

import pytest

from moorage_api.conditions import PODS_ON_THE_WAY, ConditionType, Reason

WORDS = [*Reason, *ConditionType]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_as_kubernetes_wants_it_and_explained(word):
    assert re.fullmatch("[A-Z][A-Za-z]*", word)
    assert word.explanation.endswith(".")


def test_a_word_is_its_text():
    assert Reason("WaitingForGPU") is Reason.WAITING_FOR_GPU
    assert f"{Reason.SERVING}" == "Serving"


def test_every_reason_that_a_container_may_give_is_known(checkout):
    """The contract lists the reasons that `fetch` and `server` write into their termination messages."""
    contract = (checkout / "docs" / "contracts.md").read_text()
    listed = re.findall(r"`reason` is one of ([^|]*?)(?: \||$)", contract, re.MULTILINE)
    given = {reason for each in listed for reason in re.findall("`([A-Za-z]+)`", each)}
    assert {"ModelNotFound", "InsufficientMemory"} <= given
    assert given <= set(Reason)


def test_the_phases_of_a_start_are_in_order():
    assert [str(phase) for phase in PODS_ON_THE_WAY] == ["Scheduling", "FetchingModel", "LoadingWeights", "WarmingUp"]
