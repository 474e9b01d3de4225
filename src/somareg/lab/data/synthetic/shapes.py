"""Plane geometry on a grid: rotated frames, parcels cut from strips, cells around seeds, ribbons and rounded boxes.

Positions are in pixels of the finished image; every function works on (N, F, F) maps, one scene per row of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.lab.data.synthetic.draws import Draws, HashTable, choose, spread, where

_ROW_STEP, _COLUMN_STEP = 61, 17  # turn a (row, column) pair into a key that the hash table wraps


def grid(size: int, oversample: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Axes x (1, 1, F) and y (1, F, 1) with F = oversample * size, in image pixels from the image's centre."""
    axis = (torch.arange(size * oversample, device=device) + 0.5) / oversample - size / 2
    return axis[None, None, :], axis[None, :, None]


def rotate(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates along and across a direction, (N,) radians from +x towards +y."""
    cos, sin = spread(torch.cos(angle)), spread(torch.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


@dataclass(frozen=True, eq=False)
class Parcels:
    """Rectangular pieces of land.

    Attributes:
        key: (N, F, F) int32, one number per parcel.
        left, right, top, bottom: (N, F, F) distances to the parcel's own sides, pixels.
    """

    key: Tensor
    left: Tensor
    right: Tensor
    top: Tensor
    bottom: Tensor

    @property
    def border(self) -> Tensor:
        """Distance to the nearest side, pixels."""
        return torch.minimum(torch.minimum(self.left, self.right), torch.minimum(self.top, self.bottom))


def parcels(draws: Draws, u: Tensor, v: Tensor, length: Tensor, width: Tensor) -> Parcels:
    """Strips of uneven width, each cut at its own uneven places.

    Args:
        draws: random draws.
        u, v: (N, F, F) coordinates along and across the strips.
        length, width: (N,) typical parcel in pixels.
    """
    unevenness = HashTable(draws, 0.0, 0.6)
    phase, stretch = HashTable(draws, 0.0, 8.0), HashTable(draws, 0.6, 1.6)
    row, top, bottom = _intervals(v / spread(width), unevenness)
    scale = spread(length) * stretch(row)
    base = row * _ROW_STEP
    column, left, right = _intervals(u / scale + phase(row), lambda i: unevenness(base + i * _COLUMN_STEP))
    width_map = spread(width)
    return Parcels(base + column * _COLUMN_STEP, left * scale, right * scale, top * width_map, bottom * width_map)


def _intervals(t: Tensor, jitter: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a line at i + jitter(i), jitter in 0-1: index of the interval, distance to its start and to its end."""
    whole = t.floor()
    i = whole.int()
    own = whole + jitter(i)
    before = where(t < own)  # a point ahead of its own cell's first cut belongs to the interval before
    start = torch.lerp(own, whole - 1 + jitter(i - 1), before.float())
    end = torch.lerp(whole + 1 + jitter(i + 1), own, before.float())
    return i - before, t - start, end - t


def subdivide(whole: Parcels, length: Tensor, width: Tensor) -> Parcels:
    """Lots of about (length, width) pixels that fill each parcel exactly."""
    column, left, right = _lots(whole.left, whole.right, spread(length))
    row, top, bottom = _lots(whole.top, whole.bottom, spread(width))
    return Parcels(whole.key * 31 + column * 7 + row * 131, left, right, top, bottom)


def _lots(before: Tensor, after: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    total = before + after
    each = total / (total / size).round().clamp_min(1.0)
    index = (before / each).floor()
    inside = before - index * each
    return index.int(), inside, each - inside


def seeded_cells(draws: Draws, u: Tensor, v: Tensor, length: Tensor, width: Tensor, jitter: float = 0.42) -> Tensor:
    """Voronoi cells around a jittered lattice of seeds.

    Only the four lattice cells around a point are searched; with this jitter a nearer seed further away is rare, and
    then the border is merely drawn a little differently.

    Returns:
        (N, F, F) int32, one key per cell.
    """
    shift_u, shift_v = HashTable(draws, -jitter, jitter), HashTable(draws, -jitter, jitter)
    a, b = u / spread(length), v / spread(width)
    column, row = a.floor(), b.floor()
    corner = row.int() * _ROW_STEP + column.int() * _COLUMN_STEP
    best, winner = torch.full_like(a, torch.inf), corner
    for step_row in (0, 1):
        for step_column in (0, 1):
            key = corner + (step_row * _ROW_STEP + step_column * _COLUMN_STEP)
            du = a - column - step_column - shift_u(key)
            dv = b - row - step_row - shift_v(key)
            distance = du.square() + dv.square()
            winner = choose(where(distance < best), key, winner)
            best = torch.minimum(best, distance)
    return winner


def ribbon(draws: Draws, x: Tensor, y: Tensor, reach: float, bend: Tensor) -> Tensor:
    """Distance in pixels to a winding line: two sine waves along a random direction.

    Args:
        draws: random draws.
        x, y: the axes of `grid`.
        reach: the line passes within this many pixels of the image's centre.
        bend: (N,) amplitude of the longer wave; 0 gives a straight line.
    """
    angle = draws.angle()
    off_line = rotate(x, y, angle)[1] - spread(draws.uniform(-reach, reach))
    slope: Tensor | float = 0.0
    for longest, amplitude in ((400.0, bend), (90.0, 0.2 * bend)):
        wave = draws.log_uniform(0.25 * longest, longest)
        rate, height = 2 * torch.pi / wave, torch.minimum(amplitude, 0.1 * wave)  # no hairpins
        sine, cosine = _plane_wave(x, y, rate, angle, draws.angle())
        off_line = off_line - spread(height) * sine
        slope = slope + spread(height * rate) * cosine
    return off_line.abs() * (1.0 + torch.as_tensor(slope).square()).rsqrt()


def _plane_wave(x: Tensor, y: Tensor, rate: Tensor, angle: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of a plane wave on the axes of `grid`, by the addition theorem: trigonometry on lines only."""
    a, b = spread(rate * torch.cos(angle)) * x + spread(phase), spread(rate * torch.sin(angle)) * y
    sin_a, cos_a, sin_b, cos_b = torch.sin(a), torch.cos(a), torch.sin(b), torch.cos(b)
    return sin_a * cos_b + cos_a * sin_b, cos_a * cos_b - sin_a * sin_b


def rounded_box(
    draws: Draws, x: Tensor, y: Tensor, size: Tensor, angle: Tensor, reach: float, rounded: float
) -> Tensor:
    """A box at a random place, its corners sharp or fully round.

    Args:
        draws: random draws.
        x, y: the axes of `grid`.
        size: (N, 2) half length and half width, pixels.
        angle: (N,) radians.
        reach: the centre lies within this many pixels of the image's centre along x and y.
        rounded: chance of fully round corners, which make a disc of a square.

    Returns:
        (N, F, F) bytes, 1 inside.
    """
    u, v = rotate(x - spread(draws.uniform(-reach, reach)), y - spread(draws.uniform(-reach, reach)), angle)
    radius = size.min(1).values * draws.chance(rounded)
    core_u, core_v = (spread(half - radius) for half in size.unbind(1))
    beyond = (u.abs() - core_u).clamp_min(0.0).square() + (v.abs() - core_v).clamp_min(0.0).square()
    return where(beyond <= spread(radius.square()))
