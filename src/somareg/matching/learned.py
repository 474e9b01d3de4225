"""Where to start with a trained network: its coarse matches first, what was known before next, a search last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from somareg.errors import EstimationError
from somareg.features.encoder import MIN_SIDE, Encoded
from somareg.geometry import AffineTransform
from somareg.matching.affine import to_transform
from somareg.matching.coarse import fit_magsac
from somareg.matching.describe import Describe, LearnedFeatures
from somareg.matching.evidence import gather
from somareg.matching.matcher import Matcher
from somareg.matching.network import Soma
from somareg.matching.pair import Pair
from somareg.matching.refine import StepCfg, refine_affine, rescale
from somareg.matching.windows import WindowCfg

FAR = (
    StepCfg(WindowCfg(10, 5, 3), (5.0, 3.0, 2.0), 8.0, stride=8),
    StepCfg(WindowCfg(14, 5, 4), (3.0, 2.0, 1.5), 3.0, stride=4),
)
NEAR = (
    StepCfg(WindowCfg(28, 5, 8), (2.5, 1.5, 1.2), 0.6, stride=2),
    StepCfg(WindowCfg(24, 4, 6), (1.5, 1.2, 1.0), 0.2, stride=2, reuse_px=0.3),
)


@dataclass(frozen=True)
class LearnedCfg:
    """How learned features are used.

    Attributes:
        far, near: refinement steps, coarse to fine.
        longest: longer side of the image at the coarse matches, pixels; larger images are averaged first.
        windows: windows per step at most (about).
        settled, agreeing: evidence (z score) in the learned features, and share of windows that agree with it by
            themselves, from which nothing else is tried; unrelated images reach neither.
        reuse_px: see `Matcher`.
    """

    far: tuple[StepCfg, ...] = FAR
    near: tuple[StepCfg, ...] = NEAR
    longest: float = 320.0
    windows: int = 220
    settled: float = 1.6
    agreeing: float = 0.6
    reuse_px: float = 6.0


Search = Callable[[], tuple[AffineTransform, int]]
"""The weight-free search: a coarse affine and the reduction factor it was found at."""


def learned_start(
    pair: Pair,
    starts: tuple[AffineTransform, ...],
    features: LearnedFeatures,
    cfg: LearnedCfg,
    search: Search,
    judge: Describe,
) -> tuple[AffineTransform, Matcher]:
    """The first candidate that the learned features clearly support, else the best one.

    Which is best is said by learned and weight-free features together: those of a network that was trained for other
    images agree with themselves.

    Args:
        pair: the two images.
        starts: what is known before (reference pixels -> moving pixels).
        features: of the network.
        cfg: settings.
        search: called when neither coarse matches nor starts convince.
        judge: weight-free features.

    Returns:
        A coarse affine, and the matcher at whose resolution it holds.

    Raises:
        EstimationError: no candidate could be refined.
    """
    factor = max(1, math.ceil(max(pair.shape) / cfg.longest - 0.2))
    while factor > 1 and min(*pair.shape, *pair.moving.shape[-2:]) // factor < MIN_SIDE:
        factor -= 1
    small, network = pair.reduced(factor), features.network
    fixed = network.encode(small.reference, small.reference_mask, small.modalities[0])
    moved = network.encode(small.moving, small.moving_mask, small.modalities[1])
    matcher = Matcher(small, features, cfg.reuse_px, fixed=features.levels(fixed))

    def candidates() -> Iterator[AffineTransform]:
        coarse = coarse_affine(network, fixed, moved)
        if coarse is not None:
            yield coarse
        yield from (rescale(start, 1, factor) for start in starts)
        try:
            found, at = search()
        except EstimationError:
            return
        yield rescale(found, at, factor)

    best, best_score, weightless = None, -math.inf, None
    for candidate in candidates():
        try:
            affine, _ = refine_affine(matcher, candidate, cfg.far, cfg.windows)
        except EstimationError:
            continue
        evidence, _ = gather(matcher, affine)
        if evidence.zscore > cfg.settled and evidence.hit_ratio > cfg.agreeing:
            return affine, matcher
        weightless = weightless or Matcher(small, judge)
        score = evidence.zscore + gather(weightless, affine)[0].zscore
        if score > best_score:
            best, best_score = affine, score
    if best is None:
        raise EstimationError("no window could be matched")
    return best, matcher


def coarse_affine(network: Soma, reference: Encoded, moving: Encoded) -> AffineTransform | None:
    """The global affine (MAGSAC) of a pair's coarse matches, reference pixels -> moving pixels; None without one."""
    matches = network.glam.match_coarse(reference, moving)
    if matches is None:
        return None
    matrix = fit_magsac(matches.points, matches.displacement[0], matches.confidence[0])
    return None if matrix is None else to_transform(matrix)
