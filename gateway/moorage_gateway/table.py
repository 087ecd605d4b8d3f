"""The route table: which public name leads to which model, and where its replicas are. Pure and frozen.

One table is built from the last known objects and swapped in whole, so that a request sees one state from its first
line to its last byte.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

Key = tuple[str, str]
"""Namespace and name of an LLMDeployment."""


@dataclass(frozen=True, slots=True)
class Target:
    """One replica that takes requests.

    Attributes:
        key: The pod's UID: a new pod at an old address is another target.
        pod: The pod's name, for people.
        address: `host:port`, IPv6 in brackets.
    """

    key: str
    pod: str
    address: str


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a model: its share of new requests (in all 100) and its replicas by pod name."""

    number: int
    weight: int
    targets: tuple[Target, ...]


Open = tuple[Revision, Sequence[Target]]
"""A revision that takes requests, and its replicas."""


def serving(revisions: Sequence[Revision], without: AbstractSet[str] = frozenset()) -> list[Open]:
    """Those that take requests: they have weight and a target. Where none does, all that have a target.

    The table is a moment behind the pods, and a request that can be answered is answered.

    Args:
        revisions: All of the model, by number.
        without: Keys of targets that count as not there.
    """
    found = [(each, targets) for each in revisions if (targets := _left(each.targets, without))]
    return [each for each in found if each[0].weight] or found


def _left(targets: Sequence[Target], without: AbstractSet[str]) -> Sequence[Target]:
    return [each for each in targets if each.key not in without] if without else targets


@dataclass(frozen=True, slots=True)
class Start:
    """What a request may hope for where a model has no target.

    Attributes:
        possible: Whether a start is under way, or a request would bring one about.
        proven: Whether what would start has served before: it only sleeps.
        ready_at: When it should be there, in seconds since the epoch; None: nobody knows.
        seconds: How long the last one took; 0: nobody knows.
    """

    possible: bool = False
    proven: bool = False
    ready_at: float | None = None
    seconds: int = 0


_NO_START: Final = Start()


@dataclass(frozen=True, slots=True)
class Model:
    """One LLMDeployment as requests see it.

    Attributes:
        namespace: Where the object is.
        deployment: The object's name.
        name: What clients put in `model`; unique in its namespace once it is in a table.
        created: Seconds since the epoch; the older of two objects with one name keeps it.
        reason: The reason of the object's Ready condition.
        message: The message of the object's Ready condition.
        revisions: By number, those of weight 0 too.
        start: What to hope for without a target.
        full_at: So many requests one replica computes together; more wait there.
        labels: The object's own, sorted.
    """

    namespace: str
    deployment: str
    name: str
    created: int
    reason: str
    message: str
    revisions: tuple[Revision, ...]
    start: Start = _NO_START
    full_at: int = 64
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> Key:
        """Where the object is; names may change, this does not."""
        return self.namespace, self.deployment

    @property
    def full_name(self) -> str:
        """The name that always works."""
        return f"{self.namespace}/{self.name}"

    @property
    def can_serve(self) -> bool:
        """Whether a request for it would find a target, or wake one."""
        return any(revision.targets for revision in self.revisions) or (self.start.possible and self.start.proven)


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A plain name that several namespaces use, and the full names that say which is meant."""

    full_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Every name that resolves, and every model by its object. A full name is never shadowed by a plain one."""

    full: Mapping[str, Model] = field(default_factory=dict)
    plain: Mapping[str, Model | Ambiguous] = field(default_factory=dict)
    by_key: Mapping[Key, Model] = field(default_factory=dict)

    def resolve(self, name: str) -> Model | Ambiguous | None:
        """What `name` stands for; None where nothing has that name."""
        return self.full.get(name) or self.plain.get(name)

    def targets(self) -> Iterator[Target]:
        """Every target that a request could be sent to."""
        for model in self.full.values():
            for revision in model.revisions:
                yield from revision.targets

    def shortest_name(self, model: Model) -> str:
        """The plain name where it leads to the model, else the full one."""
        return model.name if self.resolve(model.name) is model else model.full_name


EMPTY: Final = Table()


def build(models: Iterable[Model]) -> Table:
    """Name every model: `namespace/name` always, the plain name while one namespace has it.

    Of two models of one name in one namespace the older wins (then the one whose object's name comes first), so that a
    newcomer never takes over the requests of a model that serves.
    """
    full: dict[str, Model] = {}
    for model in sorted(models, key=lambda m: (m.created, m.namespace, m.deployment)):
        full.setdefault(model.full_name, model)
    uses = Counter(model.name for model in full.values())
    plain: dict[str, Model | Ambiguous] = {m.name: m for m in full.values() if uses[m.name] == 1}
    for name, count in uses.items():
        if count > 1:
            plain[name] = Ambiguous(tuple(sorted(key for key, model in full.items() if model.name == name)))
    return Table(full, plain, {model.key: model for model in full.values()})
