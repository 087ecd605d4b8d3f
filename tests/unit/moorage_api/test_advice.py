"""What spec pays for without use."""

import pytest

from moorage_api.advice import advice
from moorage_api.llmdeployment import Spec


@pytest.mark.parametrize(
    ("count", "ranks", "pods", "said"),
    [
        (1, 1, 1, ""),
        (4, 4, 1, ""),
        (2, 4, 2, ""),
        (8, 1, 1, "7 of the 8 accelerators of a replica do nothing, since its one rank uses one; raise "),
        (2, 1, 1, "1 of the 2 accelerators of a replica does nothing, since its one rank uses one; raise "),
        (4, 2, 2, "6 of the 8 accelerators of a replica do nothing, since its 2 ranks use one each; raise "),
    ],
)
def test_accelerators_that_no_rank_uses(count, ranks, pods, said):
    sharding = {"tensorParallel": ranks, "pods": pods}
    spec = {"model": {"source": "python://m==1"}, "accelerator": {"count": count}, "sharding": sharding}
    found = advice(Spec.model_validate(spec))
    assert found.startswith(said)
    assert bool(found) is bool(said)
    own = {**spec, "engine": {"image": "registry/another:1"}}
    assert not advice(Spec.model_validate(own)), "another engine may use all that its pod has"


def test_on_cpu_there_is_nothing_to_say():
    assert not advice(Spec.model_validate({"model": {"source": "python://m==1"}}))
