"""One model for the whole scene: a robust affine, then a smooth displacement, from the tie points of all tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform, FieldTransform
from somareg.matching.affine import fit_affine_irls, to_transform
from somareg.register.tiles.field import Field, Lattice, Prior, Sums, choose_prior, coverage_at, gather_sums, solve
from somareg.register.tiles.layout import Layout
from somareg.register.tiles.tile import TileResult
from somareg.types import BoolArray, FloatArray

RATIOS = (0.02, 0.1, 0.5, 2.5, 12.0)
RANGES = (2.0, 5.0, 12.0, 30.0)  # in lattice steps
MIN_PROBABILITY = 0.05  # of a tile whose tie points are used at all
INDEPENDENT = 0.25  # share of the tie points that count as independent when the field's size is chosen
ROUNDS = 2
START_SCALE_PX = 8.0
WORST_PX = 10.0  # a tile that is further off counts as far off, not more
GAIN = 0.97  # a field must bring the error on tiles it never saw below this share of the affine's


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


@dataclass(frozen=True, eq=False)
class SceneModel:
    """What the tiles agree on: the match of x is `G(residual(x + field(x)))`, G the global affine of the overview.

    Attributes:
        residual: affine beyond G.
        field: beyond the affine; its prior has ratio 0 where none is supported.
        sums: of the tie points, for what is known of the field.
        held_out: tile index -> (dx, dy) by which the tile's tie points differ from the model of the other half of the
            tiles; empty when there are too few.
        split_half_px: RMS disagreement of the models of the two halves over the tiles; inf without.
    """

    residual: AffineTransform
    field: Field
    sums: Sums
    held_out: dict[int, tuple[float, float]]
    split_half_px: float

    def __call__(self, points: FloatArray) -> FloatArray:
        """Points (N, 2) moved by the model (without G)."""
        return self.residual(points + self.field(points))


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


def fit_scene(ties: Ties, layout: Layout, shape: tuple[int, int], *, local: bool) -> SceneModel:
    """Affine and field of a scene.

    Args:
        ties: of all tiles.
        layout: of the tiles.
        shape: (height, width) of the reference.
        local: whether to look for a displacement beyond the affine.

    Raises:
        EstimationError: too few tie points, or all on a line.
    """
    lattice = Lattice.over(shape, layout.spacing / 4)
    affine = _fit_affine(ties, ties.weight > 0)
    none = Prior(RANGES[1] * lattice.step, 0.0)
    prior, robust = none, _fade(_residual(ties, affine), ties.weight)
    for _ in range(ROUNDS if local else 0):
        sums = _sums(ties, affine, lattice, robust)
        prior = choose_prior(lattice, sums, tuple(r * lattice.step for r in RANGES), RATIOS, INDEPENDENT)
        field, _ = solve(lattice, sums, prior)
        robust = _fade(_residual(ties, affine, field), ties.weight)
    halves = _cross_fit(ties, layout, lattice, prior)
    if prior.ratio:
        straight = _cross_fit(ties, layout, lattice, none)
        if straight.held_out and halves.rms_px > GAIN * straight.rms_px:
            prior, halves = none, straight
            robust = _fade(_residual(ties, affine), ties.weight)
    sums = _sums(ties, affine, lattice, robust)
    return SceneModel(affine, solve(lattice, sums, prior)[0], sums, halves.held_out, halves.split_half_px)


@dataclass(frozen=True, eq=False)
class Nodes:
    """What the model says at nodes.

    Attributes:
        field: displacement beyond the affine.
        coverage: (h, w) 0-1, share of the uncertainty of a field of 1 px that the tie points removed.
        spread_px: (h, w) standard deviation per axis of the field; 0 without one.
    """

    field: FieldTransform
    coverage: NDArray[np.float64]
    spread_px: NDArray[np.float64]


def field_on_nodes(model: SceneModel, shape: tuple[int, int], step: int, corner: tuple[int, int] = (0, 0)) -> Nodes:
    """The field at nodes every `step` pixels (bilinear between them), and how well it is known there.

    Node i lies in the middle of pixels `step * i` to `step * i + step - 1` of the whole reference, of which the model
    knows a part of (height, width) `shape` whose first pixel is (x, y) `corner`.
    """
    field = model.field
    x, y = (
        (step - 1) / 2 - first % step + step * np.arange(math.ceil((n + first % step) / step), dtype=float)
        for n, first in zip(shape[::-1], corner, strict=True)
    )
    origin = float(x[0]), float(y[0])
    noise, variance = field.noise / INDEPENDENT, field.prior.ratio * field.noise

    def known(of_field: float) -> NDArray[np.float64]:
        return coverage_at(field.lattice, model.sums, field.prior.range_px, noise / of_field, x, y)

    coverage = known(1.0)
    spread = np.sqrt(variance * (1.0 - known(variance))) if variance > 0 else np.zeros_like(coverage)
    return Nodes(FieldTransform(field.on_grid(x, y), origin, (float(step), float(step))), coverage, spread)


@dataclass(frozen=True, eq=False)
class _Halves:
    """Models of the two colours of the tiles, each tried on the other's tiles."""

    held_out: dict[int, tuple[float, float]]
    rms_px: float
    split_half_px: float


def _cross_fit(ties: Ties, layout: Layout, lattice: Lattice, prior: Prior) -> _Halves:
    colour = np.array([layout.colour(int(tile)) for tile in ties.tile], dtype=np.intp)
    maps = []
    for half in (0, 1):
        chosen = (colour == half) & (ties.weight > 0)
        try:
            affine = _fit_affine(ties, chosen)
        except EstimationError:
            return _Halves({}, math.inf, math.inf)
        field, robust = None, _fade(_residual(ties, affine), ties.weight) * chosen
        for _ in range(2 if prior.ratio else 0):
            field, _ = solve(lattice, _sums(ties, affine, lattice, robust), prior)
            robust = _fade(_residual(ties, affine, field), ties.weight) * chosen
        maps.append((affine, field))
    held_out: dict[int, tuple[float, float]] = {}
    middles, weights = [], []
    for tile in np.unique(ties.tile[ties.weight > 0]):
        own = ties.tile == tile
        off = _residual(ties, *maps[1 - layout.colour(int(tile))], own)
        held_out[int(tile)] = tuple(_weighted_median(axis, ties.weight[own]) for axis in off.T)  # type: ignore[assignment]
        middles.append(ties.points[own].mean(0))
        weights.append(ties.weight[own].mean() / ties.precision[own].mean())
    first, second = (_moved(np.array(middles), *one) for one in maps)
    apart = float(np.sqrt(np.average(((first - second) ** 2).sum(1), weights=weights)))
    errors = np.minimum(np.hypot(*np.array(list(held_out.values())).T), WORST_PX)
    return _Halves(held_out, float(np.sqrt(np.average(errors**2, weights=weights))), apart)


def _fit_affine(ties: Ties, chosen: BoolArray) -> AffineTransform:
    """Robust affine; its scale follows the spread, since smooth displacement is no error of the tie points."""
    if int(chosen.sum()) < 6:
        raise EstimationError("too few tie points for a model of the scene")
    points, beyond, weight = (
        torch.from_numpy(np.ascontiguousarray(a[chosen]))[None] for a in (ties.points, ties.beyond, ties.weight)
    )
    scale = START_SCALE_PX
    for _ in range(2):
        fit, _ = fit_affine_irls(points, beyond, weight, scale_px=scale)
        if bool(fit.refused[0]):
            raise EstimationError("the tie points lie on a line or in one spot: no model of the scene is determined")
        affine = to_transform(fit.matrix[0])
        residual = np.hypot(*_residual(ties, affine, None, chosen).T)
        scale = max(2.0, 3.0 * _weighted_median(residual, ties.weight[chosen]))
    return affine


def _moved(points: FloatArray, affine: AffineTransform, field: Field | None) -> FloatArray:
    return affine(points + field(points)) if field else affine(points)


def _residual(
    ties: Ties, affine: AffineTransform, field: Field | None = None, chosen: BoolArray | None = None
) -> FloatArray:
    """(N, 2) measured minus modelled, pixels."""
    points, beyond = (ties.points, ties.beyond) if chosen is None else (ties.points[chosen], ties.beyond[chosen])
    return points + beyond - _moved(points, affine, field)


def _fade(residual: FloatArray, weight: FloatArray) -> FloatArray:
    """Robust factor (N,) of Geman and McClure, its scale twice the median."""
    size = np.hypot(*residual.T)
    scale = 2.0 * _weighted_median(size, weight) + 0.2
    result: FloatArray = np.square(scale**2 / (scale**2 + size**2))
    return result


def _sums(ties: Ties, affine: AffineTransform, lattice: Lattice, robust: FloatArray) -> Sums:
    """Of the displacements beyond the affine, which is applied after them."""
    weight = ties.weight * robust
    used = weight > 0
    values = affine.inverse(ties.points[used] + ties.beyond[used]) - ties.points[used]
    return gather_sums(lattice, ties.points[used], values, weight[used] / max(float(ties.weight[used].mean()), 1e-12))


def _weighted_median(values: FloatArray, weight: FloatArray) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    if not len(order) or cumulative[-1] <= 0:
        return 0.0
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])
