"""Tie points of all tiles, and residuals of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import fit_affine_irls, to_transform
from somareg.register.tiles.field import Field, Lattice, Sums, gather_sums
from somareg.register.tiles.tile import TileResult
from somareg.types import BoolArray, FloatArray

MIN_PROBABILITY = 0.05  # least probability of a tile whose tie points are used
INDEPENDENT = 0.25  # share of the tie points that count as independent, because errors within a tile are correlated
START_SCALE_PX = 8.0


@dataclass(frozen=True, eq=False)
class Ties:
    """Tie points of all tiles.

    Attributes:
        points, beyond: (N, 2), see `TileResult`.
        weight: (N,) precision times the probability that the tile is right.
        tile: (N,) index of the tile.
        hit: (N,) see `TileResult`.
        precision: (N,) of the windows.
    """

    points: FloatArray
    beyond: FloatArray
    weight: FloatArray
    tile: NDArray[np.intp]
    hit: FloatArray
    precision: FloatArray

    def __len__(self) -> int:
        return len(self.points)


def collect(tiles: Sequence[TileResult]) -> Ties:
    """The tie points of all matched tiles, in the order of the tiles."""
    used = [t for t in sorted(tiles, key=lambda t: t.index) if t.status == "matched" and len(t.points)]
    if not used:
        none = np.zeros((0, 2))
        return Ties(none, none, none[:, 0], np.zeros(0, np.intp), none[:, 0], none[:, 0])
    trust = [t.figures["probability"] if t.figures["probability"] >= MIN_PROBABILITY else 0.0 for t in used]
    return Ties(
        points=np.concatenate([t.points for t in used]),
        beyond=np.concatenate([t.beyond for t in used]),
        weight=np.concatenate([p * t.precision for p, t in zip(trust, used, strict=True)]),
        tile=np.concatenate([np.full(len(t.points), t.index, np.intp) for t in used]),
        hit=np.concatenate([t.hit for t in used]),
        precision=np.concatenate([t.precision for t in used]),
    )


def fit_affine(ties: Ties, mask: BoolArray) -> AffineTransform:
    """Robust affine; its scale follows the spread, because smooth displacement is no error of the tie points.

    Raises:
        EstimationError: too few tie points, or all on a line.
    """
    if int(mask.sum()) < 6:
        raise EstimationError("too few tie points for a model of the scene")
    points, beyond, weight = (
        torch.from_numpy(np.ascontiguousarray(a[mask]))[None] for a in (ties.points, ties.beyond, ties.weight)
    )
    scale = START_SCALE_PX
    for _ in range(2):
        fit, _ = fit_affine_irls(points, beyond, weight, scale_px=scale)
        if bool(fit.refused[0]):
            raise EstimationError("the tie points lie on a line or in one spot: no model of the scene is determined")
        affine = to_transform(fit.matrix[0])
        size = np.hypot(*residuals(ties, affine, None, mask).T)
        scale = max(2.0, 3.0 * weighted_median(size, ties.weight[mask]))
    return affine


def moved(points: FloatArray, affine: AffineTransform, field: Field | None) -> FloatArray:
    """Map points (N, 2) by a model."""
    return affine(points + field(points)) if field else affine(points)


def residuals(
    ties: Ties, affine: AffineTransform, field: Field | None = None, mask: BoolArray | None = None
) -> FloatArray:
    """(N, 2) measured minus modelled, pixels."""
    points, beyond = (ties.points, ties.beyond) if mask is None else (ties.points[mask], ties.beyond[mask])
    return points + beyond - moved(points, affine, field)


def fade(off: FloatArray, weight: FloatArray) -> FloatArray:
    """Robust factor (N,) of Geman and McClure for residuals (N, 2), its scale twice the median."""
    size = np.hypot(*off.T)
    scale = 2.0 * weighted_median(size, weight) + 0.2
    result: FloatArray = np.square(scale**2 / (scale**2 + size**2))
    return result


def sums_of(ties: Ties, affine: AffineTransform, lattice: Lattice, robust: FloatArray) -> Sums:
    """Sums of the displacements beyond the affine, which is applied after them."""
    weight = ties.weight * robust
    used = weight > 0
    values = affine.inverse(ties.points[used] + ties.beyond[used]) - ties.points[used]
    return gather_sums(lattice, ties.points[used], values, weight[used] / max(float(ties.weight[used].mean()), 1e-12))


def weighted_median(values: FloatArray, weight: FloatArray) -> float:
    """Weighted median of values (N,); 0 without weight."""
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    if not len(order) or cumulative[-1] <= 0:
        return 0.0
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])
