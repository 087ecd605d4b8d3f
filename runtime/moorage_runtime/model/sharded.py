"""A rank's part of a checkpoint, which reads like a smaller model. Only what it needs of each tensor is kept."""

from dataclasses import dataclass, replace

import numpy as np

from moorage_runtime.formats.blocks import Stored
from moorage_runtime.formats.layout import FORMATS, Layout
from moorage_runtime.model.quantized import QuantizedCheckpoint
from moorage_runtime.model.shares import Share, Span
from moorage_runtime.model.tensors import Checkpoint


@dataclass(frozen=True, slots=True)
class _Cut:
    span: Span
    by_columns: bool


def part_of(whole: Checkpoint, share: Share) -> Checkpoint:
    """A rank's part. What is quantised as it is loaded is divided first: each rank rounds its own part alone."""
    if isinstance(whole, QuantizedCheckpoint):
        return whole.over(ShardedCheckpoint(whole.source, share))
    return ShardedCheckpoint(whole, share)


class ShardedCheckpoint(Checkpoint):
    """What is divided by rows, the outputs of a matrix, is a stretch of the file; by columns, its inputs, a copy.

    Norms are whole on every rank. The bias of a matrix that is divided by columns is the first rank's: it is to be
    added once.
    """

    def __init__(self, source: Checkpoint, share: Share) -> None:
        self.config = share.config(source.config)
        self._source = source
        self._share = share

    def layout(self, name: str) -> Layout | None:
        """See `Checkpoint`."""
        whole = None if self._is_anothers(name) else self._source.layout(name)
        cut = self._cut(name)
        if whole is None or cut is None:
            return whole
        if cut.by_columns or whole.rows == 1:
            return replace(whole, columns=cut.span.size)
        return replace(whole, rows=cut.span.size)

    def _find(self, name: str) -> Stored | None:
        whole = None if self._is_anothers(name) else self._source.stored(name)
        cut = self._cut(name)
        if whole is None or cut is None:
            return whole
        if cut.by_columns or whole.rows == 1:
            return _columns(whole, cut.span)
        return replace(whole, rows=cut.span.size, data=whole.data[cut.span.first : cut.span.end])

    def _is_anothers(self, name: str) -> bool:
        return self._share.rank > 0 and name.endswith(("o_proj.bias", "down_proj.bias"))

    def _cut(self, name: str) -> _Cut | None:
        """What of a tensor is this rank's; None: all."""
        share, dim = self._share, self.config.head_dim
        module, _, kind = name.rpartition(".")
        matrix = module.rpartition(".")[2]
        by_columns = {"o_proj": share.heads.times(dim), "down_proj": share.mlp}
        if matrix in by_columns:
            return _Cut(by_columns[matrix], by_columns=True) if kind == "weight" else None
        by_rows = {
            "embed_tokens": share.vocabulary,
            "lm_head": share.vocabulary,
            "q_proj": share.heads.times(dim),
            "k_proj": share.kv_heads.times(dim),
            "v_proj": share.kv_heads.times(dim),
            "gate_proj": share.mlp,
            "up_proj": share.mlp,
        }
        return _Cut(by_rows[matrix], by_columns=False) if matrix in by_rows else None


def _columns(whole: Stored, span: Span) -> Stored:
    form = FORMATS[whole.format]
    data = whole.data[:, form.row_bytes(span.first) : form.row_bytes(span.end)]
    return replace(whole, columns=span.size, data=np.ascontiguousarray(data))
