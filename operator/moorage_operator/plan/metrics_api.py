"""Who serves `custom.metrics.k8s.io`: decides when our gateways are registered for it, and when that is taken back.

A cluster has one server of that group. The operator registers the gateways, and not the chart, because a registration
that nobody answers blocks the deletion of every namespace, and because somebody else's must never be written over.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/api-service-v1/
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import Manifest, dig, label_of

NAME: Final = f"{names.METRICS_VERSION}.{names.METRICS_GROUP}"
"""Of our registration."""
OF_THE_GROUP: Final = tuple(f"{version}.{names.METRICS_GROUP}" for version in ("v1beta1", "v1beta2", "v1"))
"""Every registration that there can be: whoever has one of them has the group."""
OF_PODS: Final = "v1beta1.metrics.k8s.io"
"""That of metrics-server, which measures the CPU of pods."""
SILENCE: Final = 60.0
"""Seconds without any gateway that serves metrics, after which the registration goes. A restart takes less."""


@dataclass(frozen=True)
class MetricsApi:
    """Whether autoscalers can have our metrics."""

    served: bool = False
    """Our gateways are registered."""
    at_hand: bool = False
    """They are not, since nobody has wanted them, or since no gateway has served them for less than a minute."""
    owner: str = ""
    """Who else is, in words; empty: nobody."""
    cpu: bool = False
    """Whether there is a metrics-server. For one that is away for a moment an autoscaler waits by itself."""
    cluster: bool = True
    """Whether this installation may register anything at all."""


@dataclass(frozen=True)
class Seen:
    """What is known of the registration, the gateways, and of those who want metrics."""

    services: Mapping[str, Manifest]
    """The APIServices of `OF_THE_GROUP` and `OF_PODS` that there are, by name."""
    namespace: str
    """Where the gateways are."""
    wanted: bool
    """Whether any deployment has spec.autoscaling."""
    certificates: tuple[str, ...] = ()
    """What the gateways prove themselves by, as PEM."""
    silent: float = 0.0
    """Seconds since a ready gateway last served metrics; 0 while one does."""
    owner: Manifest | None = None
    """An owner reference for the registration, so that it goes with the installation."""


@dataclass(frozen=True)
class Registration:
    """What is so from now on, and what has to be written for that."""

    state: MetricsApi
    apply: Manifest | None = None
    delete: Manifest | None = None
    reason: str = ""


def registration(seen: Seen) -> Registration:
    """Decide."""
    ours = seen.services.get(NAME)
    ours = ours if ours is not None and _is_ours(ours, seen.namespace) else None
    cpu = OF_PODS in seen.services
    there = [seen.services[name] for name in OF_THE_GROUP if name in seen.services]
    other = next((one for one in there if one is not ours), None)
    if other is not None:
        owner = _words(other)
        return Registration(MetricsApi(owner=owner, cpu=cpu), delete=ours, reason=owner)
    if not seen.wanted:
        state = MetricsApi(at_hand=not seen.silent, cpu=cpu)
        return Registration(state, delete=ours, reason="nothing is autoscaled any more")
    if seen.silent >= SILENCE:
        why = f"no gateway has served metrics for {SILENCE:g} s"
        return Registration(MetricsApi(cpu=cpu), delete=ours, reason=why)
    if seen.silent:
        return Registration(MetricsApi(served=ours is not None, at_hand=ours is None, cpu=cpu))
    return Registration(MetricsApi(served=True, cpu=cpu), apply=api_service(seen), reason="the gateways serve metrics")


def api_service(seen: Seen) -> dict[str, Any]:
    """Our registration. Each gateway has a certificate of its own; the bundle has all of them."""
    bundle = "".join(f"{one.strip()}\n" for one in sorted(set(seen.certificates)))
    metadata: dict[str, Any] = {"name": NAME, "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY}}
    if seen.owner is not None:
        metadata["ownerReferences"] = [seen.owner]
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": metadata,
        "spec": {
            "group": names.METRICS_GROUP,
            "version": names.METRICS_VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": seen.namespace, "name": names.GATEWAY_METRICS, "port": 443},
            "caBundle": base64.b64encode(bundle.encode()).decode(),
        },
    }


def _is_ours(service: Manifest, namespace: str) -> bool:
    target = dig(service, "spec", "service", default={})
    here = (target.get("namespace"), target.get("name")) == (namespace, names.GATEWAY_METRICS)
    return here and label_of(service, names.MANAGED_BY_LABEL) == names.MANAGED_BY


def _words(service: Manifest) -> str:
    target = dig(service, "spec", "service", default={})
    who = f"{target.get('namespace')}/{target.get('name')}" if target else "the API server itself"
    return f"{dig(service, 'metadata', 'name')} is served by {who}"
