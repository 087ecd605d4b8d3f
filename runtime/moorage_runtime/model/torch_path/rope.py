"""Rotary position embedding: each pair of a head's numbers is turned by an angle that grows with the position."""

import torch
from torch import Tensor


def rotation(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine for `rotate_`, each (tokens, 1, head_dim), once per step for all layers."""
    angles = positions[:, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1)[:, None].to(dtype), torch.cat((-sin, sin), -1)[:, None].to(dtype)


def rotate_(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn (tokens, heads, head_dim) in place; the pairs are (i, i + head_dim / 2), as Hugging Face lays them."""
    # Rolling by half a head swaps the halves of each pair; the sine carries the sign of the swapped one.
    swapped = heads.roll(heads.shape[-1] // 2, -1)
    heads.mul_(cos).addcmul_(swapped, sin)
