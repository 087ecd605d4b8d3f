"""What is applied and deleted for replicas that are several pods each."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from moorage_operator.plan.arrange import Arrangement, Order, arrange
from moorage_operator.plan.divide import Share
from moorage_operator.plan.nodes import asked
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.snapshot import Apply, Delete
from moorage_operator.plan.status import Judged
from moorage_operator.render.context import Owner
from moorage_operator.render.sharding import pods_of, ranks_policy, ranks_service
from moorage_operator.render.workload import Making, group

Arranged: TypeAlias = Mapping[int, Arrangement]
"""By revision, of those whose replicas are several pods."""
_Place: TypeAlias = tuple[object, ...]


def arranged(decided: Judged) -> Arranged:
    """Which groups there shall be, of one revision after the other: what one takes the next one has not."""
    found, budget = decided.found, decided.verdict.restarts
    serving, promise = _serving(decided), max(0, found.wanted - budget.unavailable)
    grouped = {one.number for one in found.revisions if pods_of(one.template) > 1}
    room = found.ledger.left(share for share in decided.shares if share.number not in grouped)
    result, waiting = dict[int, Arrangement](), list[tuple[_Place, int]]()
    for share in decided.shares:
        made_of, number = found.revision(share.number), share.number
        if share.replicas is None or made_of is None or number not in grouped:
            continue
        cost = found.ledger.costs.get(number, 0)
        own = min(found.crew(number).relied_on, share.replicas + budget.surge) if number in serving else 0
        order = Order(
            share.replicas,
            restart=made_of.standing.restarted,
            surge=budget.surge,
            spare=own + sum(count for other, count in serving.items() if other != number) - promise,
            fitting=room // cost if cost else None,
            awaited=next((lacking for place, lacking in waiting if place == _place(made_of)), 0),
        )
        result[number] = arrange(found.groups.get(number, ()), order, found.routing, found.now)
        if (first := result[number].waiting) is not None:
            waiting.append((_place(made_of), pods_of(made_of.template) - first.placed))
        room -= cost * len(result[number].new)
        left = tuple(one.replica for one in result[number].kept if one.replica is not None)
        serving[number] = min(serving.get(number, 0), found.routing.relied_on(left))
    return result


def _serving(decided: Judged) -> dict[int, int]:
    """The replicas that are relied on, by revision, once the shares are in effect."""
    crews = ((share, decided.found.crew(share.number)) for share in decided.shares if not share.retired)
    return {share.number: min(crew.relied_on, share.replicas or 0) for share, crew in crews if not crew.failed}


def _place(made_of: Revision) -> _Place:
    """What its pods ask of a node: those that ask for the same wait for the same nodes."""
    spec = made_of.template["spec"]
    return asked(spec), *(spec.get(name) for name in ("nodeSelector", "affinity", "tolerations", "schedulerName"))


def surroundings(owner: Owner, groups: Arranged) -> Iterator[Apply]:
    """What ranks need before they start: nobody else can join them, and they find each other."""
    if groups:
        yield Apply(ranks_policy(owner), "the ranks of a replica let each other in, and nobody else")
        yield Apply(ranks_service(owner), "the ranks of a replica find each other by name")


def pods_wanted(made_of: Revision, share: Share) -> int:
    """How many pods a revision shall have, those of all its groups."""
    return (share.replicas or 0) * pods_of(made_of.template)


def applies(owner: Owner, made_of: Revision, share: Share, those: Arrangement, kind: str) -> Iterator[Apply]:
    """The groups of one revision that stay as they are, and new ones, which are workloads of that kind."""
    number, template, reason = share.number, made_of.template, f"revision {share.number}: {share.reason}"
    for one in those.kept:
        if one.workload is not None:
            yield Apply(group(owner, number, one.number, template, Making.of(one.workload)), reason)
    making = Making(kind, made_of.standing.restarted)
    for index in those.new:
        yield Apply(group(owner, number, index, template, making), reason)


def deletes(groups: Arranged) -> Iterator[Delete]:
    """Groups that go. What surrounds them stays: it selects nothing then, and goes with the deployment."""
    for number, those in groups.items():
        for one, reason in those.gone:
            if one.workload is not None:
                yield Delete(one.workload, f"revision {number}, group {one.number}: {reason}")
