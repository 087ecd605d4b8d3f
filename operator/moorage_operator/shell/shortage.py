"""Who waits for accelerators: then what is kept warm in the namespace makes room, and people hear who has some free."""

from moorage_api import names
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key, Manifest, dig, key_of


def keeps_warm(deployment: Manifest | None) -> bool:
    """Whether a deployment keeps replicas that it could give up."""
    return dig(deployment, "spec", "rollout", "keepWarm") is not None


def is_short(store: Store, namespace: str) -> bool:
    """Whether a pod of any LLMDeployment of the namespace waits for accelerators."""
    return any(_lacks_accelerators(pod, _owner(store, key_of(pod))) for pod in store.unplaced(namespace))


def waits(store: Store, key: Key) -> bool:
    """Whether a pod of that deployment waits for accelerators."""
    return any(_lacks_accelerators(pod, _owner(store, key)) for pod in store.unplaced_of(key))


def keepers(store: Store, namespace: str) -> tuple[Key, ...]:
    """The deployments of the namespace that keep replicas warm, and give them up while it is short."""
    keys = (key for key in store.deployments() if key.namespace == namespace)
    return tuple(key for key in keys if keeps_warm(_owner(store, key)))


def _owner(store: Store, key: Key) -> Manifest | None:
    return store.get(names.KIND, key.namespace, key.name)


def _lacks_accelerators(pod: Manifest, owner: Manifest | None) -> bool:
    """Whether the scheduler names the accelerators, or the nodes that have them, as what is missing."""
    accelerator = dig(owner, "spec", "accelerator")
    if accelerator is None:
        return False
    conditions = dig(pod, "status", "conditions", default=())
    words = next((str(one.get("message", "")) for one in conditions if one["type"] == "PodScheduled"), "")
    return str(accelerator.get("resource")) in words or "node affinity" in words
