"""An alignment from given point pairs; the images only judge it.

The affine is a robust fit. The residuals beyond it become a smooth local displacement, by the same Gaussian process as
the local flow, if that clearly raises the marginal likelihood: points with mere noise get none.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from somareg.geometry import AffineTransform, compose
from somareg.matching.affine import departure
from somareg.matching.describe import OrientationFeatures
from somareg.matching.engine import Alignment, EngineCfg, doubts_of
from somareg.matching.evidence import forward_backward, gather, similarity, split_half
from somareg.matching.flow import Flow
from somareg.matching.gaussian_process import GaussianProcess
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.posterior import FLOOR_PX2, WindowMatches, support_at
from somareg.matching.vote import Guess
from somareg.tiepoints.fit import GivenFit, GivenPoints, field_of, fit_given, fit_smooth, spacing_px
from somareg.types import Progress


@torch.inference_mode()
def align_given(
    pair: Pair,
    start: AffineTransform,
    points: GivenPoints,
    cfg: EngineCfg,
    progress: Progress = lambda stage, share: None,
) -> Alignment:
    """Align a pair by given points alone, with the evidence of the images.

    Args:
        pair: normalised images, for the evidence.
        start: the affine of the georeferences alone.
        points: in the pixels of the pair.
        cfg: settings of the engine; there is no local displacement where `flow` is None or its `follow` is False.
        progress: called with a stage's name and the share of the work done.

    Raises:
        EstimationError: fewer than three points, or points on a line.
    """
    progress("affine of the tie points", 0.1)
    fit, smooth = fit_smooth(points, fit_given(points))
    progress("local displacement of the tie points", 0.3)
    follows = cfg.flow is not None and cfg.flow.follow
    flow = _flow(points, fit, smooth, pair.shape, follows)
    progress("evidence", 0.6)
    estimate = compose(fit.affine, flow.field)
    features = OrientationFeatures(cfg.features)
    judge = Matcher(pair, features)
    evidence, ties = gather(judge, estimate, similarity(judge, start))
    doubts = doubts_of(judge, fit.affine, Guess(start, departure(start)), cfg, is_trained=True)
    doubts = doubts.with_ties(ties, float(judge.finest), pair.shape)
    windows = judge.correlate(fit.affine, cfg.near[-1].on(judge.cells(), cfg.windows).window)
    agreement = float(support_at(windows, torch.zeros(len(windows.centres), 2)).mean()) if len(windows.centres) else 0.0
    backward = forward_backward(Matcher(pair.swapped(), features), fit.affine, pair.shape)
    halves = split_half(flow.matches, pair.shape, 0.4)
    alignment = Alignment(fit.affine, flow, _ties(points, fit, flow), evidence, backward, halves)
    return replace(alignment, support=agreement, likelihood=agreement, doubts=doubts)


def _flow(points: GivenPoints, fit: GivenFit, smooth: GaussianProcess, shape: tuple[int, int], follows: bool) -> Flow:
    """The smooth displacement on a lattice (zeros unless `follows`), and how well it is known."""
    field, where = field_of(smooth if follows else replace(smooth, variance=0.0), shape)
    size = field.array.shape
    # The process extrapolates too far: certainty ends one point spacing away.
    far = (torch.cdist(where, smooth.points).amin(1) / spacing_px(smooth.points) - 1.0).clamp_min(0.0)
    coverage = (1.0 - smooth.uncertainty(where, 1.0)) * torch.exp(-0.5 * (far / 2.0).square())
    sigma = smooth.uncertainty(where, smooth.variance if follows else 0.0).sqrt()
    xy, beyond = points.beyond(fit.affine)
    matches = _matches(xy, beyond, fit, points)
    return Flow(field, coverage.reshape(size[1:]).numpy(), sigma.reshape(size[1:]).numpy(), matches, fit.factor)


def _matches(xy: Tensor, away: Tensor, fit: GivenFit, points: GivenPoints) -> WindowMatches:
    """The points as `WindowMatches`, the engine's own form."""
    sigma = torch.from_numpy(np.where(np.isfinite(points.sigma_px), points.sigma_px, fit.scale_px / 2.5))
    trust = torch.from_numpy(np.where(np.isfinite(points.confidence), points.confidence, 0.9))
    weight = points.weight * fit.factor
    return WindowMatches(
        points=xy,
        displacement=away,
        variance=(sigma.square() - FLOOR_PX2).clamp_min(0.0),  # the result adds the floor again
        evidence=2.0 * torch.sqrt(-2.0 * torch.log(1.0 - trust.clamp(0.0, 0.999))),
        correlation=torch.zeros_like(sigma),
        weight=weight,
        likely=away,
        precision=weight,
    )


def _ties(points: GivenPoints, fit: GivenFit, flow: Flow) -> WindowMatches:
    """Each point's own displacement, relative to the estimate."""
    own = flow.field.inverse(fit.affine.inverse(points.target)) - points.xy
    return _matches(torch.from_numpy(points.xy), torch.from_numpy(own), fit, points)
