"""Error of a model on held-out tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.register.tiles.field import Field, Lattice, Prior, Sums, known_at, solve
from somareg.register.tiles.layout import Layout
from somareg.register.tiles.ties import INDEPENDENT, Ties, fade, fit_affine, moved, residuals, sums_of, weighted_median
from somareg.runtime.threads import Over, one_by_one
from somareg.types import BoolArray, FloatArray

FOLDS = 4  # a quarter of the tiles is held out at a time, so that neighbours of each stay
WORST_PX = 10.0  # errors of a tile are capped here


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Errors of tiles against models fitted without them.

    Attributes:
        off: tile index -> (dx, dy) by which its tie points differ from the model, pixels; empty when there are too
            few tiles.
        uneven: tile index -> RMS of the same over the quarters of the tile, because bending within a tile does not show
            in its middle.
        foreseen: tile index -> RMS error that the model predicts for the middle of the tile, pixels; 0 without
            a field.
        rms_px: of all, each tile weighted by its probability; inf without.
    """

    off: dict[int, tuple[float, float]]
    uneven: dict[int, float]
    foreseen: dict[int, float]
    rms_px: float


@dataclass(frozen=True, eq=False)
class _Part:
    """A model of some of the tiles."""

    affine: AffineTransform
    field: Field | None
    sums: Sums | None


def deal(layout: Layout, tiles: Sequence[int], hands: int) -> dict[int, int]:
    """Divide tiles into groups (hands) so that those of one group lie apart: index -> group.

    Each tile goes to the group whose nearest tile is farthest, among equals to the smallest. All
    tiles in two groups form a chessboard.
    """
    rows, columns = np.indices((layout.rows, layout.columns))
    away = np.full((hands, layout.rows, layout.columns), np.inf)
    counts, result = [0] * hands, {}
    for index in sorted(tiles):
        row, column = divmod(index, layout.columns)
        hand = min(range(hands), key=list(zip(-away[:, row, column], counts, range(hands), strict=True)).__getitem__)
        np.minimum(away[hand], np.hypot(rows - row, columns - column), out=away[hand])
        counts[hand] += 1
        result[index] = hand
    return result


def hold_out(ties: Ties, layout: Layout, lattice: Lattice, prior: Prior, over: Over = one_by_one) -> HeldOut:
    """Fit a model without each of `FOLDS` parts of the tiles, and measure its error on that part; `over` applies a
    function to the parts.
    """
    used = np.unique(ties.tile[ties.weight > 0])
    hands = deal(layout, used.tolist(), FOLDS)
    dealt = _dealt(ties, hands)
    off: dict[int, tuple[float, float]] = {}
    uneven: dict[int, float] = {}
    foreseen: dict[int, float] = {}

    def without(hand: int) -> tuple[_Part | None, dict[int, float]]:
        """The model without a part, and the error that it expects in the tiles of that part."""
        mine = [index for index in used.tolist() if hands[index] == hand]
        part = _fit(ties, lattice, prior, (dealt != hand) & (ties.weight > 0))
        if part is None or not mine:
            return part, {}
        errors = _expected(part, np.stack([layout.middle(index) for index in mine]))
        return part, dict(zip(mine, errors.tolist(), strict=True))

    for part, expected in over(without, range(FOLDS)):
        if part is None:
            return HeldOut({}, {}, {}, math.inf)
        for index, error in expected.items():
            own = ties.tile == index
            apart = residuals(ties, part.affine, part.field, own)
            off[index], foreseen[index] = _middle(apart, ties.weight[own]), error
            uneven[index] = _over_quarters(ties.points[own] - layout.middle(index), apart, ties.weight[own])
    errors = np.minimum(np.hypot(*np.array([off[index] for index in used.tolist()]).T), WORST_PX)
    return HeldOut(off, uneven, foreseen, float(np.sqrt(np.average(errors**2, weights=_trust(ties, used.tolist())))))


def beyond_noise(uneven: float, precision: FloatArray) -> float:
    """What an RMS over the quarters of a tile holds beyond their standard error, pixels.

    Args:
        uneven: see `HeldOut`.
        precision: (N,) of the windows of the tile, 1/px^2.
    """
    own = 2.0 / max(float(precision.sum()) / 4, 1e-6)
    return math.sqrt(max(0.0, uneven**2 - own))


def _middle(apart: FloatArray, weight: FloatArray) -> tuple[float, float]:
    dx, dy = (weighted_median(axis, weight) for axis in apart.T)
    return dx, dy


def _over_quarters(points: FloatArray, apart: FloatArray, weight: FloatArray) -> float:
    """RMS over the quarters of a tile of the middle difference in each; points (N, 2) count from the tile's centre."""
    quarter = 2 * (points[:, 1] > 0) + (points[:, 0] > 0)
    lengths = [math.hypot(*_middle(apart[quarter == i], weight[quarter == i])) for i in np.unique(quarter)]
    return float(np.sqrt(np.mean(np.square(lengths))))


def split_half(ties: Ties, layout: Layout, lattice: Lattice, prior: Prior, over: Over = one_by_one) -> float:
    """RMS disagreement, over the tiles, of the models of two halves of them, pixels; inf when there are too few.
    `over` applies a function to the halves.
    """
    used = np.unique(ties.tile[ties.weight > 0]).tolist()
    dealt = _dealt(ties, deal(layout, used, 2))
    parts = over(lambda half: _fit(ties, lattice, prior, (dealt == half) & (ties.weight > 0)), (0, 1))
    middles = np.array([ties.points[ties.tile == index].mean(0) for index in used])
    places = [moved(middles, part.affine, part.field) for part in parts if part is not None]
    if len(places) < 2:
        return math.inf
    return float(np.sqrt(np.average(((places[0] - places[1]) ** 2).sum(1), weights=_trust(ties, used))))


def _dealt(ties: Ties, hands: dict[int, int]) -> NDArray[np.intp]:
    """The group (N,) of each tie point's tile; -1 without one."""
    return np.array([hands.get(int(tile), -1) for tile in ties.tile], dtype=np.intp)


def _trust(ties: Ties, tiles: Sequence[int]) -> list[float]:
    """Probability of each tile."""
    own = [ties.tile == index for index in tiles]
    return [float(ties.weight[one].mean() / ties.precision[one].mean()) for one in own]


def _fit(ties: Ties, lattice: Lattice, prior: Prior, mask: BoolArray) -> _Part | None:
    """Fit the model of some tie points; None when they determine none."""
    try:
        affine = fit_affine(ties, mask)
    except EstimationError:
        return None
    field, sums, robust = None, None, fade(residuals(ties, affine), ties.weight) * mask
    for _ in range(2 if prior.ratio else 0):
        sums = sums_of(ties, affine, lattice, robust)
        field, _ = solve(lattice, sums, prior)
        robust = fade(residuals(ties, affine, field), ties.weight) * mask
    return _Part(affine, field, sums)


def _expected(part: _Part, points: FloatArray) -> FloatArray:
    """RMS error (N,) that a model predicts, length of both axes, pixels."""
    if part.field is None or part.sums is None:
        return np.zeros(len(points))
    return spread_at(part.field, part.sums, points) * math.sqrt(2.0)


def spread_at(field: Field, sums: Sums, points: FloatArray) -> FloatArray:
    """Standard deviation (N,) per axis of a field at points (N, 2), pixels; 0 when its prior is zero."""
    variance = field.prior.ratio * field.noise
    if variance <= 0:
        return np.zeros(len(points))
    share = known_at(field.lattice, sums, field.prior.range_px, field.noise / INDEPENDENT / variance, points)
    spread: FloatArray = np.sqrt(variance * (1.0 - share))
    return spread
