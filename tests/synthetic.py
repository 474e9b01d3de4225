"""Ground without borders, seen twice: a scene that is a function of position, an optical and a SAR picture of it.

Every pixel of both pictures is evaluated at its own exact place on the ground (no picture is warped, no border is
made up), so the truth is exact to rounding. One unit of ground is one reference pixel. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Map = Callable[[Array], Array]  # (N, 2) points -> (N, 2) points

KINDS = 14
ROAD, RIVER = KINDS, KINDS + 1
_SUB_SAMPLES = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))


class Scene:
    """Parcels of many land covers (Voronoi cells of two sizes), roads and a river.

    Args:
        seed: of everything random.
        parcel_px: typical size of a parcel.
    """

    def __init__(self, seed: int, parcel_px: float = 24.0) -> None:
        rng = np.random.default_rng(seed)
        self.parcel_px = parcel_px
        self.offsets = rng.uniform(0.1, 0.9, (2, 61, 61))
        self.cover = rng.integers(0, KINDS, (61, 61))
        angles = rng.uniform(0, np.pi, 5)
        self.lines = [(a, rng.uniform(-40, 300), rng.uniform(4, 10), rng.uniform(60, 140)) for a in angles]
        # Optical: colours between dark forest and bright soil. SAR: dark where optical is bright for the first half of
        # the covers (contrast inverted), the same way round for the rest, and no relation in strength.
        brightness = np.linspace(0.08, 0.55, KINDS)[rng.permutation(KINDS)]
        colour = rng.uniform(0.6, 1.4, (KINDS, 3))
        self.reflectance = np.vstack([brightness[:, None] * colour, [[0.45, 0.45, 0.42]], [[0.04, 0.07, 0.10]]])
        rank = (brightness - 0.08) / 0.47
        inverted = np.arange(KINDS) < KINDS // 2
        decibel = -20 + 16 * np.where(inverted, 1 - rank, rank) + rng.normal(0, 1.5, KINDS)
        self.decibel = np.concatenate([decibel, [-21.0, -24.0]])
        self.wave = rng.uniform(0.15, 0.5, (2, KINDS + 2)), rng.uniform(0, 6.28, KINDS + 2)

    def covers(self, x: Array, y: Array) -> Array:
        """Land cover at ground positions: 0 to KINDS - 1, ROAD or RIVER."""
        u, v = x / self.parcel_px, y / self.parcel_px
        column, row = np.floor(u).astype(int), np.floor(v).astype(int)
        nearest, best = np.zeros(x.shape, int), np.full(x.shape, np.inf)
        for j in (-1, 0, 1):
            for i in (-1, 0, 1):
                cell = (row + j) % 61, (column + i) % 61
                dx, dy = column + i + self.offsets[0][cell] - u, row + j + self.offsets[1][cell] - v
                distance = np.maximum(np.abs(dx), np.abs(dy)) + 0.3 * (np.abs(dx) + np.abs(dy))
                closer = distance < best
                best[closer] = distance[closer]
                nearest[closer] = self.cover[cell][closer]
        for number, (angle, place, bend, period) in enumerate(self.lines):
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            # Parallel lines, so that there is one wherever one looks.
            away = (across - place + bend * np.sin(along / period * 6.28) + 130) % 260 - 130
            width, kind = (5.0, RIVER) if number == 0 else (1.6, ROAD)
            nearest[np.abs(away) < width] = kind
        return nearest

    def optical(self, points: Array, shape: tuple[int, int]) -> Array:
        """Reflectance (3, H, W) at ground points (H * W, 2), with texture."""
        total = np.zeros((3, *shape))
        for cover, x, y in self._samples(points, shape):
            texture = 1 + 0.12 * np.sin(self.wave[0][0][cover] * x + self.wave[0][1][cover] * y + self.wave[1][cover])
            total += np.moveaxis(self.reflectance[cover] * texture[..., None], -1, 0)
        return total / len(_SUB_SAMPLES)

    def backscatter(self, points: Array, shape: tuple[int, int], pixel: float = 1.0) -> Array:
        """Power (H, W) at ground points (H * W, 2), without speckle, averaged over pixels of side `pixel`."""
        total = np.zeros(shape)
        for cover, _, _ in self._samples(points, shape, pixel):
            total += 10 ** (self.decibel[cover] / 10)
        return total / len(_SUB_SAMPLES)

    def _samples(self, points: Array, shape: tuple[int, int], pixel: float = 1.0) -> Iterator[tuple[Array, ...]]:
        x, y = points.T.reshape(2, *shape)
        for dx, dy in _SUB_SAMPLES:
            yield self.covers(x + pixel * dx, y + pixel * dy), x + dx, y + dy


@dataclass(frozen=True, eq=False)
class SyntheticPair:
    """A pair and its truth.

    Attributes:
        moving: (1, H, W) float32 SAR power with speckle.
        reference: (3, H, W) uint8 optical.
        to_moving: reference pixels -> moving pixels, exact.
    """

    moving: Array
    reference: Array
    to_moving: Map

    @cached_property
    def displacement(self) -> Array:
        """(2, H, W) true displacement on the reference grid."""
        shape = self.reference.shape[1:]
        points = pixel_points(shape)
        return (self.to_moving(points) - points).T.reshape(2, *shape)

    def rmse(self, displacement: Array) -> float:
        """RMS distance of an estimated displacement (2, H, W) from the truth, pixels."""
        return float(np.sqrt(((displacement - self.displacement) ** 2).sum(0).mean()))


def pixel_points(shape: tuple[int, ...]) -> Array:
    """(H * W, 2) pixel centres (x, y), row by row."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def affine_map(
    shape: tuple[int, int],
    *,
    rotation_deg: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    aspect: float = 1.0,
    shear: float = 0.0,
) -> tuple[Map, Map]:
    """Aspect (x against y) and shear (x by y), rotation and scale about the centre of (H, W), then a shift; the map and
    its inverse.
    """
    angle, root = np.deg2rad(rotation_deg), np.sqrt(aspect)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * rotation @ np.array([[root, shear], [0.0, 1 / root]])
    centre = (np.array(shape[::-1]) - 1) / 2
    offset, back = centre + shift, np.linalg.inv(linear)
    return (
        lambda p: (p - centre) @ linear.T + offset,
        lambda q: (q - offset) @ back.T + centre,
    )


def smooth_warp(size: int, rms_px: float) -> tuple[Map, Map]:
    """A warp without folds of about one wave per image whose best affine part is small; the map and its inverse."""
    wave = 6.28 / (0.9 * size)

    def bend(p: Array) -> Array:
        x, y = p.T * wave
        dx = np.sin(x + 0.7) * np.sin(y + 0.4) + 0.5 * np.cos(1.5 * y + x)
        dy = np.cos(x - 0.3) * np.sin(y + 1.9) - 0.5 * np.sin(1.5 * x - y)
        return np.stack([dx, dy], axis=-1)

    sample = bend(pixel_points((size // 4, size // 4)) * 4.0)
    gain = rms_px / np.sqrt((sample**2).sum(1).mean())

    def back(q: Array) -> Array:
        p = q.copy()
        for _ in range(60):
            p = q - gain * bend(p)
        return p

    return lambda p: p + gain * bend(p), back


def speckled(power: Array, looks: float, rng: np.random.Generator) -> Array:
    """Multiplicative gamma speckle of mean 1."""
    return power * rng.gamma(looks, 1 / looks, power.shape)


@lru_cache(maxsize=32)
def make_pair(
    seed: int = 0,
    size: int = 256,
    *,
    rotation_deg: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    aspect: float = 1.0,
    shear: float = 0.0,
    warp_rms_px: float = 0.0,
    looks: float = 4.0,
    moving_shape: tuple[int, int] | None = None,
) -> SyntheticPair:
    """A border-free pair whose truth is an affine, or (with `warp_rms_px`) a smooth warp.

    Args:
        seed: of scene and noise.
        size: side of the reference.
        rotation_deg, scale, shift, aspect, shear: see `affine_map`, reference pixels -> moving pixels.
        warp_rms_px: RMS of a smooth warp instead.
        looks: of the SAR image; fewer is noisier.
        moving_shape: (H, W) of the moving image when it differs.
    """
    scene, rng = Scene(seed), np.random.default_rng(seed + 1000)
    shape = size, size
    there, back = (
        smooth_warp(size, warp_rms_px)
        if warp_rms_px
        else affine_map(shape, rotation_deg=rotation_deg, scale=scale, shift=shift, aspect=aspect, shear=shear)
    )
    away = moving_shape or shape
    reflectance = scene.optical(pixel_points(shape), shape)
    reference = 255 * np.clip(reflectance / 0.8, 0, 1) + rng.normal(0, 2, reflectance.shape)
    power = speckled(scene.backscatter(back(pixel_points(away)), away), looks, rng)[None]
    pair = SyntheticPair(power.astype(np.float32), np.clip(reference, 0, 255).astype(np.uint8), there)
    pair.moving.setflags(write=False)
    pair.reference.setflags(write=False)
    return pair
