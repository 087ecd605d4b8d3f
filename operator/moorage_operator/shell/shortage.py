"""Who waits for accelerators: then what is kept warm in the namespace makes room, and people hear who has some free."""

from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key, Manifest, dig, key_of, revision_of
from moorage_operator.plan.accelerators import Accelerators
from moorage_operator.plan.pods import replica_of, scheduler_said
from moorage_operator.render.context import Owner


def is_short(store: Store, namespace: str) -> bool:
    """Whether a pod of any LLMDeployment of the namespace waits for accelerators."""
    return any(_lacks_accelerators(store, pod) for pod in store.unplaced(namespace))


def waits(store: Store, key: Key) -> bool:
    """Whether a pod of that deployment waits for accelerators."""
    return any(_lacks_accelerators(store, pod) for pod in store.unplaced_of(key))


def looks_for_room(store: Store, key: Key) -> bool:
    """Whether a pod of that deployment waits for accelerators, or for nodes that others have filled."""
    return waits(store, key) or any(replica_of(pod).crowded_since is not None for pod in store.unplaced_of(key))


def _lacks_accelerators(store: Store, pod: Manifest) -> bool:
    """Whether the scheduler names those that the pod's own revision is given as what is missing."""
    key = key_of(pod)
    owner = Owner(key.name, key.namespace, uid="")
    record = store.get("ControllerRevision", key.namespace, owner.revision_name(revision_of(pod)))
    given = Accelerators.of(dig(record, "data"))
    return given is not None and given.lacked(scheduler_said(pod))
