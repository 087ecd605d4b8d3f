"""A rank's part of a model, computed by torch: sums and rows over all ranks by torch.distributed (gloo, on GPUs NCCL).

A rank that is lost ends an exchange with an error at once (gloo), or after `EXCHANGE_SECONDS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from moorage_runtime.group.links import Links
from moorage_runtime.model.errors import ExchangeError
from moorage_runtime.model.native_group import EXCHANGE_SECONDS
from moorage_runtime.model.shares import Share
from moorage_runtime.model.torch_path.linear import Linear

_MEET_SECONDS = 60


class Residual(Protocol):
    """What adds its outputs to the stream of a layer."""

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`x @ W.T + other`."""
        ...


class Exchanges(Protocol):
    """What ranks ask of each other within a step."""

    def total(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts, the same on each."""
        ...

    def whole(self, part: Tensor) -> Tensor:
        """On the first rank the columns of all ranks side by side; on others their own."""
        ...


class ProcessGroup:
    """See `Exchanges`: over a process group of torch."""

    def __init__(self, links: Links, shares: Sequence[Share], device: torch.device) -> None:
        """Meet the others.

        Raises:
            ExchangeError: one does not come.
        """
        self._rank = links.rank
        self._widths = [share.vocabulary.size for share in shares]
        host, port = links.meeting
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined] # exported where torch has it
                host,
                port,
                links.ranks,
                is_master=links.rank == 0,
                timeout=timedelta(seconds=_MEET_SECONDS),
                master_listen_fd=links.meeting_socket,
            )
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=links.rank,
                world_size=links.ranks,
                timeout=timedelta(seconds=EXCHANGE_SECONDS),
            )
        except RuntimeError as error:
            raise ExchangeError(f"the ranks did not meet: {_first_line(error)}") from error

    def total(self, part: Tensor) -> Tensor:
        """See `Exchanges`."""
        _exchanged(lambda: dist.all_reduce(part))
        return part

    def whole(self, part: Tensor) -> Tensor:
        """See `Exchanges`."""
        widest = max(self._widths)
        padded = functional.pad(part, (0, widest - part.shape[-1]))
        parts = [torch.empty_like(padded) for _ in self._widths] if self._rank == 0 else None
        _exchanged(lambda: dist.gather(padded, parts, dst=0))
        if parts is None:
            return part
        return torch.cat([each[:, :width] for each, width in zip(parts, self._widths, strict=True)], dim=-1)


@dataclass(frozen=True, slots=True)
class Ranks:
    """What of a model's operations is all ranks' together."""

    exchanges: Exchanges
    first_token: int
    """Of this rank's part of the vocabulary."""

    def embedding(self, table: Tensor) -> Callable[[Tensor], Tensor]:
        """Rows of a table of which each rank has some."""

        def look_up(token_ids: Tensor) -> Tensor:
            own = token_ids - self.first_token
            others = (own < 0) | (own >= len(table))
            rows = functional.embedding(own.masked_fill(others, 0), table)
            return self.exchanges.total(rows.masked_fill(others[:, None], 0))

        return look_up

    def summed(self, linear: Linear) -> Residual:
        """A product of which each rank has a part of the inputs."""
        return _SummedLinear(linear, self.exchanges)

    def head(self, linear: Linear) -> Callable[[Tensor], Tensor]:
        """A product of which each rank has a part of the outputs, all of them on the first rank."""
        return lambda x: self.exchanges.whole(linear(x))


class _SummedLinear:
    """See `Residual`."""

    def __init__(self, linear: Linear, exchanges: Exchanges) -> None:
        self._linear = linear
        self._exchanges = exchanges

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Residual`."""
        return self._exchanges.total(self._linear(x)).add_(other)


def _exchanged(exchange: Callable[[], object]) -> None:
    try:
        exchange()
    except RuntimeError as error:
        raise ExchangeError(f"an exchange between the ranks failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Torch adds what it was doing in C++."""
    return (str(error).splitlines() or [type(error).__name__])[0]
