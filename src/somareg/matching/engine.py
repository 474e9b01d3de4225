"""The weight-free engine: search, coarse-to-fine affine, local flow, evidence.

It reads like its steps; each is a module. Learned features take the same road with another `features` function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.geometry import AffineTransform, compose
from somareg.matching.evidence import NO_EVIDENCE, Evidence, forward_backward, gather, split_half
from somareg.matching.flow import Flow, FlowCfg, estimate_flow
from somareg.matching.pair import Pair
from somareg.matching.posterior import WindowMatches
from somareg.matching.refine import FAR, NEAR, Matcher, StepCfg, refine_affine, rescale
from somareg.matching.search import FeatureFn, Hypothesis, SearchCfg, rescore, search

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class EngineCfg:
    """Settings of the engine.

    Attributes:
        features: channels for refinement.
        search_features: cheaper, smoother channels for the search.
        search: what is searched.
        search_px, shortlist_px: longer side of the image at the search and at its second look.
        candidates: hypotheses refined before one is chosen.
        near: final refinement steps.
        flow: local flow, None for none.
        windows: windows per step at most (about).
        settled: evidence (z score) from which the search stops, if three of four windows also agree by themselves;
            unrelated images hardly ever reach both.
    """

    features: OrientationCfg = field(default_factory=OrientationCfg)
    search_features: OrientationCfg = field(default_factory=lambda: OrientationCfg(scales=((1.0, 1.5),)))
    search: SearchCfg = field(default_factory=SearchCfg)
    search_px: float = 80.0
    shortlist_px: float = 180.0
    candidates: int = 3
    near: tuple[StepCfg, ...] = NEAR
    flow: FlowCfg | None = field(default_factory=FlowCfg)
    windows: int = 220
    settled: float = 1.8


@dataclass(frozen=True, eq=False)
class Alignment:
    """What the engine found, in the pixels of the pair it was given.

    Attributes:
        affine: reference pixels -> moving pixels.
        flow: local flow D with `moving <- affine @ D`; None when none was estimated.
        ties: what each window says by itself, displacement relative to `affine @ flow`; None without windows.
        evidence: support by the images.
        forward_backward_px, split_half_px: see `somareg.types.Quality`.
        failure: why no transform could be estimated, "" otherwise; the affine is then the start.
    """

    affine: AffineTransform
    flow: Flow | None
    ties: WindowMatches | None
    evidence: Evidence
    forward_backward_px: float
    split_half_px: float
    failure: str = ""


def _orientation(cfg: OrientationCfg) -> FeatureFn:
    return lambda image, mask: orientation_channels(image, mask, cfg)


@torch.inference_mode()
def align(
    pair: Pair, starts: tuple[AffineTransform, ...], cfg: EngineCfg, progress: Progress = lambda stage, share: None
) -> Alignment:
    """Align a pair.

    Args:
        pair: normalised images; the result is in their pixels.
        starts: what is known before (reference pixels -> moving pixels), at least one; the search runs around each.
        cfg: settings.
        progress: called with a stage's name and the share of the work done.
    """
    features = _orientation(cfg.features)
    stride = cfg.features.stride
    try:
        progress("search", 0.05)
        affine, factor = _start(pair, starts, cfg)
        progress("coarse affine", 0.3)
        matcher = None
        while factor > 1:
            finer = max(1, factor // 2)
            affine, factor = rescale(affine, factor, finer), finer
            matcher = Matcher(pair.reduced(factor), features, stride)
            if factor > 1:
                affine, _ = refine_affine(matcher, affine, cfg.near[:2], cfg.windows)
        progress("affine", 0.5)
        matcher = matcher or Matcher(pair, features, stride)
        affine, matches = refine_affine(matcher, affine, cfg.near, cfg.windows)
    except EstimationError as error:
        return Alignment(starts[0], None, None, NO_EVIDENCE, math.inf, math.inf, str(error))
    progress("local flow", 0.65)
    flow = estimate_flow(matcher, affine, cfg.flow) if cfg.flow else None
    progress("evidence", 0.85)
    estimate = compose(affine, flow.field) if flow else affine
    evidence, ties = gather(matcher, estimate, starts[0])
    backward, _ = forward_backward(Matcher(pair.swapped(), features, stride), affine, pair.shape)
    return Alignment(affine, flow, ties, evidence, backward, split_half(matches, pair.shape, 0.4))


def _start(pair: Pair, starts: tuple[AffineTransform, ...], cfg: EngineCfg) -> tuple[AffineTransform, int]:
    """A coarse affine and the reduction factor that it was found at.

    The neighbourhood of the starts is looked at first; only when the images do not clearly agree there is everything
    else searched.
    """
    near = replace(cfg.search, rotation_deg=5.0, rotation_step_deg=5.0, scale=(0.95, 1.05), scale_step=1.05)
    ranges = (near, cfg.search) if len(cfg.search.hypotheses()) > len(near.hypotheses()) else (cfg.search,)
    best, best_zscore, factor = starts[0], -math.inf, 1
    features, stride = _orientation(cfg.search_features), cfg.search_features.stride
    for search_cfg in ranges:
        factor, candidates = _candidates(pair, starts, cfg, search_cfg)
        matcher = Matcher(pair.reduced(factor), features, stride)
        affine = _best(matcher, candidates[:2] if search_cfg is near else candidates, cfg)
        evidence, _ = gather(matcher, affine)
        if evidence.zscore > best_zscore:
            best, best_zscore = affine, evidence.zscore
        if evidence.zscore > cfg.settled and evidence.hit_ratio > 0.75:
            break
    return best, factor


def _candidates(
    pair: Pair, starts: tuple[AffineTransform, ...], cfg: EngineCfg, search_cfg: SearchCfg
) -> tuple[int, list[Hypothesis]]:
    """Best hypotheses around the starts, at the shortlist's resolution, and that reduction factor."""
    side = max(pair.shape)
    features, stride = _orientation(cfg.search_features), cfg.search_features.stride
    coarse, fine = (max(1, math.ceil(side / px - 0.2)) for px in (cfg.search_px, cfg.shortlist_px))
    small = pair.reduced(coarse)
    found = [h for start in starts for h in search(small, rescale(start, 1, coarse), features, stride, search_cfg)]
    found.sort(key=lambda h: -h.score)
    shortlist = [rescale(h.transform, coarse, fine) for h in found[: search_cfg.keep]]
    margin = 2 * math.ceil(coarse / fine)
    ranked = rescore(pair.reduced(fine), shortlist, features, stride, margin)
    if not ranked:
        raise EstimationError("the reference holds nothing valid to match")
    return fine, ranked[: cfg.candidates]


def _best(matcher: Matcher, candidates: list[Hypothesis], cfg: EngineCfg) -> AffineTransform:
    """Refine each candidate from afar and keep the one that its windows support best."""
    best, best_score = None, -math.inf
    failure = EstimationError("no window could be matched")
    for candidate in candidates:
        try:
            affine, matches = refine_affine(matcher, candidate.transform, FAR, cfg.windows)
        except EstimationError as error:
            failure = error
            continue
        # Many windows with a weak vote count more than a few with a strong one.
        score = float(matches.evidence.square().sum()) / len(matches.points) ** 0.5
        if score > best_score:
            best, best_score = affine, score
    if best is None:
        raise failure
    return best


def preset(name: str, base: EngineCfg | None = None) -> EngineCfg:
    """Engine settings of a preset: "fast", "base" or "precise"."""
    base = base or EngineCfg()
    if name == "fast":
        light = replace(base.features, scales=((1.0, 1.0),))
        return replace(base, features=light, candidates=2, windows=200, flow=replace(base.flow or FlowCfg(), limit=300))
    if name == "precise":
        return replace(base, candidates=5, near=(*base.near, base.near[-1], base.near[-1]), windows=900)
    return base
