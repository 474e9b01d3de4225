"""From a pair to an alignment: search, coarse-to-fine affine, local flow, evidence.

It reads like its steps; each is a module. Without a network it runs on orientation channels; with one, on learned
features and coarse matches, by the same window correlation and fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.geometry import AffineTransform, compose
from somareg.matching.describe import Describe, LearnedFeatures, OrientationFeatures
from somareg.matching.evidence import NO_EVIDENCE, Evidence, back_again, forward_backward, gather, split_half
from somareg.matching.flow import Flow, FlowCfg, estimate_flow
from somareg.matching.learned import LearnedCfg, learned_start
from somareg.matching.matcher import Matcher
from somareg.matching.network import Soma
from somareg.matching.pair import Pair
from somareg.matching.posterior import WindowMatches
from somareg.matching.refine import FAR, NEAR, StepCfg, refine_affine, rescale
from somareg.matching.search import Hypothesis, SearchCfg, rescore, search

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
        reuse_px: see `Matcher`.
        learned: settings that hold when a network is given.
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
    reuse_px: float = 0.0
    learned: LearnedCfg = field(default_factory=LearnedCfg)


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


@torch.inference_mode()
def align(
    pair: Pair,
    starts: tuple[AffineTransform, ...],
    cfg: EngineCfg,
    progress: Progress = lambda stage, share: None,
    network: Soma | None = None,
) -> Alignment:
    """Align a pair.

    Args:
        pair: normalised images; the result is in their pixels.
        starts: what is known before (reference pixels -> moving pixels), at least one; the search runs around each.
        cfg: settings.
        progress: called with a stage's name and the share of the work done.
        network: learned features and coarse matches; None for the weight-free engine. The evidence is read from the
            orientation channels in both cases: they know nothing of what the network was trained for.
    """
    channels = OrientationFeatures(cfg.features)
    features: Describe = channels
    near, reuse = cfg.near, cfg.reuse_px
    matcher: Matcher | None = None
    try:
        progress("search", 0.05)
        if network is None:
            affine, factor = search_start(pair, starts, cfg)
        else:
            features, near, reuse = LearnedFeatures(network), cfg.learned.near, cfg.learned.reuse_px
            affine, matcher = learned_start(
                pair, starts, features, cfg.learned, lambda: search_start(pair, starts, cfg), channels
            )
            factor = round(max(pair.shape) / max(matcher.pair.shape))
        progress("coarse affine", 0.3)
        while factor > 1:
            finer = max(1, factor // 2)
            affine, factor = rescale(affine, factor, finer), finer
            matcher = Matcher(pair.reduced(factor), features, reuse)
            if factor > 1:
                affine, _ = refine_affine(matcher, affine, near[:2], cfg.windows)
        progress("affine", 0.5)
        matcher = matcher or Matcher(pair, features, reuse)
        affine, matches = refine_affine(matcher, affine, near, cfg.windows)
    except EstimationError as error:
        return Alignment(starts[0], None, None, NO_EVIDENCE, math.inf, math.inf, str(error))
    progress("local flow", 0.65)
    flow = estimate_flow(matcher, affine, cfg.flow) if cfg.flow else None
    progress("evidence", 0.85)
    estimate = compose(affine, flow.field) if flow else affine
    judge = matcher if network is None else Matcher(pair, channels, cfg.reuse_px)
    evidence, ties = gather(judge, estimate, starts[0])
    if network is None:
        backward, _ = forward_backward(Matcher(pair.swapped(), features, reuse), affine, pair.shape)
    else:
        backward = back_again(matcher, affine, near[-1], 120)
    return Alignment(affine, flow, ties, evidence, backward, split_half(matches, pair.shape, 0.4))


def search_start(pair: Pair, starts: tuple[AffineTransform, ...], cfg: EngineCfg) -> tuple[AffineTransform, int]:
    """A coarse affine and the reduction factor that it was found at.

    The neighbourhood of the starts is looked at first; only when the images do not clearly agree there is everything
    else searched.
    """
    near = replace(cfg.search, rotation_deg=5.0, rotation_step_deg=5.0, scale=(0.95, 1.05), scale_step=1.05)
    ranges = (near, cfg.search) if len(cfg.search.hypotheses()) > len(near.hypotheses()) else (cfg.search,)
    best, best_zscore, factor = starts[0], -math.inf, 1
    features = OrientationFeatures(cfg.search_features)
    for search_cfg in ranges:
        factor, candidates = _candidates(pair, starts, cfg, search_cfg)
        matcher = Matcher(pair.reduced(factor), features, cfg.reuse_px)
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
    stride = cfg.search_features.stride

    def features(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return orientation_channels(image, mask, cfg.search_features)

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
