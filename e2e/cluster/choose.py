"""Which provider runs a cluster: the one asked for, else the one whose cluster is there, else what works here."""

import os
from typing import Final, get_args

from e2e.cluster.kind import KindProvider
from e2e.cluster.local import LocalProvider
from e2e.cluster.provider import ClusterError, Provider, ProviderName

PROVIDER_VARIABLE: Final = "MOORAGE_PROVIDER"


def choose(name: str, wanted: str | None = None) -> Provider:
    """Return the provider of the cluster `name`.

    `wanted`, else the environment's MOORAGE_PROVIDER, forces one. Otherwise a cluster of that name that exists is
    found again; otherwise it is kind where a Docker engine answers, else local.

    Raises:
        ClusterError: neither can work here, or the wanted one is unknown or cannot; says in a sentence what is missing.
    """
    wanted = wanted or os.environ.get(PROVIDER_VARIABLE) or None
    if wanted is not None:
        return _forced(name, wanted)
    providers: list[Provider] = [KindProvider(name), LocalProvider(name)]
    obstacles = []
    for provider in providers:
        obstacle = provider.obstacle()
        if obstacle is None and provider.exists():
            return provider
        obstacles.append(obstacle)
    for provider, obstacle in zip(providers, obstacles, strict=True):
        if obstacle is None:
            return provider
    reasons = "; ".join(f"{p.kind}: {o}" for p, o in zip(providers, obstacles, strict=True))
    raise ClusterError(f"No provider can run a cluster on this machine: {reasons}")


def _forced(name: str, wanted: str) -> Provider:
    if wanted not in get_args(ProviderName):
        raise ClusterError(f"Unknown provider {wanted!r}: it is one of {', '.join(get_args(ProviderName))}")
    provider: Provider = KindProvider(name) if wanted == "kind" else LocalProvider(name)
    if obstacle := provider.obstacle():
        raise ClusterError(f"The provider {wanted} cannot work here: {obstacle}")
    return provider
