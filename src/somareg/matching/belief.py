"""Evidence of the windows for a smooth displacement field: its size, its smoothness, and whether there is one.

The marginal likelihood of the measurements gives every size and smoothness a posterior probability, "no field" among
them, and the field is the mean over all (Bayesian model averaging). The noise of overlapping windows has
the correlation that was measured, and windows that disagree with the field lose weight. One implementation serves one
pair and a batch, inference and training: gradients flow through the measurements, while probabilities and robust
factors are constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from somareg.features.masks import is_readable
from somareg.matching.affine import fade
from somareg.matching.gaussian_process import kernel, left_variance, process_variance, profiled_likelihood
from somareg.matching.linear import cholesky, solve_by

FINEST_PX2 = 1e-6  # smallest variance of a measurement

TYPICAL = 0.05
"""Variance of measurements times their precision where there is no field: 0.036 to 0.075, by size of window and set.

Precision is that of single windows, and robust factors narrow their scatter.
"""


@dataclass(frozen=True)
class BeliefCfg:
    """Which fields are considered.

    Attributes:
        lengths: candidate correlation lengths, in window sides.
        ratios: candidate field variances, relative to the noise variance of an average window.
        none: prior probability that there is no field; below 1.
        share: candidates with less posterior probability are left out of the mean.
        selection: windows used to weigh the candidates (about).
        robust_rounds: number of reweightings.
    """

    lengths: tuple[float, ...] = (1.5, 3.0, 6.0)
    ratios: tuple[float, ...] = (0.02, 0.05, 0.2, 0.8, 3.0, 12.0, 50.0)
    none: float = 0.9
    share: float = 0.03
    selection: int = 200
    robust_rounds: int = 2


@dataclass(frozen=True, eq=False)
class Belief:
    """Candidate processes behind the measurements of a batch, and their probabilities; float64.

    Attributes:
        points, values: (B, N, 2) positions and displacements, pixels.
        precision: (B, N) of the values.
        noise: (B, N, N) covariance of their errors up to a factor; an average window has about 1.
        side: of the windows, pixels.
        candidates: K pairs of correlation length (pixels) and variance relative to the noise.
        probabilities: (B, K), 0 for those that are left out; 1 minus their sum is the probability of no field.
        best: (B,) index of the most probable candidate.
        factor: (B, N) robust factor of each measurement, 0-1.
    """

    points: Tensor
    values: Tensor
    precision: Tensor
    noise: Tensor
    side: float
    candidates: tuple[tuple[float, float], ...]
    probabilities: Tensor
    best: Tensor
    factor: Tensor
    _solved: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def of_a_field(self) -> Tensor:
        """(B,) posterior probability that there is any field."""
        return self.probabilities.sum(-1)

    def mean(self, where: Tensor) -> Tensor:
        """Expected displacement (B, M, 2) at points (B, M, 2)."""
        expected = torch.zeros_like(where)
        for k in self._counted:
            _, pull = self._solution(k)
            expected = expected + self.probabilities[:, k, None, None] * (self._cross(k, where) @ pull)
        return expected

    def variance(self, where: Tensor) -> Tensor:
        """Variance (B, M) of that displacement per axis: within the processes and between them."""
        mean = torch.zeros_like(where)
        second = mean[..., 0]
        for k in self._counted:
            root, pull = self._solution(k)
            cross, probability = self._cross(k, where), self.probabilities[:, k, None]
            expected = cross @ pull
            within = self._scale(k)[:, None] * left_variance(cross, root, self.candidates[k][1])
            second = second + probability * (within + expected.square().mean(-1))
            mean = mean + probability[..., None] * expected
        return (second - mean.square().mean(-1)).clamp_min(0.0)

    def coverage(self, where: Tensor) -> Tensor:
        """Share (B, M), 0-1, of the uncertainty of a 1 px field that the windows removed at points (B, M, 2)."""
        lengths = torch.tensor([length for length, _ in self.candidates], dtype=where.dtype, device=where.device)
        left = process_variance(self.points, self._noise, lengths[self.best][:, None, None], 1.0, where)
        return (1.0 - left) * self._nearness(where)

    def scatter(self, field: Tensor | None = None) -> Tensor:
        """(B,) variance of the measurements about a field relative to what their precision lets expect, see `TYPICAL`.

        Args:
            field: (B, N, 2) displacement at the points; None for no displacement.
        """
        left = self.values if field is None else self.values - field
        root, _ = cholesky(self.noise)
        variance = (left * solve_by(root, left)).sum((-2, -1)) / self.values[0].numel()
        return variance * (self.precision * self.factor).mean(-1) / TYPICAL

    @cached_property
    def _noise(self) -> Tensor:
        """(B, N, N) covariance of the errors under the most probable candidate, px^2."""
        scales = torch.stack([self._scale(k) for k in self._ranked], dim=-1)
        index = torch.tensor(self._ranked, device=self.best.device)
        chosen = (scales * (index == self.best[:, None])).sum(-1)
        return chosen[:, None, None] * self.noise

    @cached_property
    def _counted(self) -> list[int]:
        """Candidates of non-zero probability; all of them where reading the values would wait for a device."""
        everyone = range(len(self.candidates))
        if not is_readable(self.probabilities):
            return list(everyone)
        return [k for k in everyone if bool(self.probabilities[:, k].any())]

    @property
    def _ranked(self) -> list[int]:
        """Candidates that are the most probable one of at least one pair; all where values cannot be read at once."""
        everyone = range(len(self.candidates))
        return sorted(set(self.best.tolist())) if is_readable(self.best) else list(everyone)

    def _cross(self, k: int, where: Tensor) -> Tensor:
        length, ratio = self.candidates[k]
        return ratio * kernel(where, self.points, length)

    def _solution(self, k: int) -> tuple[Tensor, Tensor]:
        """Cholesky factor (B, N, N) of the values' relative covariance, and the values (B, N, 2) divided by it."""
        if k not in self._solved:
            root, _ = cholesky(self._cross(k, self.points) + self.noise)
            self._solved[k] = root, solve_by(root, self.values)
        return self._solved[k]

    def _scale(self, k: int) -> Tensor:
        """(B,) factor from the relative covariance of a candidate to px^2."""
        explained = (self.values * self._solution(k)[1]).sum((-2, -1)) / self.values[0].numel()
        return explained.clamp_min(FINEST_PX2)

    def _nearness(self, where: Tensor) -> Tensor:
        """(B, M): 1 inside an informative window, falling to 0 about one window side beyond it."""
        telling = self.precision > 0.05 * self.precision.amax(-1, keepdim=True)
        distance = torch.cdist(where, self.points).masked_fill(~telling[:, None], torch.inf).amin(-1)
        return torch.exp(-0.5 * ((distance - self.side / 2).clamp_min(0.0) / (self.side / 3)).square())


def weigh(points: Tensor, values: Tensor, precision: Tensor, side: float, cfg: BeliefCfg) -> Belief:
    """Posterior over the size and smoothness of a field; windows that disagree with it lose weight.

    Args:
        points, values: (B, N, 2) float64 positions and displacements, pixels.
        precision: (B, N) relative precision of each.
        side: of the windows, pixels.
        cfg: settings, with the candidates.
    """
    known, certain = values.detach(), precision.detach()
    factor = torch.ones_like(certain)
    candidates = tuple((length * side, ratio) for length in cfg.lengths for ratio in cfg.ratios)
    for _ in range(cfg.robust_rounds + 1):
        noise = relative_noise(points, certain * factor, side)
        probabilities, best = _probabilities(points, known, noise, candidates, cfg)
        belief = Belief(points, known, certain, noise, side, candidates, probabilities, best, factor)
        residual = (known - belief.mean(points)).norm(dim=-1)
        scale = 2.0 * _weighted_median(residual, certain) + 0.2
        factor = fade(residual.square(), scale.square()[:, None])
    if values.requires_grad or precision.requires_grad:
        noise = relative_noise(points, precision * belief.factor, side)
        belief = replace(belief, values=values, precision=precision, noise=noise, _solved={})
    return replace(belief, factor=factor)


def relative_noise(points: Tensor, precision: Tensor, side: float) -> Tensor:
    """Covariance (B, N, N) of the windows' errors up to a factor: an average window has about 1.

    Errors of overlapping windows are correlated. Measured on pairs whose truth is affine, the correlation falls
    linearly with the distance, to zero at 1.1 window sides, for every set and window.
    """
    least = 1e-4 * precision.amax(-1, keepdim=True)
    deviation = torch.maximum(precision, least).clamp_min(1e-12).rsqrt()
    apart = (points[..., :, None, :] - points[..., None, :, :]).abs()
    shared = (1.0 - apart / (1.1 * side)).clamp_min(0.0).prod(-1)
    covariance = deviation[..., :, None] * deviation[..., None, :] * shared
    covariance = covariance + 0.05 * torch.diag_embed(deviation.square())
    return precision.mean(-1).clamp_min(1e-12)[..., None, None] * covariance


def _probabilities(
    points: Tensor, values: Tensor, noise: Tensor, candidates: tuple[tuple[float, float], ...], cfg: BeliefCfg
) -> tuple[Tensor, Tensor]:
    """Posterior probabilities (B, K) of the candidates, 0 of those left out, and the most probable one (B,)."""
    every = max(1, points.shape[1] // cfg.selection)
    some, theirs, their_noise = points[:, ::every], values[:, ::every], noise[:, ::every, ::every]
    without, _ = profiled_likelihood(their_noise, theirs, 1e-9)
    correlations = {length: kernel(some, some, length) for length, _ in candidates}
    gains = torch.stack(
        [
            profiled_likelihood(ratio * correlations[length] + their_noise, theirs, 1e-9)[0] - without
            for length, ratio in candidates
        ],
        dim=-1,
    )
    prior = math.log((1 - cfg.none) / len(candidates))
    nothing = gains.new_full((len(gains), 1), math.log(cfg.none) if cfg.none > 0 else -math.inf)
    probabilities = torch.softmax(torch.cat([nothing, prior + gains], dim=-1), dim=-1)[:, 1:]
    # Where the measurements are uninformative there is no field.
    probabilities = torch.where(torch.isfinite(without)[:, None], probabilities, 0.0).nan_to_num(0.0)
    return probabilities * (probabilities >= cfg.share), probabilities.argmax(-1)


def _weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """(B,) of values (B, N)."""
    order = values.argsort(-1)
    cumulative = weight.gather(-1, order).cumsum(-1)
    at = torch.searchsorted(cumulative, cumulative[:, -1:] / 2).clamp_max(values.shape[-1] - 1)
    return values.gather(-1, order).gather(-1, at)[:, 0]
