"""Affine and smooth displacement of point pairs that somebody else matched: robust, and judged by the points alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import apply_affine_batch, fit_affine_batch, to_transform
from somareg.matching.coarse import fit_magsac
from somareg.matching.process import kernel, process_mean, process_variance
from somareg.types import FloatArray

MIN_POINTS = 3
_GOOD = 0.1  # robust factor from which a point counts


@dataclass(frozen=True)
class GivenCfg:
    """Settings.

    Attributes:
        rounds: reweightings of the robust fit, and rounds in which neighbours join.
        floor_px: no residual below this makes a point an outlier.
        lengths: candidate correlation lengths of the local displacement, in distances between neighbours.
        ratios: candidate variances, relative to the noise.
        gain: rise of the log likelihood that a local displacement must bring.
        least: points from which there may be one.
        most: points that it rests on at most; more are thinned evenly.
        nodes: nodes of its lattice along the longer side.
    """

    rounds: int = 8
    floor_px: float = 0.5
    lengths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0)
    ratios: tuple[float, ...] = (0.2, 0.8, 3.0, 12.0, 50.0, 200.0)
    gain: float = 4.0
    least: int = 12
    most: int = 600
    nodes: int = 96


@dataclass(frozen=True, eq=False)
class GivenPoints:
    """Point pairs in the pixels of two images, all finite.

    Attributes:
        xy, target: (N, 2) reference pixels, and the moving pixels that show the same ground.
        sigma_px: (N,) standard error per axis, NaN where not known.
        confidence: (N,) 0-1, NaN where not known.
    """

    xy: FloatArray
    target: FloatArray
    sigma_px: FloatArray
    confidence: FloatArray

    @property
    def weight(self) -> Tensor:
        """(N,) 1 / sigma^2, unknown ones as the median of the others; no claim outweighs ten ordinary points."""
        sigma = np.asarray(self.sigma_px, float)
        known = np.isfinite(sigma) & (sigma > 0)
        usual = float(np.median(sigma[known])) if known.any() else 1.0
        return torch.from_numpy(1.0 / np.maximum(np.where(known, sigma, usual), usual / math.sqrt(10.0)) ** 2)

    def beyond(self, affine: AffineTransform) -> tuple[Tensor, Tensor]:
        """Positions (N, 2) and what the points say beyond an affine, applied first: `target = affine(xy + beyond)`."""
        xy = np.asarray(self.xy, np.float64)
        return torch.from_numpy(xy), torch.from_numpy(affine.inverse(self.target) - xy)


@dataclass(frozen=True, eq=False)
class GivenFit:
    """The affine of given points.

    Attributes:
        affine: reference pixels -> moving pixels.
        factor: (N,) robust factor of each point, 0-1.
        scale_px: residual from which a point fades.
    """

    affine: AffineTransform
    factor: Tensor
    scale_px: float


@dataclass(frozen=True, eq=False)
class SmoothField:
    """A Gaussian process through the good points; a variance of 0 means that there is nothing beyond the affine.

    Attributes:
        points, values: (N, 2) positions and displacements, pixels.
        noise: (N,) variance of each value.
        length: correlation length, pixels.
        variance: of the displacement.
        spacing: distance between neighbours, pixels.
    """

    points: Tensor
    values: Tensor
    noise: Tensor
    length: float
    variance: float
    spacing: float

    def predict(self, where: Tensor) -> Tensor:
        """Displacement (M, 2) at points (M, 2)."""
        if self.variance == 0:
            return torch.zeros_like(where)
        return process_mean(self.points, self.values, self.noise.diag(), self.length, self.variance, where)

    def uncertainty(self, where: Tensor, variance: float) -> Tensor:
        """Posterior variance (M,) of a displacement of the given variance before the points were known."""
        return process_variance(self.points, self.noise.diag(), self.length, variance, where)


def fit_given(points: GivenPoints, cfg: GivenCfg | None = None) -> GivenFit:
    """Robust affine: MAGSAC++ for a start that wrong points cannot pull, then reweighted least squares.

    Nearly half of the points may be wrong. The scale from which a point fades is measured on the points themselves:
    people click to some pixels, correlators to a tenth.

    Raises:
        EstimationError: fewer than three points, or points on a line.
    """
    cfg = cfg or GivenCfg()
    xy, away = points.beyond(AffineTransform.identity())
    weight = points.weight
    if len(xy) < MIN_POINTS:
        raise EstimationError(f"{len(xy)} tie points determine no affine transform; three are needed")
    threshold = max(16.0, 0.02 * float((xy - xy.mean(0)).abs().max()))
    matrix = fit_magsac(xy, away, weight / weight.max(), threshold_px=threshold)
    factor, scale = torch.ones_like(weight), cfg.floor_px
    for _ in range(cfg.rounds):
        if matrix is not None:
            residual = (apply_affine_batch(matrix, xy) - xy - away).norm(dim=1)
            scale = max(cfg.floor_px, 2.5 * float(residual.median()))
            factor = _fade(residual, scale)
        matrix = _least_squares(xy, away, weight * factor)
    assert matrix is not None  # there is at least one round
    return GivenFit(to_transform(matrix), factor, scale)


def fit_smooth(points: GivenPoints, fit: GivenFit, cfg: GivenCfg | None = None) -> tuple[GivenFit, SmoothField]:
    """What the points say beyond the affine, and the affine that goes with it.

    Where the ground itself is displaced, points leave the affine together, and the robust fit takes them for wrong.
    So the field is first fitted to those on the affine; points that it foretells within its uncertainty join, round by
    round, and the affine follows them. Wrong points stay alone and are never foretold.

    Args:
        points: at least three.
        fit: of `fit_given`.
        cfg: settings.
    """
    cfg = cfg or GivenCfg()
    field = _smooth(points, fit, cfg)
    for _ in range(cfg.rounds):
        if field.variance == 0:
            break
        xy, beyond = points.beyond(fit.affine)
        noise = field.noise.mean() * points.weight.mean() / points.weight
        doubt = (field.uncertainty(xy, field.variance) + noise).sqrt()
        factor = _fade((beyond - field.predict(xy)).norm(dim=1), 4.0 * doubt.clamp_min(cfg.floor_px / 4.0))
        joined = int(((factor > _GOOD) & (fit.factor <= _GOOD)).sum())
        away = torch.from_numpy(np.asarray(points.target - points.xy, np.float64))
        affine = to_transform(_least_squares(xy, away, points.weight * factor))
        fit = replace(fit, affine=affine, factor=factor)
        field = _smooth(points, fit, cfg)
        if joined == 0:
            break
    return fit, field


def _least_squares(xy: Tensor, away: Tensor, weight: Tensor) -> Tensor:
    fit = fit_affine_batch(xy[None], away[None], weight[None])
    if bool(fit.refused[0]):
        raise EstimationError("the tie points lie on a line or in one spot: no affine transform is determined")
    return fit.matrix[0]


def _fade(residual: Tensor, scale: float | Tensor) -> Tensor:
    """Geman-McClure: a quarter at the scale."""
    return (1.0 + (residual / scale).square()).square().reciprocal()


def _smooth(points: GivenPoints, fit: GivenFit, cfg: GivenCfg) -> SmoothField:
    """The process of largest marginal likelihood on the good points."""
    xy, beyond = points.beyond(fit.affine)
    good = torch.nonzero(fit.factor > _GOOD)[:, 0]
    good = good[:: max(1, math.ceil(len(good) / cfg.most))]
    here, values = xy[good], beyond[good]
    noise = (points.weight * fit.factor)[good].reciprocal()
    noise = noise / noise.mean()
    apart = torch.cdist(here, here).fill_diagonal_(math.inf)
    spacing = max(1.0, float(apart.amin(1).median()))
    length, ratio, kappa = _likeliest(here, values, noise.diag(), spacing, cfg)
    return SmoothField(here, values, kappa * noise, length, ratio * kappa, spacing)


def _likeliest(
    here: Tensor, values: Tensor, noise: Tensor, spacing: float, cfg: GivenCfg
) -> tuple[float, float, float]:
    """Length, variance ratio and noise variance of largest marginal likelihood; ratio 0 unless clearly beaten."""
    best, kappa = _likelihood(noise, values)
    chosen = 3.0 * spacing, 0.0, kappa
    if len(here) < cfg.least:
        return chosen
    best += cfg.gain
    for length in (factor * spacing for factor in cfg.lengths):
        correlation = kernel(here, here, length)
        for ratio in cfg.ratios:
            score, kappa = _likelihood(ratio * correlation + noise, values)
            if score > best:
                best, chosen = score, (length, ratio, kappa)
    return chosen


def _likelihood(covariance: Tensor, values: Tensor) -> tuple[float, float]:
    """Log likelihood up to a constant, and the noise variance, which it is profiled over."""
    factor = torch.linalg.cholesky(covariance)
    kappa = max(float((values * torch.cholesky_solve(values, factor)).sum() / values.numel()), 1e-6)
    log_det = 2 * float(factor.diagonal().log().sum())
    return -0.5 * values.numel() * math.log(kappa) - log_det, kappa
