"""From correlation surfaces to measured displacements with variances.

A single small window is often ambiguous between SAR and optical. So no window decides alone: each surface is
a likelihood of the displacement, which is multiplied by a Gaussian prior around the current model's prediction, and the
posterior's mean and variance go into the next fit. The prior's width shrinks from fit to fit (annealing), as in EM.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.matching.windows import WindowCorrelation

RIGHT = 0.4
"""Expected share of the windows that show their true displacement."""

FLOOR_CELLS2 = 0.3
"""Variance per axis of a window whose posterior falls on one cell, cells^2."""

FLOOR_PX2 = 0.1
"""Least variance per axis of any window, however sharp its peak, pixels^2; added for the reported standard error."""


@dataclass(frozen=True, eq=False)
class WindowMatches:
    """Matches of the windows under a prior, lengths in reference pixels; for a batch of pairs, B comes before N.

    Attributes:
        points: (N, 2) window centres (x, y).
        displacement: (N, 2) posterior mean (dx, dy).
        variance: (N,) posterior variance per axis.
        evidence: (N,) height of the surface at the posterior, in standard deviations of its background, >= 0.
        correlation: (N,) correlation coefficient at the posterior, -1..1.
        weight: (N,) for a least-squares fit, 1/px^2.
        likely: (N, 2) displacement with the prior divided out again: the window's own match near the prediction.
        precision: (N,) precision of `likely`, 1/px^2; 0 where the window added no information to the prior.
    """

    points: Tensor
    displacement: Tensor
    variance: Tensor
    evidence: Tensor
    correlation: Tensor
    weight: Tensor
    likely: Tensor
    precision: Tensor


_NONE, _NOWHERE = torch.zeros(0), torch.zeros(0, 2)
NO_MATCHES = WindowMatches(_NOWHERE, _NOWHERE, _NONE, _NONE, _NONE, _NONE, _NOWHERE, _NONE)
"""Matches of no window."""


def standardise(surfaces: Tensor) -> Tensor:
    """Surfaces (..., n, n) in standard deviations of their own background; displacements not seen (0) stay 0."""
    flat = surfaces.flatten(-2)
    known = (flat != 0).to(flat)
    count = known.sum(-1, keepdim=True).clamp_min(1.0)
    centred = (flat - flat.sum(-1, keepdim=True) / count) * known
    # Above 0, because the root has no gradient at 0; any deviation that is not a rounding error is larger.
    deviation = (centred.square().sum(-1, keepdim=True) / count).clamp_min(1e-20).sqrt()
    return (centred / deviation.clamp_min(1e-6)).view_as(surfaces)


def between_cells(surfaces: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Offset (..., 2) of the top of a parabola through a peak and its neighbours: cells (x, y), each in -0.5..0.5.

    Args:
        surfaces: (..., n, n).
        row, column: (...) the peak of each; a peak on the rim lacks neighbours and gets offset 0.
    """
    side = surfaces.shape[-1]
    r, c = row.clamp(1, side - 2), column.clamp(1, side - 2)
    flat, peak = surfaces.flatten(-2), r * side + c

    def at(index: Tensor) -> Tensor:
        return flat.gather(-1, index[..., None])[..., 0]

    middle = at(peak)
    offsets = []
    for before, after in ((at(peak - 1), at(peak + 1)), (at(peak - side), at(peak + side))):
        curvature = (2 * middle - before - after).clamp_min(1e-6)
        offsets.append(((after - before) / (2 * curvature)).clamp(-0.5, 0.5))
    inside = ((row == r) & (column == c))[..., None]
    return torch.stack(offsets, dim=-1) * inside


@dataclass(frozen=True, eq=False)
class Posterior:
    """Displacement of each window given its surface and a prior; ... is any number of leading dimensions.

    Attributes:
        probability: (..., n * n) over the candidates.
        mean: (..., 2) pixels.
        covariance: (..., 2, 2) pixels squared.
    """

    probability: Tensor
    mean: Tensor
    covariance: Tensor


def candidate_displacements(margin: int, cell: float, like: Tensor) -> Tensor:
    """(n * n, 2) displacement (dx, dy) in pixels of each entry of a surface, n = 2 margin + 1."""
    axis = torch.arange(-margin, margin + 1, dtype=like.dtype, device=like.device) * cell
    dy, dx = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([dx.flatten(), dy.flatten()], dim=-1)


def posterior(log_likelihood: Tensor, candidates: Tensor, predicted: Tensor, sigma: Tensor | float) -> Posterior:
    """Bayes' rule on a grid of displacements; differentiable.

    Args:
        log_likelihood: (..., n * n).
        candidates: (n * n, 2) pixels.
        predicted: (..., 2) centre of the Gaussian prior.
        sigma: its width, pixels; a number or (..., 1).
    """
    width = torch.as_tensor(sigma, dtype=log_likelihood.dtype, device=log_likelihood.device)
    distance = (candidates - predicted[..., None, :]).square().sum(-1)
    probability = torch.softmax(log_likelihood - distance / (2 * width.square()), dim=-1)
    mean = probability @ candidates
    away = candidates - mean[..., None, :]  # centred, as rounding could make E[x^2] - E[x]^2 negative
    return Posterior(probability, mean, (probability[..., None] * away).mT @ away)


def log_likelihood(windows: WindowCorrelation) -> Tensor:
    """(..., N, n * n) log-likelihood of each displacement, up to a constant per window.

    With trained features it is the temperature times the correlation; without, half the squared standardised height, as
    for independent Gaussian background.
    """
    if windows.temperature is not None:
        return windows.temperature * windows.surfaces.flatten(-2)
    return 0.5 * standardise(windows.surfaces).flatten(-2).clamp_min(0.0).square()


def read_windows(windows: WindowCorrelation, cell: float, predicted: Tensor, sigma: float | Tensor) -> WindowMatches:
    """Posterior mean and variance of each window's displacement; differentiable.

    Args:
        windows: correlation surfaces, of one pair or of a batch.
        cell: reference pixels per feature cell.
        predicted: (..., N, 2) displacement that the model predicts, pixels.
        sigma: width of the Gaussian prior around it, pixels; one number or (N,).
    """
    side = windows.surfaces.shape[-1]
    candidates = candidate_displacements(windows.margin, cell, windows.surfaces)
    surfaces = standardise(windows.surfaces)
    z = surfaces.flatten(-2)
    predicted = predicted.to(z)
    width = torch.as_tensor(sigma, dtype=z.dtype, device=z.device).reshape(-1, 1)
    found = posterior(log_likelihood(windows), candidates, predicted, width)
    probability, mean = found.probability, found.mean
    spread = found.covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    # A sharp posterior falls on one cell and would round the displacement; the surface gives it between cells.
    peak = probability.argmax(-1)
    between = between_cells(surfaces, peak // side, peak % side)
    sharp = torch.exp(-spread / (0.25 * cell**2))[..., None]
    mean = mean + sharp * (candidates[peak] + between * cell - mean)
    evidence = (probability * z).sum(-1).clamp_min(0.0)
    correlation = (probability * windows.surfaces.flatten(-2)).sum(-1)
    weight = evidence.square() / (spread + FLOOR_CELLS2 * cell**2) * windows.valid
    points = (windows.centres * cell + (cell - 1) / 2).expand_as(mean)
    # Divide the prior out (the site of expectation propagation), so that iterations do not confirm themselves.
    floor = 0.05 * cell**2
    resolved = spread + floor
    gain = (1 / resolved - 1 / (width[:, 0].square() + floor)).clamp_min(0.0)
    stretch = (1 / (resolved * gain.clamp_min(1e-6))).clamp(1.0, 4.0)
    likely = predicted + stretch[..., None] * (mean - predicted)
    return WindowMatches(points, mean, spread, evidence, correlation, weight, likely, gain * windows.valid)


def support_at(windows: WindowCorrelation, displacement: Tensor) -> Tensor:
    """(..., N) log-likelihood ratio of each window's surface: with this displacement against without any.

    A window is right with probability `RIGHT` and otherwise uninformative, so no window can veto.

    Args:
        windows: correlation surfaces, of one pair or of a batch.
        displacement: (..., N, 2) cells (x, y); beyond the margin a window counts as wrong.
    """
    side, shape = windows.surfaces.shape[-1], windows.surfaces.shape[:-2]
    probability = torch.softmax(log_likelihood(windows), dim=-1).reshape(-1, 1, side, side)
    grid = (displacement.to(probability).reshape(-1, 1, 1, 2) + (side // 2 + 0.5)) * 2 / side - 1
    there = F.grid_sample(probability, grid, padding_mode="zeros", align_corners=False).reshape(shape)
    return torch.log(1 - RIGHT + RIGHT * side**2 * there) * windows.valid
