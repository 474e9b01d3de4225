"""Robust affine and smooth displacement of given point pairs, from the points alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform, FieldTransform
from somareg.matching.affine import apply_affine_batch, fade, fit_affine, to_transform
from somareg.matching.gaussian_process import GaussianProcess, kernel, lattice, profiled_likelihood
from somareg.matching.magsac import fit_magsac
from somareg.types import FloatArray

MIN_POINTS = 3
ROUNDS = 8  # reweightings of the robust fit, and rounds in which neighbours join
FLOOR_PX = 0.5  # residuals below this never make a point an outlier
LENGTHS = (1.5, 3.0, 6.0, 12.0)  # candidate correlation lengths of the displacement, in distances between neighbours
RATIOS = (0.2, 0.8, 3.0, 12.0, 50.0, 200.0)  # candidate variances, relative to the noise
GAIN = 4.0  # least gain of log likelihood for a local displacement
LEAST, MOST = 12, 600  # least points for a local displacement, and most points used (more are thinned evenly)
NODES = 96  # lattice nodes along the longer side
_GOOD = 0.1  # least robust factor of an inlier


@dataclass(frozen=True, eq=False)
class GivenPoints:
    """Point pairs in the pixels of two images, all finite.

    Attributes:
        xy, target: (N, 2) reference pixels, and the moving pixels that show the same ground.
        sigma_px: (N,) standard error per axis, NaN where unknown.
        confidence: (N,) 0-1, NaN where unknown.
    """

    xy: FloatArray
    target: FloatArray
    sigma_px: FloatArray
    confidence: FloatArray

    @property
    def weight(self) -> Tensor:
        """(N,) 1 / sigma^2; an unknown sigma counts as the median; no point outweighs ten of median sigma."""
        sigma = np.asarray(self.sigma_px, float)
        has_sigma = np.isfinite(sigma) & (sigma > 0)
        usual = float(np.median(sigma[has_sigma])) if has_sigma.any() else 1.0
        return torch.from_numpy(1.0 / np.maximum(np.where(has_sigma, sigma, usual), usual / math.sqrt(10.0)) ** 2)

    def beyond(self, affine: AffineTransform) -> tuple[Tensor, Tensor]:
        """Positions (N, 2) and displacements beyond an affine, applied before it: `target = affine(xy + beyond)`."""
        xy = np.asarray(self.xy, np.float64)
        return torch.from_numpy(xy), torch.from_numpy(affine.inverse(self.target) - xy)


@dataclass(frozen=True, eq=False)
class GivenFit:
    """The affine of given points.

    Attributes:
        affine: reference pixels -> moving pixels.
        factor: (N,) robust factor of each point, 0-1.
        scale_px: residual from which a point loses weight.
    """

    affine: AffineTransform
    factor: Tensor
    scale_px: float


def spacing_px(points: Tensor) -> float:
    """Distance between neighbours among points (N, 2), at least one pixel."""
    apart = torch.cdist(points, points).fill_diagonal_(math.inf)
    return max(1.0, float(apart.amin(1).median()))


def field_of(smooth: GaussianProcess, shape: tuple[int, int]) -> tuple[FieldTransform, Tensor]:
    """A displacement over (height, width) pixels on a lattice, and its nodes (M, 2)."""
    field, where = lattice(shape, max(8.0, max(shape) / NODES))
    return replace(field, array=smooth.predict(where).T.reshape(field.array.shape).numpy()), where


def fit_given(points: GivenPoints) -> GivenFit:
    """Robust affine: a start by MAGSAC++, which outliers cannot pull, then reweighted least squares.

    Nearly half of the points may be wrong. The residual from which a point loses weight is measured on the points
    themselves: people click to some pixels, correlators match to a tenth.

    Raises:
        EstimationError: fewer than three points, or points on a line.
    """
    xy, away = points.beyond(AffineTransform.identity())
    weight = points.weight
    if len(xy) < MIN_POINTS:
        raise EstimationError(f"{len(xy)} tie points determine no affine transform; three are needed")
    threshold = max(16.0, 0.02 * float((xy - xy.mean(0)).abs().max()))
    matrix = fit_magsac(xy, away, weight / weight.max(), threshold_px=threshold)
    factor, scale = torch.ones_like(weight), FLOOR_PX
    for _ in range(ROUNDS):
        if matrix is not None:
            residual = (apply_affine_batch(matrix, xy) - xy - away).norm(dim=1)
            scale = max(FLOOR_PX, 2.5 * float(residual.median()))
            factor = fade(residual.square(), scale**2)
        matrix = fit_affine(xy, away, weight * factor, what="tie points")
    assert matrix is not None  # there is at least one round
    return GivenFit(to_transform(matrix), factor, scale)


def fit_smooth(points: GivenPoints, fit: GivenFit) -> tuple[GivenFit, GaussianProcess]:
    """Smooth displacement of the points beyond the affine, and the affine that goes with it.

    Where the ground itself is displaced, neighbouring points depart from the affine together, and the robust fit takes
    them for outliers. So the field is fitted first to the points that agree with the affine. Points that it predicts
    within its uncertainty join, round by round, and the affine is fitted again with them. Wrong points agree with no
    neighbour and never join.

    Args:
        points: at least three.
        fit: of `fit_given`.

    Returns:
        The affine, and the displacement applied before it.
    """
    field = _smooth(points, fit)
    for _ in range(ROUNDS):
        if field.variance == 0:
            break
        xy, beyond = points.beyond(fit.affine)
        noise = field.noise.diagonal().mean() * points.weight.mean() / points.weight
        doubt = (field.uncertainty(xy, field.variance) + noise).sqrt()
        scale = 4.0 * doubt.clamp_min(FLOOR_PX / 4.0)
        factor = fade((beyond - field.predict(xy)).square().sum(1), scale.square())
        joined = int(((factor > _GOOD) & (fit.factor <= _GOOD)).sum())
        away = torch.from_numpy(np.asarray(points.target - points.xy, np.float64))
        affine = to_transform(fit_affine(xy, away, points.weight * factor, what="tie points"))
        fit = replace(fit, affine=affine, factor=factor)
        field = _smooth(points, fit)
        if joined == 0:
            break
    return fit, field


def _smooth(points: GivenPoints, fit: GivenFit) -> GaussianProcess:
    """The Gaussian process of largest marginal likelihood on the points that agree."""
    xy, beyond = points.beyond(fit.affine)
    good = torch.nonzero(fit.factor > _GOOD)[:, 0]
    good = good[:: max(1, math.ceil(len(good) / MOST))]
    here, values = xy[good], beyond[good]
    noise = (points.weight * fit.factor)[good].reciprocal()
    noise = noise / noise.mean()
    length, ratio, kappa = _likeliest(here, values, noise.diag())
    return GaussianProcess(here, values, (kappa * noise).diag(), length, ratio * kappa)


def _likeliest(here: Tensor, values: Tensor, noise: Tensor) -> tuple[float, float, float]:
    """Length, variance ratio and noise variance of largest likelihood; ratio 0 unless a field is clearly likelier."""
    spacing = spacing_px(here)
    best, kappa = profiled_likelihood(noise, values, 1e-6)
    winner = 3.0 * spacing, 0.0, kappa
    if len(here) < LEAST:
        return winner
    best += GAIN
    for length in (factor * spacing for factor in LENGTHS):
        correlation = kernel(here, here, length)
        for ratio in RATIOS:
            score, kappa = profiled_likelihood(ratio * correlation + noise, values, 1e-6)
            if score > best:
                best, winner = score, (length, ratio, kappa)
    return winner
