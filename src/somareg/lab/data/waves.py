"""Smooth displacements as sums of a few plane waves: known at every point, invertible, without an affine part."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from somareg.lab.data.dice import Dice

SHORTEST_PX = 64.0
LARGEST_PX = 4.0  # the slope stays below a half: no folds, and each step of the inversion halves the error at least
_WAVES = 3
_ROUNDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Waves:
    """`D(p) = sum_k amplitude_k sin(vector_k . (p - centre) + phase_k) - (the best affine part of that on the crop)`.

    Attributes:
        amplitude: (n, K, 2) pixels.
        vector: (n, K, 2) radians per pixel.
        phase: (n, K).
        plane: (n, 2, 3) the affine part, of coordinates relative to the centre.
        centre: of the crop, pixels, the same in x and y.
    """

    amplitude: Tensor
    vector: Tensor
    phase: Tensor
    plane: Tensor
    centre: float

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(dx, dy) at points of the reference crop, each (n, H, W) or broadcastable to it."""
        u, v = x - self.centre, y - self.centre
        a, k, phase, c = (t[..., None, None] for t in (self.amplitude, self.vector, self.phase, self.plane))
        dx = -(c[:, 0, 0] * u + c[:, 0, 1] * v + c[:, 0, 2])
        dy = -(c[:, 1, 0] * u + c[:, 1, 1] * v + c[:, 1, 2])
        for i in range(a.shape[1]):
            wave = torch.sin(k[:, i, 0] * u + k[:, i, 1] * v + phase[:, i])
            dx = dx + a[:, i, 0] * wave
            dy = dy + a[:, i, 1] * wave
        return dx, dy

    def inverse(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The points p with p + D(p) = (x, y), by fixed-point iteration, to a few thousandths of a pixel."""
        u, v = x, y
        for _ in range(_ROUNDS):
            dx, dy = self(u, v)
            u, v = x - dx, y - dy
        return u, v

    def reach(self) -> Tensor:
        """(n,) a bound of |dx| and |dy| over the crop and half a crop around it, pixels."""
        side = torch.arange(-2 * self.centre, 2 * self.centre + 8.0, 8.0, device=self.phase.device) + self.centre
        dx, dy = self(side[None, None, :], side[None, :, None])
        return 1.2 * torch.maximum(dx.abs(), dy.abs()).amax((-2, -1))


def draw_waves(count: int, crop: int, largest_px: float, dice: Dice) -> Waves:
    """Random displacements of `count` crops whose amplitudes add up to 0.3 to 1 times `largest_px`.

    Args:
        count: n.
        crop: side of the reference crops, pixels; wavelengths lie between 64 px and the crop (at least 96 px).
        largest_px: at most `LARGEST_PX`.
        dice: randomness and device.
    """
    shares = dice.uniform((count, _WAVES), 0.2, 1.0)
    total = dice.uniform((count, 1), 0.3 * largest_px, largest_px)
    strength = total * shares / shares.sum(1, keepdim=True)
    towards, along = (2 * math.pi * dice.unit(count, _WAVES) for _ in range(2))
    number = 2 * math.pi / dice.log_uniform((count, _WAVES), SHORTEST_PX, max(96.0, float(crop)))
    waves = Waves(
        amplitude=strength[..., None] * torch.stack([towards.cos(), towards.sin()], dim=-1),
        vector=number[..., None] * torch.stack([along.cos(), along.sin()], dim=-1),
        phase=2 * math.pi * dice.unit(count, _WAVES),
        plane=torch.zeros(count, 2, 3, device=dice.device),
        centre=(crop - 1) / 2,
    )
    return beyond_affine(waves)


def beyond_affine(waves: Waves) -> Waves:
    """The same displacements less the best affine of each on its crop; `waves` have none taken out yet."""
    return replace(waves, plane=_affine_part(waves))


def _affine_part(waves: Waves) -> Tensor:
    """(n, 2, 3) least-squares plane of each component over the crop; about its centre the terms decouple."""
    span = torch.arange(2 * waves.centre + 1, dtype=waves.phase.dtype, device=waves.phase.device) - waves.centre
    u, v = span[None, None, :], span[None, :, None]
    power = span.square().mean()
    values = torch.stack(waves(u + waves.centre, v + waves.centre), dim=1)
    slopes = [(values * t[:, None]).mean((-2, -1)) / power for t in (u, v)]
    return torch.stack([*slopes, values.mean((-2, -1))], dim=-1)
