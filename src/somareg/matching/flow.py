"""Local flow: what the affine cannot explain, as a Gaussian process over the windows' measurements.

The displacement beyond the affine is a smooth random field with zero mean: close to good windows it follows them,
far from any it returns to zero, and its variance says which is which. How large and how smooth the field is, and
whether there is one, is weighed: the marginal likelihood of the measurements gives every size and smoothness a
posterior probability, "no field" among them, and the estimate is the mean over all (Bayesian model averaging). The
noise of overlapping windows is correlated as it was measured to be, so a pair that is truly affine keeps no local
displacement.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.matching.affine import fade, solve
from somareg.matching.gaussian_process import GaussianProcess, kernel, lattice, profiled_likelihood
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import NO_MATCHES, WindowMatches, read_windows
from somareg.matching.windows import WindowCfg, thinned
from somareg.types import FloatArray


@dataclass(frozen=True)
class FlowCfg:
    """Settings of the local flow.

    Attributes:
        steps: window settings (feature cells) and prior width (cells) of each warp-correlate-fit step.
        lengths: candidate correlation lengths, in window sides.
        ratios: candidate field variances, relative to the noise variance of an average window.
        none: probability that there is no field, before the windows are looked at.
        least: posterior probability of a field below which there is none.
        share: candidates of less posterior probability are left out of the mean.
        node_px: distance of the field's nodes, a fifth of the shortest field, pixels; at most 96 nodes a side.
        limit: windows per step at most (about).
        first_limit: the same for the first step, which decides whether there is a field at all.
        selection: windows used to weigh the candidates (about).
        robust_rounds: reweightings.
        max_px: largest believable local displacement, pixels.
        follow: whether to look for a displacement; without, only the coverage is told.
    """

    steps: tuple[tuple[WindowCfg, float], ...] = ((WindowCfg(28, 8, 8), 2.0), (WindowCfg(28, 8, 8), 2.0))
    lengths: tuple[float, ...] = (1.5, 3.0, 6.0)
    ratios: tuple[float, ...] = (0.02, 0.05, 0.2, 0.8, 3.0, 12.0, 50.0)
    none: float = 0.9
    least: float = 0.2
    share: float = 0.03
    node_px: float = 16.0
    limit: int = 400
    first_limit: int = 200
    selection: int = 200
    robust_rounds: int = 2
    max_px: float = 24.0
    follow: bool = True


@dataclass(frozen=True, eq=False)
class Flow:
    """A local displacement field and what is known of it.

    Attributes:
        field: `xy -> xy + d(xy)` on the reference, pixels.
        coverage: (h, w) at the field's nodes, 0-1: share of the uncertainty of a 1 px field that windows nearby
            removed.
        sigma_px: (h, w) at the nodes: posterior standard deviation per axis; 0 where there is no field.
        matches: the last windows; displacement is total (relative to the affine).
        factor: (N,) robust factor of each match, 0-1.
    """

    field: FieldTransform
    coverage: FloatArray
    sigma_px: FloatArray
    matches: WindowMatches
    factor: Tensor

    def without_field(self) -> Flow:
        """The same with no displacement."""
        nothing = np.zeros_like(self.sigma_px)
        return replace(self, field=replace(self.field, array=np.zeros_like(self.field.array)), sigma_px=nothing)


@dataclass(frozen=True, eq=False)
class _Belief:
    """Processes that may have made the measurements, and how probable each is.

    Attributes:
        processes: those whose probability counts, most probable first; empty when there is surely no field.
        probabilities: of each; what is missing to 1 is that of no field.
        factor: (N,) robust factor of each measurement, 0-1.
        still: the most probable process with a variance of 0, which knows how much the windows tell.
    """

    processes: tuple[GaussianProcess, ...]
    probabilities: tuple[float, ...]
    factor: Tensor
    still: GaussianProcess

    @property
    def of_a_field(self) -> float:
        """Posterior probability that there is any field."""
        return sum(self.probabilities)

    def mean(self, where: Tensor) -> Tensor:
        """Expected displacement (M, 2) at points (M, 2)."""
        expected = torch.zeros_like(where)
        for probability, process in zip(self.probabilities, self.processes, strict=True):
            expected += probability * process.predict(where)
        return expected

    def variance(self, where: Tensor) -> Tensor:
        """Of that displacement, (M,) per axis: within the processes and between them."""
        second, mean = where.new_zeros(len(where)), torch.zeros_like(where)
        for probability, process in zip(self.probabilities, self.processes, strict=True):
            expected, variance = process.predict_with_variance(where)
            second += probability * (variance + expected.square().mean(-1))
            mean += probability * expected
        return (second - mean.square().mean(-1)).clamp_min(0.0)


@dataclass(frozen=True, eq=False)
class _Reading:
    """What windows say beyond the affine.

    Attributes:
        matches: displacements are total (relative to the affine).
        side: of the windows, pixels.
        belief: about the field.
    """

    matches: WindowMatches
    side: float
    belief: _Belief

    def coverage(self, where: Tensor) -> Tensor:
        """Share of the uncertainty of a 1 px field that the windows removed at points (M, 2): (M,) 0-1."""
        near = _nearness(where, self.matches.points.double(), self.matches.precision, self.side)
        return (1.0 - self.belief.still.uncertainty(where, 1.0)) * near


def estimate_flow(
    matcher: Matcher,
    affine: AffineTransform,
    cfg: FlowCfg,
    is_seen: Callable[[FieldTransform], bool] = lambda field: True,
) -> Flow:
    """Follow what the windows still see after the affine.

    Args:
        matcher: the pair at the resolution of the reference.
        affine: reference pixels -> moving pixels.
        cfg: settings.
        is_seen: whether somebody who did not make a field sees it, too; one that is not seen is dropped.

    Returns:
        The local flow D such that `moving <- affine @ D`.
    """
    longest = max(matcher.pair.shape)
    # Finer than the windows' own spacing on a large image would cost memory and tell nothing.
    still, where = lattice(matcher.pair.shape, min(max(cfg.node_px, longest / 96), longest / 4))

    def on_lattice(values: Tensor) -> NDArray[np.float64]:
        """(M, n) values at the nodes as (n, h, w)."""
        return np.asarray(values.T.reshape(-1, *still.array.shape[1:]), np.float64)

    field = still
    last: _Reading | None = None
    # Fewer windows would tell most fields, but not relief of a pixel: of seven such fields 80 windows saw two.
    for step, settings in enumerate(cfg.steps):
        last = _read(matcher, affine, field, settings, cfg.limit if step else cfg.first_limit, cfg)
        if last is None or not cfg.follow or last.belief.of_a_field < cfg.least:
            field = still
            break
        field = replace(still, array=on_lattice(last.belief.mean(where).clamp(-cfg.max_px, cfg.max_px)))
        if not is_seen(field):
            field = still
            break
    if last is None:  # the affine leads off the moving image
        nothing = np.zeros(still.array.shape[1:])
        return Flow(still, nothing, nothing, NO_MATCHES, torch.zeros(0))
    coverage = on_lattice(last.coverage(where)[:, None])[0]
    sigma = on_lattice(last.belief.variance(where).sqrt()[:, None])[0] if field.array.any() else np.zeros_like(coverage)
    return Flow(field, coverage, sigma, last.matches, last.belief.factor)


def _read(
    matcher: Matcher,
    affine: AffineTransform,
    field: FieldTransform,
    settings: tuple[WindowCfg, float],
    limit: int,
    cfg: FlowCfg,
) -> _Reading | None:
    """Correlate windows under the affine and a field; None where none of them meets the moving image.

    Args:
        matcher, affine, cfg: see `estimate_flow`.
        field: the displacement so far.
        settings: windows and width of the prior, cells.
        limit: windows at most (about).
    """
    cells, cell = matcher.cells(), float(matcher.finest)
    window = thinned(settings[0], cells, limit)
    # Before there is a field, features that were warped by the affine serve.
    windows = matcher.correlate(compose(affine, field) if field.array.any() else affine, window)
    if not len(windows.centres):
        return None
    matches = read_windows(windows, cell, torch.zeros(len(windows.centres), 2), settings[1] * cell)
    side = min(window.size, *cells) * cell
    points = matches.points.double()
    total = matches.likely.double() + torch.from_numpy(field.displacement(points.numpy()))
    belief = _weigh(points, total, matches.precision.double(), side, cfg)
    return _Reading(replace(matches, displacement=total.float()), side, belief)


def _weigh(points: Tensor, values: Tensor, precision: Tensor, side: float, cfg: FlowCfg) -> _Belief:
    """Posterior over the sizes and smoothnesses of a field, with windows that disagree with it fading out.

    Args:
        points, values: (N, 2) positions and displacements, pixels.
        precision: (N,) relative precision of each.
        side: window side, pixels.
        cfg: candidates.
    """
    factor = torch.ones_like(precision)
    for _ in range(cfg.robust_rounds + 1):
        noise = _relative_noise(points, precision * factor, side)
        belief = _average(points, values, noise, factor, side, cfg)
        residual = (values - belief.mean(points)).norm(dim=1)
        scale = 2.0 * float(_weighted_median(residual, precision)) + 0.2
        factor = fade(residual.square(), scale**2)
    return replace(belief, factor=factor)


def _average(points: Tensor, values: Tensor, noise: Tensor, factor: Tensor, side: float, cfg: FlowCfg) -> _Belief:
    """`_weigh` with given noise (N, N)."""
    every = max(1, len(points) // cfg.selection)
    some, theirs, their_noise = points[::every], values[::every], noise[::every, ::every]
    without, _ = profiled_likelihood(their_noise, theirs, 1e-9)
    candidates = [(length * side, ratio) for length in cfg.lengths for ratio in cfg.ratios]
    if not math.isfinite(without):  # nothing can be told from these
        return _Belief((), (), factor, GaussianProcess(points, values, noise, side, 0.0))
    gains = [
        profiled_likelihood(ratio * correlation + their_noise, theirs, 1e-9)[0] - without
        for correlation in (kernel(some, some, length * side) for length in cfg.lengths)
        for ratio in cfg.ratios
    ]
    prior = math.log((1 - cfg.none) / len(candidates))
    probabilities = torch.softmax(torch.tensor([math.log(cfg.none), *(prior + gain for gain in gains)]), 0)[1:]
    ranked = [int(i) for i in probabilities.argsort(descending=True)]
    processes = [_process(points, values, noise, *candidates[ranked[0]])]
    counted = [i for i in ranked if probabilities[i] >= cfg.share]
    processes += [_process(points, values, noise, *candidates[i]) for i in counted[1:]]
    still = replace(processes[0], variance=0.0)
    return _Belief(tuple(processes[: len(counted)]), tuple(float(probabilities[i]) for i in counted), factor, still)


def _process(points: Tensor, values: Tensor, noise: Tensor, length: float, ratio: float) -> GaussianProcess:
    """The process of a correlation length and a relative variance, in the measurements' own scale."""
    covariance = ratio * kernel(points, points, length) + noise
    factor = float((values * solve(covariance, values)).sum() / values.numel())
    return GaussianProcess(points, values, factor * noise, length, ratio * factor)


def _relative_noise(points: Tensor, precision: Tensor, side: float) -> Tensor:
    """Covariance (N, N) of the windows' errors up to a factor: an average window has about 1.

    Errors agree as far as windows overlap: measured on pairs whose truth is affine, their correlation falls in line
    with the distance and is gone at 1.1 window sides, for every set and window.
    """
    deviation = precision.clamp_min(1e-4 * float(precision.max())).clamp_min(1e-12).rsqrt()
    shared = (1.0 - (points[:, None] - points).abs() / (1.1 * side)).clamp_min(0.0).prod(-1)
    covariance = deviation[:, None] * deviation * shared + 0.05 * torch.diag(deviation.square())
    return precision.mean().clamp_min(1e-12) * covariance


def _weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    order = values.argsort()
    cumulative = weight[order].cumsum(0)
    return values[order][torch.searchsorted(cumulative, cumulative[-1] / 2).clamp_max(len(values) - 1)]


def _nearness(where: Tensor, points: Tensor, precision: Tensor, side: float) -> Tensor:
    """1 inside a window that says something, falling to 0 about a window's side beyond it, (M,)."""
    telling = precision > 0.05 * precision.max()
    if not bool(telling.any()):
        return where.new_zeros(len(where))
    distance = torch.cdist(where, points[telling]).amin(1)
    return torch.exp(-0.5 * ((distance - side / 2).clamp_min(0.0) / (side / 3)).square())
