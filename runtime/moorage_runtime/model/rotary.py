"""Frequencies of the rotary position embedding (arXiv:2104.09864): how far a position turns each pair of a head."""

import math

import numpy as np

from moorage_runtime.formats.blocks import Floats
from moorage_runtime.model.config import Llama3Scaling, Rope


def inverse_frequencies(rope: Rope, head_dim: int, factors: Floats | None = None) -> Floats:
    """Radians per position of each pair, shape (head_dim / 2,).

    Args:
        rope: Base and scaling.
        head_dim: Numbers per head.
        factors: Divisors per pair that a GGUF carries in place of a scaling (`rope_freqs.weight`).
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies: Floats = np.float32(1.0) / np.float32(rope.theta) ** exponents
    if factors is not None:
        return frequencies / factors
    if rope.llama3:
        return _llama3(frequencies, rope.llama3)
    return frequencies / np.float32(rope.linear_factor)


def _llama3(frequencies: Floats, scaling: Llama3Scaling) -> Floats:
    """Keep fast frequencies, divide slow ones by the factor, blend between (transformers' `rope_type: llama3`)."""
    wavelengths = 2 * math.pi / frequencies
    low = scaling.original_context / scaling.low_freq_factor
    high = scaling.original_context / scaling.high_freq_factor
    share = scaling.original_context / wavelengths - scaling.low_freq_factor
    share = share / (scaling.high_freq_factor - scaling.low_freq_factor)
    blended = (1 - share) * frequencies / scaling.factor + share * frequencies
    slow = np.where(wavelengths > low, frequencies / scaling.factor, blended)
    return np.where(wavelengths < high, frequencies, slow).astype(np.float32)
