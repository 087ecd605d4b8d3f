"""What runs the replicas of each revision: a Deployment, or a workload for each replica that is a group of pods."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moorage_operator.manifest import Manifest, dig, is_deleting, revision_of, uid_of
from moorage_operator.plan.groups import Group
from moorage_operator.render.workload import restart_of


@dataclass(frozen=True)
class Workload:
    """All of one revision."""

    manifests: tuple[Manifest, ...] = ()
    replicas: int = 0
    """How many it asks for."""
    made: int = 0
    """How many it makes pods for: of groups that are replaced by others, both."""

    def refusal(self, told: Mapping[str, str]) -> str:
        """What keeps it from making its pods, in the API server's words; empty when nothing does.

        Args:
            told: what controllers have said in events, by the uid of the workload, of those whose status cannot say it.
        """
        conditions = (one for manifest in self.manifests for one in dig(manifest, "status", "conditions", default=()))
        failures = (one for one in conditions if one["type"] == "ReplicaFailure" and one["status"] == "True")
        said = next((str(one.get("message", "")) for one in failures), "")
        return said or next((words for one in self.manifests if (words := told.get(uid_of(one)))), "")


def workloads(deployments: Iterable[Manifest], groups: Mapping[int, tuple[Group, ...]]) -> dict[int, Workload]:
    """Those of the revisions that have one, or some."""
    found = {number: _deployment(one) for one in deployments if (number := revision_of(one))}
    for number, those in groups.items():
        sets = tuple(one.workload for one in those if one.workload is not None)
        if sets:
            before, made = found.get(number, Workload()), sum(not is_deleting(one) for one in sets)
            manifests = (*before.manifests, *sets)
            found[number] = Workload(manifests, before.replicas + _asked(sets), before.made + made)
    return found


def _deployment(manifest: Manifest) -> Workload:
    replicas = int(dig(manifest, "spec", "replicas", default=0))
    return Workload((manifest,), replicas, replicas)


def _asked(sets: Sequence[Manifest]) -> int:
    """The replicas that groups stand for: while some are replaced by others, not both."""
    restarts = [restart_of(one) for one in sets if not is_deleting(one)]
    new = restarts.count(max(restarts, default=""))
    return max(new, len(restarts) - new)
