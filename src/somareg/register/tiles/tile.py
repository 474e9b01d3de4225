"""One tile of a scene: read its pixels and match its windows. Job and result are picklable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import departure
from somareg.matching.approach import ApproachCfg, begin
from somareg.matching.describe import Describe, OrientationFeatures
from somareg.matching.engine import Alignment, doubts_of, examine
from somareg.matching.evidence import similarity
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.posterior import WindowMatches, read_windows
from somareg.matching.refine import refine_affine
from somareg.matching.runoff import RunOff
from somareg.matching.search import SearchCfg
from somareg.matching.start import find_start, reduction
from somareg.matching.vote import Guess, VoteCfg
from somareg.matching.windows import WindowCfg, roomy
from somareg.quality.calibration import Engine, load_calibration
from somareg.register.images import bounded_cache
from somareg.register.tiles.job import TileJob, TileSettings
from somareg.register.tiles.patch import read_patches
from somareg.runtime.budget import limited
from somareg.soma.features import LearnedFeatures
from somareg.soma.network import Soma
from somareg.soma.weights import load_network

TIES = WindowCfg(size=28, margin=6, stride=28)  # side by side, so that their errors are independent
TIES_SIGMA_CELLS = 1.5
TURN_DEG, SCALE = 1.0, 0.01  # largest deviation of a tile from the global affine


@dataclass(frozen=True, eq=False)
class TileResult:
    """The result of a tile, all lengths in reference pixels.

    Attributes:
        index: of the tile.
        status: "matched", "empty" (too few valid pixels in common) or "failed".
        reason: why it is not matched, "" otherwise.
        points: (N, 2) reference pixels, the centres of the windows.
        beyond: (N, 2) displacement beyond the global affine G: the match of x is `G(x + beyond)`.
        precision: (N,) of each window alone, 1/px^2.
        hit: (N,) 1 where the window's own best match, without any prior, agrees with the tile, else 0.
        figures: evidence of the tile by name; "probability" and "predicted_px" come from the engine's calibration,
            "rival", "rival_dx", "rival_dy" and "ridge" are those of `somareg.matching.doubts.Rival`.
    """

    index: int
    status: str
    reason: str = ""
    points: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    beyond: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    precision: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    hit: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    figures: dict[str, float] = field(default_factory=dict)


def match_tile(job: TileJob) -> TileResult:
    """Read and match one tile; the same job always gives the same result.

    A failure to match is part of the result; an unreadable file raises.
    """
    with limited(job.settings.cfg.max_memory), bounded_cache():
        patches = read_patches(job)
    if isinstance(patches, str):
        return TileResult(job.index, "empty", patches)
    pair, start = patches
    settings = job.settings
    network = None
    if settings.model:
        network = load_network(settings.model, torch.device(settings.device), dinov2=settings.cfg.dinov2)
    try:
        affine, ties, hit, alignment = match_windows(pair, start, settings, network)
    except EstimationError as error:
        return TileResult(job.index, "failed", str(error))
    points = ties.points.double().numpy()
    beyond = start.inverse(affine(points + ties.likely.double().numpy())) - points
    return TileResult(
        job.index,
        "matched",
        points=points + np.array(job.block[:2]),
        beyond=beyond,
        precision=ties.precision.double().numpy(),
        hit=hit,
        figures=_figures(alignment, "orientation" if network is None else "learned"),
    )


@torch.inference_mode()
def match_windows(
    pair: Pair, start: AffineTransform, settings: TileSettings, network: Soma | None
) -> tuple[AffineTransform, WindowMatches, NDArray[np.float64], Alignment]:
    """Run the engine's steps on one tile to get the matches of its windows.

    Returns:
        The tile's own affine (only the place where the windows were read), the windows' matches relative to
        it, the hits, and the evidence.

    Raises:
        EstimationError: no window has content.
    """
    engine = settings.engine
    channels = OrientationFeatures(engine.features)
    features: Describe = channels if network is None else LearnedFeatures(network)
    steps, reuse = (engine.near[1:], 0.0) if network is None else (engine.steps(features, pair.shape), engine.reuse_px)
    matcher = Matcher(pair, features, reuse)
    search, run_off = _near_search(settings.radius_px / max(pair.shape)), RunOff(matcher, 1, steps, engine.windows)
    expected = Guess(start, departure(start))
    factor = reduction(pair, search.fine_px, search.strip_px)
    rough = ApproachCfg(factor, steps, engine.windows, run_off.chance, run_off.clear)
    begun = begin(matcher, (expected,), rough, lambda: find_start(matcher, (expected,), search, run_off))
    refined = refine_affine(matcher, begun.affine, begun.steps, engine.windows, begun.shape)
    affine, matches = refined.affine, refined.matches
    windows = matcher.correlate(affine, roomy(TIES, matcher.cells()))
    if not len(windows.surfaces):
        raise EstimationError("no window of the tile has enough valid, textured pixels")
    cell = float(matcher.finest)
    ties = read_windows(windows, cell, torch.zeros(len(windows.centres), 2), TIES_SIGMA_CELLS * cell)
    side = 2 * windows.margin + 1
    best = windows.surfaces.flatten(1).argmax(1)
    away = torch.hypot((best % side - windows.margin).float(), (best // side - windows.margin).float())
    judge = matcher if network is None else Matcher(pair, channels)
    alignment = examine(affine, matches, matcher, judge, similarity(judge, start), steps[-1])
    doubts = doubts_of(judge, affine, Guess(start, begun.shape), engine, is_trained=network is not None)
    doubts = doubts.with_ties(alignment.ties, float(judge.finest), pair.shape)
    alignment = replace(alignment, support=begun.support, likelihood=refined.support, doubts=doubts)
    return affine, ties, (away <= 2.0).double().numpy(), alignment


def _near_search(radius: float) -> SearchCfg:
    """A search around the start with hardly any rotation and scale."""
    vote = VoteCfg(rotation_deg=TURN_DEG, scale=SCALE)
    near = SearchCfg(rotation_deg=TURN_DEG, scale=(1 - SCALE, 1 + SCALE), radius=radius, fine=vote)
    return replace(near, fine_bent=None)  # the overview has determined aspect and shear


def _figures(alignment: Alignment, engine: Engine) -> dict[str, float]:
    evidence, rival, calibration = alignment.evidence, alignment.doubts.rival, load_calibration(engine)
    return {
        "probability": calibration.probability(alignment),
        "predicted_px": calibration.predict_rmse(alignment, 1),
        "zscore": evidence.zscore,
        "sharpness": evidence.sharpness,
        "hit_ratio": evidence.hit_ratio,
        "correlation": evidence.correlation,
        "correlation_before": evidence.correlation_before,
        "forward_backward": alignment.forward_backward_px,
        "split_half": alignment.split_half_px,
        "rival": rival.height,
        "rival_dx": rival.shift_px[0],
        "rival_dy": rival.shift_px[1],
        "ridge": rival.ridge,
    }
