"""One model for the whole scene: a robust affine, then a smooth displacement, from the tie points of all tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform, FieldTransform
from somareg.register.tiles.field import Field, Lattice, Prior, Sums, choose_prior, coverage_at, solve
from somareg.register.tiles.holdout import HeldOut, hold_out, split_half
from somareg.register.tiles.layout import Layout
from somareg.register.tiles.ties import INDEPENDENT, Ties, fade, fit_affine, residuals, sums_of
from somareg.runtime.threads import Over, one_by_one
from somareg.types import FloatArray

RATIOS = (0.02, 0.1, 0.5, 2.5, 12.0)
RANGES = (2.0, 5.0, 12.0, 30.0)  # correlation lengths in lattice steps
ROUNDS = 2
GAIN = 0.97  # a field must reduce the error on held-out tiles below this share of the affine's


@dataclass(frozen=True, eq=False)
class Likely:
    """The likeliest field of the tie points, whether or not it helps on held-out tiles.

    Attributes:
        field: beyond the affine.
        sums: of the tie points.
        held: errors of tiles against such fields fitted without them.
    """

    field: Field
    sums: Sums
    held: HeldOut


@dataclass(frozen=True, eq=False)
class SceneModel:
    """The model of all tiles: the match of x is `G(residual(x + field(x)))`, G the global affine of the overview.

    Attributes:
        residual: affine beyond G.
        field: beyond the affine; its prior has ratio 0 when no field is supported.
        sums: of the tie points, for the uncertainty of the field.
        held_out: tile index -> (dx, dy) by which the tile's tie points differ from a model that was fitted without
            them; empty when there are too few tiles.
        uneven: tile index -> RMS of the same over the quarters of the tile.
        split_half_px: RMS disagreement of the models of the two halves over the tiles; inf without.
        likely: the likeliest field, for places between tiles that lie too far apart to support one.
    """

    residual: AffineTransform
    field: Field
    sums: Sums
    held_out: dict[int, tuple[float, float]]
    uneven: dict[int, float]
    split_half_px: float
    likely: Likely

    def __call__(self, points: FloatArray) -> FloatArray:
        """Map points (N, 2) by the model, without G."""
        return self.residual(points + self.field(points))


def fit_scene(
    ties: Ties, layout: Layout, shape: tuple[int, int], *, local: bool, over: Over = one_by_one
) -> SceneModel:
    """Fit affine and field of a scene.

    Args:
        ties: of all tiles.
        layout: of the tiles.
        shape: (height, width) of the reference.
        local: whether to look for a displacement beyond the affine.
        over: applies a function to independent parts of the work.

    Raises:
        EstimationError: too few tie points, or all on a line.
    """
    lattice = Lattice.over(shape, layout.spacing / 4)
    affine = fit_affine(ties, ties.weight > 0)
    none = Prior(RANGES[1] * lattice.step, 0.0)
    prior, robust = none, fade(residuals(ties, affine), ties.weight)
    for _ in range(ROUNDS if local else 0):
        sums = sums_of(ties, affine, lattice, robust)
        prior = choose_prior(lattice, sums, tuple(r * lattice.step for r in RANGES), RATIOS, INDEPENDENT, over)
        field, _ = solve(lattice, sums, prior)
        robust = fade(residuals(ties, affine, field), ties.weight)
    holdout = hold_out(ties, layout, lattice, prior, over)
    sums = sums_of(ties, affine, lattice, robust)
    likely = Likely(solve(lattice, sums, prior)[0], sums, holdout)
    if prior.ratio:
        straight = hold_out(ties, layout, lattice, none, over)
        if straight.off and holdout.rms_px > GAIN * straight.rms_px:
            prior, holdout = none, straight
            sums = sums_of(ties, affine, lattice, fade(residuals(ties, affine), ties.weight))
    halves = split_half(ties, layout, lattice, prior, over)
    return SceneModel(affine, solve(lattice, sums, prior)[0], sums, holdout.off, holdout.uneven, halves, likely)


@dataclass(frozen=True, eq=False)
class Nodes:
    """The model at nodes.

    Attributes:
        field: displacement beyond the affine.
        coverage: (h, w) 0-1, share of the uncertainty of a field of 1 px that the tie points removed.
        spread_px: (h, w) standard deviation per axis of the field; 0 without one.
    """

    field: FieldTransform
    coverage: NDArray[np.float64]
    spread_px: NDArray[np.float64]


def field_on_nodes(model: SceneModel, shape: tuple[int, int], step: int, corner: tuple[int, int] = (0, 0)) -> Nodes:
    """The field at nodes every `step` pixels (bilinear between them), with its uncertainty.

    Node i lies in the middle of pixels `step * i` to `step * i + step - 1` of the whole reference, of which the model
    covers a part of (height, width) `shape` whose first pixel is (x, y) `corner`.
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
