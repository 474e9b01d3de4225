"""Local flow: what the affine cannot explain, as a Gaussian process over the windows' measurements.

The displacement beyond the affine is a smooth random field with zero mean: close to good windows it follows them,
far from any it returns to zero, and its variance says which is which. How large and how smooth the field is comes
from the marginal likelihood of the measurements, with the noise of overlapping windows correlated as it is, so that a
pair that is truly affine keeps (almost) no local displacement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.matching.affine import fade, solve
from somareg.matching.gaussian_process import GaussianProcess, kernel, lattice, overlap_noise, profiled_likelihood
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import WindowMatches, read_windows, standardise
from somareg.matching.windows import WindowCfg, WindowCorrelation, thinned
from somareg.types import FloatArray


@dataclass(frozen=True)
class FlowCfg:
    """Settings of the local flow.

    Attributes:
        steps: window settings (feature cells) and prior width (cells) of each warp-correlate-fit step.
        lengths: candidate correlation lengths, in window sides.
        ratios: candidate field variances, relative to the noise variance of an average window.
        node_px: distance of the field's nodes, pixels (more on images wider than 96 nodes).
        limit: windows per step at most (about).
        first_limit: the same for the first step, which decides whether there is a field at all.
        selection: windows used to choose size and smoothness (about).
        evidence: gain in log likelihood that a field must bring over no field.
        robust_rounds: reweightings.
        gain: rise of the correlation of held-out windows, in deviations of the background, that a field must bring.
        max_px: largest believable local displacement, pixels.
        follow: whether to look for a displacement; without, only the certainty is told.
    """

    steps: tuple[tuple[WindowCfg, float], ...] = (
        (WindowCfg(28, 8, 8), 3.0),
        (WindowCfg(24, 5, 7), 2.0),
        (WindowCfg(20, 4, 6), 1.5),
    )
    lengths: tuple[float, ...] = (1.5, 3.0, 6.0)
    ratios: tuple[float, ...] = (0.0, 0.05, 0.2, 0.8, 3.0, 12.0, 50.0)
    node_px: float = 8.0
    limit: int = 700
    first_limit: int = 160
    selection: int = 150
    evidence: float = 0.0
    robust_rounds: int = 2
    gain: float = 0.02
    max_px: float = 24.0
    follow: bool = True


@dataclass(frozen=True, eq=False)
class Flow:
    """A local displacement field and what is known of it.

    Attributes:
        field: `xy -> xy + d(xy)` on the reference, pixels.
        certainty: (h, w) at the field's nodes, 0-1: share of the uncertainty of a 1 px field that windows nearby
            removed.
        sigma_px: (h, w) at the nodes: posterior standard deviation per axis.
        matches: the last windows; displacement is total (relative to the affine).
        factor: (N,) robust factor of each match, 0-1.
    """

    field: FieldTransform
    certainty: FloatArray
    sigma_px: FloatArray
    matches: WindowMatches
    factor: Tensor


def _relative_noise(points: Tensor, precision: Tensor, side: float) -> Tensor:
    """`overlap_noise` up to a factor: an average window has about 1."""
    return precision.mean() * overlap_noise(points, precision.clamp_min(1e-4 * float(precision.max())), side)


def _choose(points: Tensor, values: Tensor, noise: Tensor, side: float, cfg: FlowCfg) -> tuple[float, float]:
    """Correlation length (pixels) and variance ratio of largest marginal likelihood; ratio 0 unless clearly beaten."""
    every = max(1, len(points) // cfg.selection)
    points, values, noise = points[::every], values[::every], noise[::every, ::every]
    scores: dict[tuple[float, float], float] = {}
    for length in cfg.lengths:
        correlation = kernel(points, points, length * side)
        for ratio in cfg.ratios if not scores else cfg.ratios[1:]:
            scores[length * side, ratio], _ = profiled_likelihood(ratio * correlation + noise, values, 1e-9)
    none = next(iter(scores))
    best = max(scores, key=lambda key: scores[key])
    return best if scores[best] > scores[none] + cfg.evidence else none


def _fit_process(
    points: Tensor, values: Tensor, precision: Tensor, side: float, cfg: FlowCfg
) -> tuple[GaussianProcess, Tensor]:
    """Gaussian process with windows that disagree with their neighbours fading out (Geman-McClure).

    Args:
        points, values: (N, 2) positions and displacements, pixels.
        precision: (N,) relative precision of each.
        side: window side, pixels.
        cfg: candidates.

    Returns:
        The process and the robust factor (N,) of each window.
    """
    factor = torch.ones_like(precision)
    for _ in range(cfg.robust_rounds + 1):
        noise = _relative_noise(points, precision * factor, side)
        length, ratio = _choose(points, values, noise, side, cfg)
        covariance = ratio * kernel(points, points, length) + noise
        kappa = float((values * solve(covariance, values)).sum() / values.numel())
        process = GaussianProcess(points, values, kappa * noise, length, ratio * kappa)
        residual = (values - process.predict(points)).norm(dim=1)
        scale = 2.0 * float(_weighted_median(residual, precision)) + 0.2
        factor = fade(residual.square(), scale**2)
    return process, factor


def holdout_gain(windows: WindowCorrelation, matches: WindowMatches, cell: float, side: float, cfg: FlowCfg) -> float:
    """Does a field fitted to some windows raise the correlation of windows that it never saw?

    The windows are dealt to two halves in blocks; a field fitted to one half is tried on the windows of the other
    that share no pixel with it.

    Returns:
        Mean gain of the held-out windows, in deviations of the background; 0 when it cannot be told.
    """
    points = matches.points.double()
    block = (points / (1.5 * side)).floor()
    colour = (block.sum(1) % 2).bool()
    z = standardise(windows.surfaces)
    gains: list[Tensor] = []
    for half in (colour, ~colour):
        if int(half.sum()) < 6 or int((~half).sum()) < 3:
            continue
        process, _ = _fit_process(
            points[half], matches.likely[half].double(), matches.precision[half].double(), side, cfg
        )
        apart = (points[~half][:, None] - points[half][None]).abs().amax(-1).amin(1)
        unseen = torch.nonzero(~half)[:, 0][apart > 0.5 * side]
        if len(unseen):
            predicted = process.predict(points[unseen])
            zero = torch.zeros_like(predicted)
            gains.append(_height(z[unseen], predicted / cell) - _height(z[unseen], zero))
    if not gains:
        return 0.0
    return float(torch.cat(gains).mean())


def _height(surfaces: Tensor, cells: Tensor) -> Tensor:
    """Bilinear value (N,) of each surface (N, n, n) at a displacement (N, 2) in cells."""
    n = surfaces.shape[-1]
    grid = (cells.to(surfaces) + n // 2 + 0.5) * 2 / n - 1
    values = F.grid_sample(surfaces[:, None], grid[:, None, None], padding_mode="border", align_corners=False)
    return values[:, 0, 0, 0]


def _weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    order = values.argsort()
    cumulative = weight[order].cumsum(0)
    return values[order][torch.searchsorted(cumulative, cumulative[-1] / 2)]


def estimate_flow(matcher: Matcher, affine: AffineTransform, cfg: FlowCfg) -> Flow:
    """Follow what the windows still see after the affine.

    Args:
        matcher: the pair at the resolution of the reference.
        affine: reference pixels -> moving pixels.
        cfg: settings.

    Returns:
        The local flow D such that `moving <- affine @ D`.
    """
    longest = max(matcher.pair.shape)
    # Finer than the windows' own spacing on a large image would cost memory and tell nothing.
    field, where = lattice(matcher.pair.shape, min(max(cfg.node_px, longest / 96), longest / 4))
    shape = field.array.shape[1:]
    cell = float(matcher.finest)
    cells = matcher.cells()
    nothing = np.zeros(shape)
    for step, (window, width_cells) in enumerate(cfg.steps):
        window = thinned(window, cells, cfg.limit if step else cfg.first_limit)
        # Before there is a field, features that were warped by the affine serve.
        windows = matcher.correlate(compose(affine, field) if step else affine, window)
        if not len(windows.centres):  # the affine leads off the moving image
            none = read_windows(windows, cell, torch.zeros(0, 2), cell)
            return Flow(replace(field, array=np.zeros_like(field.array)), nothing, nothing, none, torch.zeros(0))
        matches = read_windows(windows, cell, torch.zeros(len(windows.centres), 2), width_cells * cell)
        side = min(window.size, *cells) * cell
        points = matches.points.double()
        total = matches.likely.double() + torch.from_numpy(field.displacement(points.numpy()))
        process, factor = _fit_process(points, total, matches.precision.double(), side, cfg)
        if step == 0 and not (
            cfg.follow and process.variance and holdout_gain(windows, matches, cell, side, cfg) >= cfg.gain
        ):
            process = replace(process, variance=0.0)
            break
        values = process.predict(where).clamp(-cfg.max_px, cfg.max_px)
        field = replace(field, array=values.T.reshape(2, *shape).numpy())
    removed = 1.0 - process.uncertainty(where, 1.0)
    certainty = (removed * _nearness(where, points, matches.precision, side)).reshape(shape)
    sigma = process.uncertainty(where, process.variance).sqrt().reshape(shape)
    matches = replace(matches, displacement=total.float())
    return Flow(field, certainty.numpy(), sigma.numpy(), matches, factor)


def _nearness(where: Tensor, points: Tensor, precision: Tensor, side: float) -> Tensor:
    """1 inside a window that says something, falling to 0 about a window's side beyond it, (M,)."""
    telling = precision > 0.05 * precision.max()
    distance = torch.cdist(where, points[telling]).amin(1)
    return torch.exp(-0.5 * ((distance - side / 2).clamp_min(0.0) / (side / 3)).square())
