"""Rotary position embedding: each pair of a head's numbers is turned by an angle that grows with the position."""

import math

import torch
from torch import Tensor

from moorage_runtime.model.config import Llama3Scaling, Rope


def inverse_frequencies(rope: Rope, head_dim: int, factors: Tensor | None = None) -> Tensor:
    """Radians per position of each pair, fp32, shape (head_dim / 2,).

    Args:
        rope: Base and scaling.
        head_dim: Numbers per head.
        factors: Divisors per pair that a GGUF carries in place of a scaling (`rope_freqs.weight`).
    """
    frequencies = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if factors is not None:
        return frequencies / factors.float()
    if rope.llama3:
        return _llama3(frequencies, rope.llama3)
    return frequencies / rope.linear_factor


def _llama3(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Keep fast frequencies, divide slow ones by the factor, blend between (transformers' `rope_type: llama3`)."""
    wavelengths = 2 * math.pi / frequencies
    low = scaling.original_context / scaling.low_freq_factor
    high = scaling.original_context / scaling.high_freq_factor
    share = scaling.original_context / wavelengths - scaling.low_freq_factor
    share = share / (scaling.high_freq_factor - scaling.low_freq_factor)
    blended = (1 - share) * frequencies / scaling.factor + share * frequencies
    slow = torch.where(wavelengths > low, frequencies / scaling.factor, blended)
    return torch.where(wavelengths < high, frequencies, slow)


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
