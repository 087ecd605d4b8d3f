"""Which provider runs a cluster: the one asked for, else the one whose cluster is there, else what works here."""

import os
from collections.abc import Iterator
from typing import Final, get_args

from e2e.cluster import kind, local
from e2e.cluster.kind.docker import Docker
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
    providers: list[Provider] = [kind.KindProvider(name), local.LocalProvider(name)]
    if not Docker().answers():
        providers.reverse()  # kind would have to bring a Docker engine along, which is slower
    obstacles = {provider.kind: provider.obstacle() for provider in providers}
    usable = [provider for provider in providers if obstacles[provider.kind] is None]
    if not usable:
        reasons = "; ".join(f"{kind}: {obstacle}" for kind, obstacle in obstacles.items())
        raise ClusterError(f"No provider can run a cluster on this machine: {reasons}")
    return next((provider for provider in usable if provider.exists()), usable[0])


def every_cluster() -> Iterator[Provider]:
    """Return every cluster of this machine, whoever runs it."""
    yield from kind.every_cluster()
    yield from local.every_cluster()


def _forced(name: str, wanted: str) -> Provider:
    if wanted not in get_args(ProviderName):
        raise ClusterError(f"Unknown provider {wanted!r}: it is one of {', '.join(get_args(ProviderName))}")
    provider: Provider = kind.KindProvider(name) if wanted == "kind" else local.LocalProvider(name)
    if obstacle := provider.obstacle():
        raise ClusterError(f"The provider {wanted} cannot work here: {obstacle}")
    return provider
