"""Where a process is in a group of ranks: pure arithmetic over flags and the variables that LeaderWorkerSet sets.

A group has `ranks` ranks, numbered from 0; each pod computes equally many, one after the other. Rank 0 leads: the
others find it by its address.
"""

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_PORT = 8010
LOOPBACK = "127.0.0.1"


class PlaceError(ValueError):
    """What was asked for is no place in a group."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the leader listens; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`HOST`, `HOST:PORT` or `[HOST]:PORT`.

        Raises:
            PlaceError: it is none of them.
        """
        host, colon, port = text.rpartition(":")
        if not colon or (":" in host and not host.endswith("]")):  # a name, or an IPv6 address without a port
            host, port = text, str(DEFAULT_PORT)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the last port
            raise PlaceError(f"{text!r} is no HOST or HOST:PORT")
        return cls(host, int(port))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """A pod's place in its group."""

    ranks: int
    first_rank: int
    """The first that is computed in this pod."""
    local_ranks: int
    leader: Address

    @property
    def leads(self) -> bool:
        """Whether rank 0 is here."""
        return self.first_rank == 0

    @property
    def in_one_pod(self) -> bool:
        """Whether all ranks are here."""
        return self.local_ranks == self.ranks


def place_of(
    ranks: int, pods: int | None, rank: int | None, leader: str | None, environment: Mapping[str, str]
) -> Place | None:
    """The place that was asked for; None without a group.

    Args:
        ranks: Of the whole group.
        pods: Pods that they are in, equally many in each; None: what LWS_GROUP_SIZE says, else one.
        rank: The first one here; None: by LWS_WORKER_INDEX, else 0.
        leader: Address of rank 0; None: LWS_LEADER_ADDRESS, where there are several pods.
        environment: With or without LeaderWorkerSet's variables.

    Raises:
        PlaceError: these do not go together.
    """
    pods = _number(environment, "LWS_GROUP_SIZE", 1) if pods is None else pods
    if pods == 1 and not (rank is None and leader is None):
        raise PlaceError(
            "--rank and --leader-address are for ranks in several pods; say how many of both there are "
            "(--tensor-parallel, --pods)"
        )
    if pods < 1 or ranks % pods:
        raise PlaceError(f"{_counted(ranks, 'rank')} cannot be divided equally between {_counted(pods, 'pod')}")
    if ranks == 1:
        return None
    local = ranks // pods
    if pods == 1:
        return Place(ranks, 0, ranks, Address(LOOPBACK, 0))
    first = _number(environment, "LWS_WORKER_INDEX", 0) * local if rank is None else rank
    if first not in range(0, ranks, local):
        firsts = ", ".join(map(str, range(0, ranks, local)))
        raise PlaceError(f"rank {first} is not the first one of a pod: with {local} in each those are {firsts}")
    leader = leader or environment.get("LWS_LEADER_ADDRESS")
    if not leader:
        raise PlaceError("ranks in several pods need the leader's address: --leader-address, or LWS_LEADER_ADDRESS")
    return Place(ranks, first, local, Address.parse(leader))


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdigit():
        raise PlaceError(f"{name} is {text!r}; it must be a whole number")
    return int(text)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
