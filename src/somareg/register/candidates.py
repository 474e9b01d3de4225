"""Match the candidates of the common ground, the likeliest first, until one is sure."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from somareg.config import RegisterConfig
from somareg.errors import InputError
from somareg.geometry import AffineTransform
from somareg.register.choose import Chosen
from somareg.register.findings import Findings
from somareg.register.images import Images
from somareg.register.locate import likely_grounds
from somareg.register.roads import check_road, choose_road, not_tried
from somareg.register.slips import doubts_about
from somareg.register.tiled import Tiling, match_tiled
from somareg.register.whole import match_whole
from somareg.runtime.clock import Clock
from somareg.tiepoints.use import Given
from somareg.types import Progress


def match_candidates(
    images: Images,
    cfg: RegisterConfig,
    engine: tuple[Chosen, torch.device],
    seed: Given | None,
    tiling: Tiling,
    clock: Clock,
    tell: Progress,
) -> Findings:
    """The most probable findings among the likely grounds.

    A ground that cannot be matched is left to the next one; its error is raised only when no ground could be matched.

    Args:
        images: open.
        cfg: settings.
        engine: what matches, and where.
        seed: tie points of the user, in pixels of the whole images.
        tiling: how tiles are matched.
        clock: takes the time until the first ground is known as "open".
        tell: called with a stage's name and the share of the work done.

    Raises:
        InputError: no ground has enough in common; the error of the first one.
        MemoryLimitError: the first ground does not fit into memory.
    """
    best: Findings | None = None
    refusal: InputError | None = None
    slips: tuple[str, ...] = ()
    for number, ground in enumerate(likely_grounds(images, cfg, seed)):
        road = choose_road(images, ground, cfg, engine[0], tiling.sizes)
        if number == 0:
            check_road(images, ground, cfg, road)
            slips = doubts_about(images, ground, cfg)
            clock.lap("open")
        elif left_out := not_tried(images, ground, cfg, road):
            best = best and replace(best, notes=(*best.notes, left_out))
            break
        ground = replace(ground, doubts=(*slips, *ground.doubts))
        try:
            if road.is_tiled:
                match = match_tiled(images, ground, cfg, engine, seed, tiling, clock, tell)
            else:
                match = match_whole(images, ground, cfg, engine, seed, clock, tell)
        except InputError as error:
            refusal = refusal or error
            continue
        if road.note:
            match = replace(match, notes=(*match.notes, road.note))
        if any(ground.offset):
            match = _from_claimed(match, best)
        if best is None or match.support.probability > best.support.probability:
            best = match
        if best.is_sure:
            break
    if best is None:
        assert refusal is not None  # there is at least one ground
        raise refusal
    return best


def _from_claimed(match: Findings, claimed: Findings | None) -> Findings:
    """Findings at a place that no georeference claims, with what was there before matching: the claimed place."""
    before = claimed.support.before if claimed else math.nan
    support = replace(match.support, before=before)
    return replace(match, expected=AffineTransform.identity(), support=support)
