"""The smooth warps of level N: Gaussian random fields of given RMS without an affine part, defined at every point.

A field is a sum of plane waves (random Fourier features of white noise smoothed by a Gaussian), so that it can be
evaluated and inverted anywhere, also outside the crop. Its numbers are made from the raw
bits of PCG64, which NumPy promises never to change, by fixed formulas: the three numbers of a `SmoothWarp` define the
same field on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.lab.data.waves import Waves, beyond_affine
from somareg.types import FloatArray

_WAVES = 32
_NEAR_PX = 1e-4  # an inversion ends when no point moves further in a round
_MOST_ROUNDS = 60
_RIM = 0.2  # share of the crop by which the moving crop can exceed it at the level's affines
_SLOPE_NODES = 25
_BITS = 53  # bits of a double's mantissa


@dataclass(frozen=True)
class SmoothWarp:
    """`w(x)`, pixels, on the pixels of a square reference crop; the moving image shows `x + w(x)` before its affine.

    Attributes:
        rms_px: root mean square of `|w|` over the crop, pixels.
        length_px: standard deviation of the Gaussian that smooths white noise into such a field, pixels.
        seed: of the draw.
        crop: side of the crop, pixels.
    """

    rms_px: float
    length_px: float
    seed: int
    crop: int

    def __call__(self, xy: FloatArray) -> FloatArray:
        """(N, 2) displacements at (N, 2) points of the crop's pixels, inside or outside."""
        return _pairs(*self._waves(*_columns(xy)))

    def inverse(self, xy: FloatArray) -> FloatArray:
        """(N, 2) points `p` with `p + w(p) = xy`, by fixed-point iteration; right where `slope` is well below 1."""
        x, y = _columns(xy)
        u, v = x, y
        for _ in range(_MOST_ROUNDS):
            dx, dy = self._waves(u, v)
            change = max((x - dx - u).abs().max(), (y - dy - v).abs().max())
            u, v = x - dx, y - dy
            if change < _NEAR_PX:
                break
        return _pairs(u, v)

    def slope(self) -> float:
        """Largest stretch of the displacement, pixels per pixel, on the crop and a fifth of it around."""
        line = np.linspace(-_RIM * self.crop, (1 + _RIM) * self.crop, _SLOPE_NODES)
        points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        columns = [(self(points + step) - self(points - step)) / 2 for step in np.eye(2)]
        return float(np.linalg.norm(np.stack(columns, axis=-1), 2, axis=(1, 2)).max())

    def on_crop(self) -> NDArray[np.float64]:
        """(2, S, S) displacements at the crop's pixel centres."""
        return np.stack([part[0].numpy() for part in self._waves(*_grid(self.crop))])

    @property
    def _waves(self) -> Waves:
        unit = _unit(self.length_px, self.seed, self.crop)
        return replace(unit, amplitude=self.rms_px * unit.amplitude, plane=self.rms_px * unit.plane)


@lru_cache(maxsize=1024)
def _unit(length_px: float, seed: int, crop: int) -> Waves:
    """The field of 1 px RMS, common to all strengths of a warp."""
    normal, uniform = _numbers(seed, 4 * _WAVES, _WAVES)
    amplitude, vector = torch.from_numpy(normal).reshape(2, 1, _WAVES, 2)
    waves = Waves(
        amplitude=amplitude,
        vector=vector / (math.sqrt(2) * length_px),  # the spectrum of noise smoothed once
        phase=2 * math.pi * torch.from_numpy(uniform)[None],
        plane=torch.zeros(1, 2, 3, dtype=torch.float64),
        centre=(crop - 1) / 2,
    )
    rest = beyond_affine(waves)
    dx, dy = rest(*_grid(crop))
    factor = (dx.square() + dy.square()).mean().rsqrt()
    return replace(rest, amplitude=factor * rest.amplitude, plane=factor * rest.plane)


def _numbers(seed: int, normals: int, uniforms: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard normal numbers by Box and Muller, and numbers uniform in 0-1."""
    raw = np.random.PCG64(seed).random_raw(normals + uniforms)
    uniform = (np.asarray(raw, np.uint64) >> np.uint64(64 - _BITS)).astype(np.float64) / 2.0**_BITS
    radius, angle = uniform[:normals].reshape(2, -1)
    length = np.sqrt(-2 * np.log1p(-radius))
    turn = 2 * math.pi * angle
    return np.concatenate([length * np.cos(turn), length * np.sin(turn)]), uniform[normals:]


def _grid(crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    line = torch.arange(crop, dtype=torch.float64)
    return line[None, None, :], line[None, :, None]


def _columns(xy: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.from_numpy(np.ascontiguousarray(np.asarray(xy, np.float64).T))
    return x[None, None], y[None, None]


def _pairs(x: torch.Tensor, y: torch.Tensor) -> FloatArray:
    return np.stack([x[0, 0].numpy(), y[0, 0].numpy()], axis=-1)
