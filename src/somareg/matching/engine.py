"""From a pair to an alignment: search, coarse-to-fine affine, local flow, evidence.

Each step is a module. The engine does not depend on a network: it compares the features that a `Describe` computes,
which are orientation channels by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import torch

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.matching.affine import departure
from somareg.matching.approach import ApproachCfg, begin
from somareg.matching.describe import Describe, OrientationFeatures
from somareg.matching.doubts import NO_DOUBTS, Doubts, find_rival, second_reading
from somareg.matching.evidence import (
    NO_EVIDENCE,
    Evidence,
    back_again,
    forward_backward,
    gather,
    similarity,
    split_half,
)
from somareg.matching.flow import Flow, FlowCfg, estimate_flow
from somareg.matching.keypoints import KeypointCfg, keypoint_guesses
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.parts import displaced_part
from somareg.matching.posterior import WindowMatches
from somareg.matching.refine import refine_affine, rescale
from somareg.matching.runoff import RunOff, Start
from somareg.matching.search import SearchCfg
from somareg.matching.start import find_start, no_hints, reduction
from somareg.matching.steps import NEAR, StepCfg
from somareg.matching.vote import Guess
from somareg.runtime.threads import SMALL_PX, helper
from somareg.types import Progress

RIVAL_SHARE = 0.3  # search radius for other shifts, as a share of the longer side
LEAST_PX, LEAST_TRAINED_PX = 64, 128  # least shorter side of a halved image, without and with a network

FRESH_PX = 0.6  # later steps with a network recompute features of an affine further off than this


@dataclass(frozen=True)
class EngineCfg:
    """Settings of the engine.

    Attributes:
        features: orientation channels, for the weight-free engine and for the evidence.
        search: ranges and votes of the search.
        keypoints: guesses from keypoints, for a wide search.
        near: refinement steps without a network; a network brings its own.
        is_hasty: whether to run only the first and the last of a network's steps.
        flow: local flow, None for none.
        windows: windows per step at most (about).
        reuse_px: see `Matcher`; used with a network only, whose features are expensive.
    """

    features: OrientationCfg = field(default_factory=OrientationCfg)
    search: SearchCfg = field(default_factory=SearchCfg)
    keypoints: KeypointCfg = field(default_factory=KeypointCfg)
    near: tuple[StepCfg, ...] = NEAR
    is_hasty: bool = False
    flow: FlowCfg | None = field(default_factory=FlowCfg)
    windows: int = 140
    reuse_px: float = 6.0

    def steps(self, features: Describe, shape: tuple[int, int]) -> tuple[StepCfg, ...]:
        """The refinement steps for images of (height, width).

        On images of 512 px features are expensive, and the last step is as accurate with features that were computed
        some pixels off. On images of 160 px computing them anew gains 0.02 px.
        """
        given = features.steps
        if given is None:
            return self.near
        if self.is_hasty:
            return ends(given)
        near_by = self.reuse_px if max(shape) > SMALL_PX else FRESH_PX
        middle = (replace(step, reuse_px=FRESH_PX) for step in given[1:-1])
        last = (replace(step, reuse_px=near_by) for step in given[1:][-1:])
        return (given[0], *middle, *last)


@dataclass(frozen=True, eq=False)
class Alignment:
    """What the engine found, in the pixels of the pair it was given.

    Attributes:
        affine: reference pixels -> moving pixels.
        flow: local flow D with `moving <- affine @ D`; None when none was estimated.
        ties: each window's own match, displacement relative to `affine @ flow`; None without windows.
        evidence: support by the images.
        forward_backward_px, split_half_px: see `somareg.types.Quality`.
        failure: why no transform could be estimated (the affine is then the start); "" otherwise.
        support: log-likelihood ratio per window for the start: from the close look (see `approach`) or, where that was
            not sure, from the vote of the search (see `vote.Elected`; 0.9-1.4 by chance).
        likelihood: the same for the affine, after the last step of its refinement (see `refine.Refined`).
        doubts: reasons not to trust the evidence.
    """

    affine: AffineTransform
    flow: Flow | None = None
    ties: WindowMatches | None = None
    evidence: Evidence = NO_EVIDENCE
    forward_backward_px: float = math.inf
    split_half_px: float = math.inf
    failure: str = ""
    support: float = 0.0
    likelihood: float = 0.0
    doubts: Doubts = NO_DOUBTS


@torch.inference_mode()
def align(
    pair: Pair,
    starts: tuple[AffineTransform, ...],
    cfg: EngineCfg,
    progress: Progress = lambda stage, share: None,
    learned: Describe | None = None,
    candidates: tuple[Guess, ...] = (),
    cores: int | None = None,
) -> Alignment:
    """Align a pair.

    Args:
        pair: normalised images; the result is in their pixels.
        starts: prior maps (reference pixels -> moving pixels), at least one; the search runs around each.
        cfg: settings.
        progress: called with a stage's name and the share of the work done.
        learned: features of a network; None for the weight-free engine. The evidence is read from the orientation
            channels in both cases, because they are independent of the network's training.
        candidates: further guesses, tried before those of `starts`.
        cores: number that may be used; None for as many as torch has threads.
    """
    device, cores = pair.reference.device, cores or torch.get_num_threads()
    channels = OrientationFeatures(cfg.features)
    features: Describe = learned or channels
    near, reuse = cfg.steps(features, pair.shape), cfg.reuse_px if learned else 0.0
    try:
        progress("close look", 0.05)
        with helper(device, cores) as beside:
            submit = beside.submit
            matcher = Matcher(pair, features, reuse, submit)
            factor = reduction(pair, cfg.search.fine_px, cfg.search.strip_px)
            run_off = RunOff(matcher, max(1, factor // 2), near, cfg.windows)
            rough = ApproachCfg(factor, near, cfg.windows, run_off.chance, run_off.clear)
            judge = Matcher(pair, channels, submit=submit) if learned else matcher
            before = submit(lambda: similarity(judge, starts[0]))
            hints = partial(keypoint_guesses, pair, cfg.keypoints) if cfg.search.is_wide else no_hints
            guesses = (*candidates, *(Guess(start, departure(start)) for start in starts))

            def search() -> Start:
                progress("search", 0.1)
                return find_start(matcher, guesses, cfg.search, run_off, beside.over, hints)

            begun = begin(matcher, guesses, rough, search)
        progress("affine", 0.5)
        refined = refine_affine(matcher, begun.affine, begun.steps, cfg.windows, begun.shape)
        affine, matches = refined.affine, refined.matches
    except EstimationError as error:
        return Alignment(starts[0], failure=str(error))
    progress("local flow and evidence", 0.65)
    expected = Guess(starts[0], begun.shape)
    with helper(device, cores) as beside:
        judged = beside.submit(lambda: examine(affine, matches, matcher, judge, before(), near[-1]))
        doubted = beside.submit(lambda: doubts_of(judge, affine, expected, cfg, is_trained=learned is not None))
        parted = beside.submit(lambda: displaced_part(judge, affine))

        @lru_cache(maxsize=1)  # the field that is kept was the last one that the judge was asked about
        def with_field(field: FieldTransform) -> tuple[Evidence, WindowMatches | None]:
            return gather(judge, compose(affine, field), before())

        def is_seen(field: FieldTransform) -> bool:
            """Whether the judge, which did not estimate the field, supports it too."""
            return with_field(field)[0].is_beyond(judged().evidence, local.begins)

        local = cfg.flow or FlowCfg()
        if judge is not matcher:
            local = local.on(matcher.cells())
        flow = estimate_flow(matcher, affine, local, is_seen) if cfg.flow else None
    found = replace(judged(), flow=flow, support=begun.support, likelihood=refined.support)
    doubts = doubted().with_ties(found.ties, float(judge.finest), pair.shape)
    found = replace(found, doubts=replace(doubts, part=parted()))
    if flow is None or not flow.field.array.any():  # most pairs: the figures of the affine hold
        return found
    evidence, ties = with_field(flow.field)
    if not evidence.is_beyond(found.evidence, local.clearly):
        return replace(found, flow=flow.without_field())
    doubts = replace(doubts, part=displaced_part(judge, compose(affine, flow.field)))
    return replace(found, evidence=evidence, ties=ties, doubts=doubts)


def doubts_of(judge: Matcher, affine: AffineTransform, expected: Guess, cfg: EngineCfg, *, is_trained: bool) -> Doubts:
    """Doubts that the judge cannot rule out, see `somareg.matching.doubts`.

    Args:
        judge: matcher on the orientation channels.
        affine: reference pixels -> moving pixels.
        expected: the map that was expected before the search.
        cfg: settings.
        is_trained: whether a network made the affine. The channels are then independent of it at any resolution, and
            only images of at least 256 px are halved for the second reading.
    """
    shape = judge.pair.shape
    least = LEAST_TRAINED_PX if is_trained else LEAST_PX
    factor = max(1, min(2, min(shape) // least))
    steps = cfg.near[1:2] or cfg.near
    second = second_reading(judge.reduced(factor), rescale(affine, 1, factor), steps, cfg.windows)
    bent = departure(affine)
    change = expected.transform.inverse.after(affine).parameters(((shape[1] - 1) / 2, (shape[0] - 1) / 2))
    return Doubts(
        rival=find_rival(judge, affine, RIVAL_SHARE * max(shape)),
        second_px=factor * second,
        bend=math.hypot(bent[0] - expected.shape[0], bent[1] - expected.shape[1]),
        turn_deg=abs(change["rotation_deg"]),
        growth=abs(math.log(max(abs(change["scale"][0] * change["scale"][1]), 1e-6))) / 2,
    )


def examine(
    affine: AffineTransform, matches: WindowMatches, matcher: Matcher, judge: Matcher, before: float, step: StepCfg
) -> Alignment:
    """An affine with the figures that the calibration of its engine uses.

    Args:
        affine: reference pixels -> moving pixels.
        matches: of the last step that refined it.
        matcher: the one that refined it.
        judge: matcher on the orientation channels, for the evidence; `matcher` itself without a network.
        before: `similarity` of the images under the first prior map.
        step: that last step.
    """
    shape = matcher.pair.shape
    evidence, ties = gather(judge, affine, before)
    if judge is matcher:
        backward = forward_backward(Matcher(matcher.pair.swapped(), judge.describe), affine, shape)
    else:
        backward = back_again(matcher, affine, step, 120)
    halves = split_half(matches, shape, 0.4)
    return Alignment(affine, None, ties, evidence, backward, halves)


def preset(name: str) -> EngineCfg:
    """Engine settings of a preset: "fast", "base" or "precise"; all are judged on the same channels."""
    base = EngineCfg()
    if name == "fast":
        search = replace(base.search, keep=1)
        return replace(base, search=search, near=ends(base.near), is_hasty=True, windows=80, flow=FlowCfg(limit=300))
    return base  # "precise" only keeps the resolution of larger images: more windows or steps gain nothing


def ends(steps: tuple[StepCfg, ...]) -> tuple[StepCfg, ...]:
    """The first and the last step; features are resampled, not computed anew."""
    return tuple(replace(step, reuse_px=None) for step in (steps[0], *steps[1:][-1:]))
