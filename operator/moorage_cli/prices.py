"""What replicas cost: a price map of the installation or of a person, and the sum.

    currency: EUR
    perHour: {NVIDIA-H100-80GB-HBM3: 2.4, nvidia.com/gpu: 1.1, cpu: 0.03, memory: 0.004}

A key is a product of accelerators (the node label nvidia.com/gpu.product), or a resource: of an accelerator whose
product has no price, `cpu` for a core, `memory` for a GiB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from moorage_cli.errors import CommandError
from moorage_operator.manifest import Manifest
from moorage_operator.plan.nodes import asked

CONFIG_MAP: Final = "moorage-prices"
"""The chart's; its key `prices.yaml` holds such a map."""
KEY: Final = "prices.yaml"
_UNITS: Final = {"cpu": Decimal(1), "memory": Decimal(2**30)}


@dataclass(frozen=True)
class Prices:
    """Amounts of money per hour, by what they are for."""

    per_hour: Mapping[str, Decimal]
    currency: str = ""


@dataclass(frozen=True)
class Cost:
    """Of one replica for an hour; a range where products that will do differ in price."""

    least: Decimal
    most: Decimal
    priced: tuple[str, ...]
    """What of it has a price, which may be 0."""
    unpriced: tuple[str, ...]
    """What it asks for, or may get, and has no price."""


def read_prices(raw: Any, where: str) -> Prices:
    """A price map as it was written.

    Raises:
        CommandError: it is none.
    """
    try:
        per_hour = {str(name): Decimal(str(price)) for name, price in raw["perHour"].items()}
        currency = str(raw.get("currency") or "")
    except (TypeError, KeyError, AttributeError, InvalidOperation) as error:
        said = "write currency: NAME and perHour: {PRODUCT or RESOURCE: NUMBER}"
        raise CommandError(f"{where} is no price map: {said}") from error
    if wrong := [name for name, price in per_hour.items() if not price.is_finite() or price < 0]:
        raise CommandError(f"{where} is no price map: what {wrong[0]} costs is no amount")
    return Prices(per_hour, currency)


def cost(spec: Manifest, products: tuple[str, ...], prices: Prices) -> Cost:
    """What a pod of `spec` costs, whose accelerators are one of `products` (empty: any)."""
    least = most = Decimal(0)
    priced: list[str] = []
    unpriced: list[str] = []
    for resource, amount in sorted(asked(spec).items()):
        kinds = products if "/" in resource and products else (resource,)
        found = {kind: prices.per_hour.get(kind, prices.per_hour.get(resource)) for kind in kinds}
        known = [price for price in found.values() if price is not None]
        unpriced += [kind for kind, price in found.items() if price is None]
        if known:
            priced.append(resource)
            units = amount / _UNITS.get(resource, Decimal(1))
            least, most = least + units * min(known), most + units * max(known)
    return Cost(least, most, tuple(priced), tuple(unpriced))


def cost_line(one: Cost, replicas: int, at_most: int, prices: Prices) -> str:
    """What `replicas` cost, and `at_most` of them while a rollout goes on."""
    if not one.priced:
        return f"nothing of what a replica asks for has a price: {', '.join(one.unpriced) or 'it asks for nothing'}"
    each, together = _money(one, 1, prices), _money(one, replicas, prices)
    line = f"{together} an hour" if replicas == 1 else f"{together} an hour for {replicas} replicas at {each} each"
    if at_most > replicas:
        line += f"; at most {_money(one, at_most, prices)} while it rolls out"
    return f"{line}; without {', '.join(one.unpriced)}, which have no price" if one.unpriced else line


def _money(one: Cost, times: int, prices: Prices) -> str:
    span = f"{one.least * times:.2f}"
    if one.least != one.most:
        span += f" to {one.most * times:.2f}"
    return f"{span} {prices.currency}".rstrip()
