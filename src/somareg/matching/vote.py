"""Find a start: all windows vote for one similarity near a first guess; no single window has to be right.

A generalised Hough transform (Ballard, 1981) with likelihoods for votes. Among speckle and fields a window of
50 px often shows its displacement only as one of several peaks. A rotation, a scale and a shift that are possible for
many windows are found all the same, wherever in the searched range they lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.geometry import AffineTransform
from somareg.matching.affine import NO_SHAPE, Shape, turned_shape
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import RIGHT, log_likelihood
from somareg.matching.windows import WindowCfg, WindowCorrelation, roomy, thinned
from somareg.runtime.threads import Over, one_by_one

TOGETHER = 5  # number of guesses whose features are computed together
CHUNK = 4_000_000  # votes that are counted together (16 MB)
WORK = 60_000_000  # up to this many votes are counted one by one, not in blocks (a second or two)
BENT_WORK = 6_000_000  # the same where aspect and shear are voted on as well


@dataclass(frozen=True)
class VoteCfg:
    """Ranges of a vote.

    Attributes:
        window: windows, in cells; their margin grows to the searched range.
        rotation_deg, scale: the map lies within +-this rotation and exp(+-this) scale of the guess. Windows are
            not rotated or scaled, which bounds the ranges: their corners should move by no more than a cell and a half
            (0.06 for windows of 28 cells).
        aspect: x is stretched against y by exp(+-this); 0 for similarities only.
        shear: the axes lean by +-half of this each; 0 for similarities only.
        step_px: spacing of the hypotheses: the image's corners move by no more than this from one to the next.
        windows: at most (about).
    """

    window: WindowCfg = field(default_factory=lambda: WindowCfg(size=28, margin=4, stride=8))
    rotation_deg: float = 5.0
    scale: float = 0.05
    aspect: float = 0.0
    shear: float = 0.0
    step_px: float = 3.0
    windows: int = 64

    @property
    def reaches(self) -> tuple[float, ...]:
        """Ranges of what moves a corner: rotation (radians), log scale, half of the log aspect, half of the shear."""
        return math.radians(self.rotation_deg), self.scale, self.aspect / 2, self.shear / 2

    @property
    def is_bent(self) -> bool:
        """Whether more than similarities are voted on."""
        return self.aspect > 0 or self.shear > 0


@dataclass(frozen=True, eq=False)
class Guess:
    """A map around which a vote searches.

    Attributes:
        transform: reference pixels -> moving pixels.
        shape: expected departure of the whole map from a similarity, see `affine.departure`.
    """

    transform: AffineTransform
    shape: Shape = NO_SHAPE


@dataclass(frozen=True, eq=False)
class Elected(Guess):
    """The map around a guess that the windows support most.

    Attributes:
        score: log-likelihood ratio per window against windows that match anywhere; 0 for no support.
    """

    score: float = 0.0


def vote(
    matcher: Matcher,
    guesses: Sequence[Guess],
    radius_px: float,
    cfg: VoteCfg,
    over: Over = one_by_one,
) -> list[Elected]:
    """The map around each guess that the windows support most; guesses without a readable window are left out.

    Args:
        matcher: the pair at one resolution.
        guesses: reference pixels -> moving pixels.
        radius_px: largest shift of the image's centre from the guess, pixels.
        cfg: settings.
        over: applies a function to groups of guesses.
    """
    cell = float(matcher.finest)
    shape = matcher.cells()
    reach = max(shape) / 2 * math.hypot(*cfg.reaches)
    base = thinned(roomy(cfg.window, shape), shape, cfg.windows)
    window = WindowCfg(base.size, math.ceil(radius_px / cell + reach), base.stride, min_seen=0.3)

    def vote_of(group: Sequence[Guess]) -> list[Elected]:
        elected = []
        correlations = matcher.correlate_all([guess.transform for guess in group], window)
        for guess, windows in zip(group, correlations, strict=True):
            if len(windows.surfaces):
                residual, score = elect(windows, cell, shape, radius_px, cfg)
                turn = residual.parameters()["rotation_deg"]
                elected.append(Elected(guess.transform.after(residual), turned_shape(guess.shape, turn), score))
        return elected

    size = min(TOGETHER, max(1, math.ceil(len(guesses) / 2)))  # at least two groups, for two threads
    groups = [guesses[first : first + size] for first in range(0, len(guesses), size)]
    return [one for group in over(vote_of, groups) for one in group]


def elect(
    windows: WindowCorrelation, cell: float, shape: tuple[int, int], radius_px: float, cfg: VoteCfg
) -> tuple[AffineTransform, float]:
    """The best of all combinations of rotation, scale and shift, and of aspect and shear where `cfg` has them.

    Where there are too many combinations (a long strip, a wide radius, aspect and shear) they are counted in blocks of
    cells first, then in smaller and smaller blocks around the best.

    Args:
        windows: correlation surfaces.
        cell: pixels per cell.
        shape: (height, width) of the reference, cells.
        radius_px: largest shift of the centre per axis.
        cfg: settings.

    Returns:
        Residual map, reference pixels -> reference pixels, and its score.
    """
    arm = max(shape) * cell / 2
    middle = torch.tensor([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    away = windows.centres.to(middle) - middle
    shift, best, score = torch.zeros(2), torch.zeros(4), 0.0
    reaches, radius = cfg.reaches, math.ceil(radius_px / cell)
    work, kept = (BENT_WORK, 0.6) if cfg.is_bent else (WORK, 1.0)
    for size in range(_block(len(away), reaches, radius, arm, cfg.step_px, work), 0, -2):
        step = cfg.step_px * size
        axes = [torch.tensor(_steps(reach, arm, step)) + at for reach, at in zip(reaches, best.tolist(), strict=True)]
        hypotheses = torch.cartesian_prod(*axes)
        offsets = (_displacement(hypotheses, away) + shift) / size
        which, place, score = _most(ballots(windows, RIGHT, size), offsets, math.ceil(radius / size))
        best, shift = hypotheses[which], shift + place * size
        reaches, radius = tuple(min(reach, kept * step / arm) for reach in reaches), size
    linear = _linear(best[None])[0].double().numpy()
    centre = (middle * cell + (cell - 1) / 2).double().numpy()
    moved = centre + (shift * cell).double().numpy() - linear @ centre
    return AffineTransform(np.column_stack([linear, moved])), score / len(away)


def ballots(windows: WindowCorrelation, right: float, block: int = 1) -> Tensor:
    """(N, n, n) log-likelihood ratio of a window's surface: with each displacement against without any; >= 0.

    A window is right with probability `right` and otherwise uninformative, so no window can veto. With a
    larger `block` (odd) each displacement stands for a block of that many cells per axis; the middle block is around 0.
    """
    flat = torch.softmax(log_likelihood(windows), dim=-1)
    margin, side = windows.margin, windows.surfaces.shape[-1]
    # A vote counts for neighbouring cells too, because hypotheses lie between cells.
    rim = (3 * block - 1) // 2 - margin % block
    probability = F.avg_pool2d(flat.view(-1, 1, side, side), 3 * block, stride=block, padding=rim)
    return torch.log1p(right / (1 - right) * side**2 * probability)[:, 0] * windows.valid[:, None, None]


def _block(windows: int, reaches: Sequence[float], radius: int, arm_px: float, step_px: float, work: float) -> int:
    """The smallest odd size of blocks with which no more than `work` votes are counted."""
    block = 1
    while True:
        hypotheses = math.prod(len(_steps(reach, arm_px, step_px * block)) for reach in reaches)
        if hypotheses * windows * (2 * math.ceil(radius / block) + 1) ** 2 <= work or block >= radius:
            return block
        block += 2


def _linear(hypotheses: Tensor) -> Tensor:
    """(H, 2, 2) maps of (H, 4) rotations, log scales, halves of the log aspect and halves of the shear.

    Aspect and shear are the symmetric part of area 1: the exponential of ((aspect, shear), (shear, -aspect)).
    """
    turn, growth, aspect, shear = hypotheses.unbind(-1)
    bent = torch.hypot(aspect, shear)
    even, odd = torch.cosh(bent), torch.sinh(bent) / bent.clamp_min(1e-12)
    rows = [even + odd * aspect, odd * shear, odd * shear, even - odd * aspect]
    shape = torch.stack(rows, dim=-1).view(-1, 2, 2)
    cos, sin = turn.cos(), turn.sin()
    rotation = torch.stack([cos, -sin, sin, cos], dim=-1).view(-1, 2, 2)
    return growth.exp()[:, None, None] * (rotation @ shape)


def _displacement(hypotheses: Tensor, away: Tensor) -> Tensor:
    """(A - I) x for every hypothesis (H, 4), see `_linear`, and window (N, 2): (H, N, 2)."""
    change = _linear(hypotheses) - torch.eye(2)
    return torch.einsum("hij,nj->hni", change, away)


def _most(votes: Tensor, offsets: Tensor, radius: int) -> tuple[int, Tensor, float]:
    """Index of the hypothesis, shift (2,) and number of votes at the maximum; see `_count`."""
    best, place, which = -math.inf, (0, 0), 0
    step = max(1, CHUNK // (len(votes) * (2 * radius + 1) ** 2))
    for first in range(0, len(offsets), step):
        counted = _count(votes, offsets[first : first + step], radius)
        top = int(counted.argmax())
        if float(counted.flatten()[top]) > best:
            best = float(counted.flatten()[top])
            index, rest = divmod(top, counted.shape[-1] ** 2)
            which, place = first + index, divmod(rest, counted.shape[-1])
    return which, torch.tensor([place[1] - radius, place[0] - radius], dtype=votes.dtype), best


def _count(votes: Tensor, offsets: Tensor, radius: int) -> Tensor:
    """(H, 2 radius + 1, 2 radius + 1) sums over the windows of their votes at `offset + shift`.

    Args:
        votes: (N, n, n); no votes beyond its rim.
        offsets: (H, N, 2) cells.
        radius: largest shift, cells.
    """
    side = votes.shape[-1]
    axis = torch.arange(-radius, radius + 1, dtype=votes.dtype)
    shift = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    points = offsets.permute(1, 0, 2)[:, :, None, None] + shift
    count, hypotheses = len(votes), len(offsets)
    grid = (points / (side / 2)).reshape(count, hypotheses * len(axis), len(axis), 2)
    read = F.grid_sample(votes[:, None], grid, padding_mode="zeros", align_corners=False)
    return read.sum(0).view(hypotheses, len(axis), len(axis))


def _steps(reach: float, arm_px: float, step_px: float) -> list[float]:
    """Values from -reach to reach; a point `arm_px` away moves by at most `step_px` from one to the next."""
    if reach == 0:
        return [0.0]
    count = max(1, math.ceil(reach * arm_px / step_px))
    return [reach * i / count for i in range(-count, count + 1)]
