"""Reasons to doubt an estimate: other shifts that fit as well, a second estimate by other means, an unconstrained fit.

Evidence measures how well images agree at an estimate. But repeating texture agrees one period further on as well, and
texture of one direction agrees all along that direction. A wrong estimate is often stable against small changes, but
rarely when the images are described or reduced in another way than the one that produced it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import apply_affine_batch, fit_affine_irls
from somareg.matching.evidence import LOW_PX, disagreement, reduction_to
from somareg.matching.matcher import Matcher
from somareg.matching.parts import NO_PART, Part
from somareg.matching.posterior import WindowMatches, standardise
from somareg.matching.refine import refine_affine, rescale
from somareg.matching.steps import StepCfg
from somareg.matching.windows import WindowCfg, roomy, thinned

WINDOW = WindowCfg(size=28, margin=6, stride=12, min_seen=0.3)
LEAST_CELLS, MOST_CELLS = 8, 32  # smallest and largest search radius for rivals
PEAK_CELLS = 4.0  # radius of the estimate's own peak
SCALE_PX = 1.5  # residual at which a window hardly counts in an unconstrained fit, in cells


@dataclass(frozen=True)
class Rival:
    """The shift, other than the estimate's, that the windows support most.

    Attributes:
        height: mean standardised correlation there, as a share of that at the estimate; 1 where both fit equally well.
        shift_px: (dx, dy) from the estimate, reference pixels.
        ridge: lowest such height on the straight line to it; high where every shift along the line fits.
    """

    height: float = 1.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    ridge: float = 1.0


@dataclass(frozen=True)
class Doubts:
    """Reasons not to trust the evidence; lengths in reference pixels.

    Attributes:
        rival: see `Rival`.
        second_px: RMS distance to the result of a second refinement from here, see `second_reading`; inf without one.
        free_px: RMS distance to a robust affine through the windows' own matches; inf without one.
        spread_px: standard deviation of a window's own match, by its posterior; inf without windows.
        residual_px: median distance of the windows' own matches from the estimate; inf without windows.
        bend: difference of the affine's aspect and shear from the expected ones.
        turn_deg, growth: absolute rotation, and absolute logarithm of the scale, relative to the expected map.
        part: the part of the frame that another shift fits best, see `parts`.
    """

    rival: Rival = Rival()
    second_px: float = math.inf
    free_px: float = math.inf
    spread_px: float = math.inf
    residual_px: float = math.inf
    bend: float = 0.0
    turn_deg: float = 0.0
    growth: float = 0.0
    part: Part = NO_PART

    def with_ties(self, ties: WindowMatches | None, cell: float, shape: tuple[int, int]) -> Doubts:
        """The same with the figures of the windows' own matches; see `free_fit` and `spread_of`."""
        spread, residual = spread_of(ties)
        return replace(self, free_px=free_fit(ties, cell, shape), spread_px=spread, residual_px=residual)


NO_DOUBTS = Doubts()
"""For an estimate that was not examined: everything is in doubt."""


def find_rival(judge: Matcher, estimate: AffineTransform, radius_px: float) -> Rival:
    """Find the best other shift, by all windows together.

    Args:
        judge: matcher of the pair.
        estimate: reference pixels -> moving pixels.
        radius_px: largest shift.
    """
    factor = reduction_to(LOW_PX, judge.pair)
    small = judge.reduced(factor)
    cell = float(small.finest * factor)
    margin = min(max(math.ceil(radius_px / cell), LEAST_CELLS), MOST_CELLS)
    base = thinned(roomy(WINDOW, small.cells()), small.cells(), 40)
    window = WindowCfg(base.size, margin, base.stride, base.min_seen)
    windows = small.correlate(rescale(estimate, 1, factor), window)
    if not len(windows.surfaces):
        return Rival()
    mean = (standardise(windows.surfaces) * windows.valid[:, None, None]).sum(0) / windows.valid.sum().clamp_min(1e-6)
    axis = torch.arange(-margin, margin + 1, dtype=mean.dtype)
    away = (axis[:, None].square() + axis.square()).sqrt()
    own = float(mean[away <= 2.0].max())
    if own <= 0:
        return Rival()
    others = torch.where(away > PEAK_CELLS, mean, torch.full_like(mean, -math.inf))
    row, column = divmod(int(others.argmax()), mean.shape[-1])
    shift = float(axis[column]), float(axis[row])
    ridge = float(_along(mean, shift).min()) / own
    height = float(others[row, column]) / own
    return Rival(min(height, 2.0), (shift[0] * cell, shift[1] * cell), min(ridge, 2.0))


def _along(surface: Tensor, shift: tuple[float, float]) -> Tensor:
    """Values on the straight line from the middle of a surface to a shift (x, y), cells."""
    count = max(2, math.ceil(2 * math.hypot(*shift)))
    points = torch.linspace(0, 1, count)[:, None] * torch.tensor(shift)
    grid = points / (surface.shape[-1] / 2)
    return F.grid_sample(surface[None, None], grid[None, None], align_corners=False)[0, 0, 0]


def second_reading(reader: Matcher, estimate: AffineTransform, steps: tuple[StepCfg, ...], limit: int) -> float:
    """RMS distance, reference pixels, from an estimate to its refinement by another matcher; inf if that fails.

    Args:
        reader: matcher of the pair with other features or at another resolution.
        estimate: reference pixels -> moving pixels, both of the reader's pair.
        steps, limit: see `refine_affine`.
    """
    try:
        other = refine_affine(reader, estimate, steps, limit).affine
    except EstimationError:
        return math.inf
    return _apart(estimate, other, reader.pair.shape)


def _apart(first: AffineTransform, second: AffineTransform, shape: tuple[int, int]) -> float:
    """RMS distance between two maps of the reference, in its pixels."""
    return disagreement(AffineTransform.identity(), first.inverse.after(second), shape)


def free_fit(ties: WindowMatches | None, cell: float, shape: tuple[int, int]) -> float:
    """RMS displacement over an image by a robust affine through the windows' own matches; inf without one.

    Args:
        ties: displacement relative to the estimate, read without a prior.
        cell: pixels per feature cell.
        shape: (height, width) of the reference.
    """
    if ties is None or len(ties.points) < 6:
        return math.inf
    try:
        fit, _ = fit_affine_irls(
            ties.points.double()[None],
            ties.displacement.double()[None],
            ties.weight.double()[None],
            scale_px=SCALE_PX * cell,
            stiffness=0.05,
        )
    except EstimationError:
        return math.inf
    height, width = shape
    y, x = np.meshgrid(np.linspace(0, height - 1, 9), np.linspace(0, width - 1, 9), indexing="ij")
    lattice = torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=-1))[None]
    return float((apply_affine_batch(fit.matrix.double(), lattice) - lattice).square().sum(-1).mean().sqrt())


def spread_of(ties: WindowMatches | None) -> tuple[float, float]:
    """Weighted mean standard deviation of the windows' own matches, and their median distance from the estimate."""
    if ties is None or not len(ties.points):
        return math.inf, math.inf
    weight = ties.weight.double().clamp_min(1e-9)
    deviation = float(((weight * ties.variance.double()).sum() / weight.sum()).sqrt())
    return deviation, float(ties.displacement.norm(dim=1).median())
