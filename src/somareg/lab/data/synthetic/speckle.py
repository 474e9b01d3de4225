"""Speckle: the multiplicative noise of a radar image, and its path to 8 bits.

Multi-looked intensity over a uniform target is gamma distributed with mean 1 and variance 1/L; where the target itself
varies like a gamma variable of order nu the product is K distributed, with heavier tails (Oliver and Quegan,
Understanding Synthetic Aperture Radar Images, sections 4.3 and 5.5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from somareg.lab.data.synthetic.draws import Draws, spread

PLAIN_ORDER = 1e4  # order at which K speckle is plain gamma speckle to within 1e-4 of the variance


def gamma_speckle(draws: Draws, looks: Tensor, size: int) -> Tensor:
    """Intensity speckle of mean 1 and variance 1 / looks.

    Args:
        draws: random draws for N scenes.
        looks: (N,) number of looks, above 0.
        size: side S.

    Returns:
        (N, S, S) float32, not negative.
    """
    shape = spread(looks).expand(-1, size, size)
    return draws.gamma(shape.contiguous()) / shape


def k_speckle(draws: Draws, looks: Tensor, order: Tensor, size: int) -> Tensor:
    """K-distributed intensity of mean 1 and variance (1 + 1 / looks) (1 + 1 / order) - 1.

    Args:
        draws: random draws for N scenes.
        looks: (N,) number of looks.
        order: (N,) order nu of the target's texture; infinity would be plain gamma speckle.
        size: side S.

    Returns:
        (N, S, S) float32, not negative.
    """
    return gamma_speckle(draws, looks, size) * gamma_speckle(draws, order, size)


def decibel(power: Tensor) -> Tensor:
    """Power to dB; powers below 1e-5 count as 1e-5."""
    return 10.0 * torch.log10(power.clamp_min(1e-5))


def from_decibel(level: Tensor) -> Tensor:
    """DB to power."""
    return torch.exp(level * (math.log(10.0) / 10.0))


def to_bytes(values: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
    """8-bit image with a wanted mean, clipped.

    Args:
        values: (N, H, W) such as dB.
        mean: (N,) grey level that the scene's mean gets.
        gain: (N,) grey levels per unit.

    Returns:
        (N, H, W) uint8.
    """
    centred = values - values.mean((-2, -1), keepdim=True)
    return (centred * spread(gain) + spread(mean)).round_().clamp_(0.0, 255.0).to(torch.uint8)
