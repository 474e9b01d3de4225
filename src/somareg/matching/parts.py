"""Whether a part of the frame lies elsewhere: beyond a mosaic's seam, on a slope, or because it shows other ground.

Evidence averages over the frame, so two thirds that fit hide one third that does not. Here each third and ninth of the
frame is asked by itself whether another shift fits it better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from somareg.matching.evidence import reduced_to
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import standardise
from somareg.matching.windows import WindowCfg, overlap, roomy, thinned
from somareg.types import Transform

SIDE_PX = 512.0  # of the images that are compared
WINDOW = WindowCfg(size=28, margin=18, stride=10, min_seen=0.3)
WINDOWS = 81  # in the whole frame, about
THIRDS = 3
ALL = -1  # for a part that extends along a whole side
OWN_CELLS, APART_CELLS = 2.0, 4.0  # radius of the estimate's own peak, and least distance of another one
CHANCE = 4.0  # height that the best of all other shifts reaches by chance in one window


@dataclass(frozen=True)
class Part:
    """The part of the frame that fits another shift best, compared with the estimate: a third of it, or a ninth.

    Attributes:
        height: mean standardised correlation at that shift, as a share of that at the estimate or of what chance
            reaches, whichever is higher; 0 where no part was examined.
        shift_px: (dx, dy) from the estimate, reference pixels.
        row, column: 0, 1 or 2 from top and left; `ALL` for a third.
    """

    height: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    row: int = ALL
    column: int = ALL


NO_PART = Part()


def displaced_part(judge: Matcher, estimate: Transform) -> Part:
    """Find the part of the frame that another shift fits best.

    Args:
        judge: matcher of the pair.
        estimate: reference pixels -> moving pixels, local displacement included.
    """
    small, estimate, factor = reduced_to(SIDE_PX, judge, estimate)
    cells, cell = small.cells(), float(small.finest * factor)
    base = thinned(roomy(WINDOW, cells), cells, WINDOWS)
    windows = small.correlate(estimate, WindowCfg(base.size, WINDOW.margin, base.stride, WINDOW.min_seen))
    if not len(windows.surfaces):
        return NO_PART
    heights, axis = standardise(windows.surfaces), torch.arange(-WINDOW.margin, WINDOW.margin + 1)
    away = (axis[:, None].square() + axis.square()).sqrt()
    column, row = (windows.centres * THIRDS / torch.tensor([cells[1], cells[0]])).long().clamp(0, THIRDS - 1).T
    found = NO_PART
    for place in product((ALL, *range(THIRDS)), repeat=2):
        inside = ((row == place[0]) | (place[0] == ALL)) & ((column == place[1]) | (place[1] == ALL))
        if place == (ALL, ALL) or inside.sum() < 2:  # the frame has its own rivals; one window fits something anywhere
            continue
        chance = CHANCE / math.sqrt(int(inside.sum()) / overlap(windows.centres[inside], float(base.size)))
        height, at = _other(heights[inside].mean(0), away, chance)
        if height > found.height:
            y, x = divmod(at, len(axis))
            found = Part(height, (float(axis[x]) * cell, float(axis[y]) * cell), *place)
    return found


def _other(mean: Tensor, away: Tensor, chance: float) -> tuple[float, int]:
    """Height of the best other shift against the estimate's own or chance, and its index in the flattened surface."""
    own = float(mean[away <= OWN_CELLS].max())
    others = torch.where(away > APART_CELLS, mean, torch.full_like(mean, -torch.inf))
    return float(others.max()) / max(own, chance), int(others.argmax())
