"""Where to start: all windows vote for one similarity near a first guess, none has to be right by itself.

A generalised Hough transform (Ballard, 1981) with likelihoods for votes. Between speckle and fields a window of 50 px
often shows its displacement only as one of several peaks; a rotation, a scale and a shift that many windows hold for
possible are found nevertheless, wherever in the searched range they lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.geometry import AffineTransform
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import log_likelihood
from somareg.matching.windows import WindowCfg, WindowCorrelation, roomy, thinned

TOGETHER = 5  # guesses whose features are computed together
CHUNK = 4_000_000  # votes that are counted together (16 MB)


@dataclass(frozen=True)
class VoteCfg:
    """What is voted on.

    Attributes:
        window: windows, in cells; their margin grows to what is searched.
        rotation_deg, scale: the similarity lies within +-this rotation and exp(+-this) scale of the guess. Windows stay
            as they are, so this is bounded by what they bear: about 6 degrees and 0.06.
        step_px: the hypotheses are so dense that the image's corners move by no more than this between them.
        right: share of the windows that are expected to see their true displacement.
        windows: at most (about).
    """

    window: WindowCfg = field(default_factory=lambda: WindowCfg(size=28, margin=4, stride=8))
    rotation_deg: float = 5.0
    scale: float = 0.05
    step_px: float = 3.0
    right: float = 0.4
    windows: int = 64


@dataclass(frozen=True, eq=False)
class Elected:
    """A similarity and its support.

    Attributes:
        transform: reference pixels -> moving pixels.
        score: log-likelihood per window against windows that match anywhere; 0 for no support at all.
    """

    transform: AffineTransform
    score: float


def vote(matcher: Matcher, guesses: Sequence[AffineTransform], radius_px: float, cfg: VoteCfg) -> list[Elected]:
    """The similarity around each guess that the windows support most; guesses that show no window are left out.

    Args:
        matcher: the pair at one resolution.
        guesses: reference pixels -> moving pixels.
        radius_px: how far the image's centre may lie from the guess, pixels.
        cfg: settings.
    """
    cell = float(matcher.finest)
    shape = matcher.cells()
    reach = max(shape) / 2 * math.hypot(math.radians(cfg.rotation_deg), cfg.scale)
    base = thinned(roomy(cfg.window, shape), shape, cfg.windows)
    window = WindowCfg(base.size, math.ceil(radius_px / cell + reach), base.stride, min_seen=0.3)
    turns = _steps(math.radians(cfg.rotation_deg), max(shape) * cell / 2, cfg.step_px)
    scales = _steps(cfg.scale, max(shape) * cell / 2, cfg.step_px)
    elected = []
    for first in range(0, len(guesses), TOGETHER):
        group = guesses[first : first + TOGETHER]
        for guess, found in zip(group, matcher.correlate_all(group, window), strict=True):
            if len(found.surfaces):
                residual, score = elect(found, cell, shape, turns, scales, math.ceil(radius_px / cell), cfg.right)
                elected.append(Elected(guess.after(residual), score))
    return elected


def elect(
    windows: WindowCorrelation,
    cell: float,
    shape: tuple[int, int],
    turns: list[float],
    scales: list[float],
    radius: int,
    right: float,
) -> tuple[AffineTransform, float]:
    """The best of all combinations of rotation, scale and shift.

    Args:
        windows: correlation surfaces.
        cell: pixels per cell.
        shape: (height, width) of the reference, cells.
        turns: rotations, radians.
        scales: logarithms of scales.
        radius: largest shift of the centre per axis, cells.
        right: see `VoteCfg`.

    Returns:
        Residual similarity, reference pixels -> reference pixels, and its score.
    """
    votes = ballots(windows, right)
    middle = torch.tensor([(shape[1] - 1) / 2, (shape[0] - 1) / 2], dtype=votes.dtype)
    away = windows.centres.to(votes) - middle
    turn, scale = (t.flatten() for t in torch.meshgrid(torch.tensor(turns), torch.tensor(scales), indexing="ij"))
    size = scale.exp()
    cos, sin = size * turn.cos() - 1, size * turn.sin()
    # (A - I) x for every hypothesis and window, cells
    offsets = torch.stack(
        [cos[:, None] * away[:, 0] - sin[:, None] * away[:, 1], sin[:, None] * away[:, 0] + cos[:, None] * away[:, 1]],
        dim=-1,
    )
    best, place, which = -math.inf, (0, 0), 0
    step = max(1, CHUNK // (len(votes) * (2 * radius + 1) ** 2))
    for first in range(0, len(offsets), step):
        counted = _count(votes, offsets[first : first + step], radius)
        top = int(counted.argmax())
        if float(counted.flatten()[top]) > best:
            best = float(counted.flatten()[top])
            index, rest = divmod(top, counted.shape[-1] ** 2)
            which, place = first + index, divmod(rest, counted.shape[-1])
    centre = (float(middle[0]) * cell + (cell - 1) / 2, float(middle[1]) * cell + (cell - 1) / 2)
    similarity = AffineTransform.from_parameters(
        rotation_deg=math.degrees(float(turn[which])),
        scale=float(size[which]),
        shift=((place[1] - radius) * cell, (place[0] - radius) * cell),
        centre=centre,
    )
    return similarity, best / len(votes)


def ballots(windows: WindowCorrelation, right: float) -> Tensor:
    """(N, n, n) log of how much likelier a window's surface is with each displacement than without any, >= 0.

    A window is right with probability `right`, otherwise it says nothing: so none can veto.
    """
    flat = torch.softmax(log_likelihood(windows), dim=-1)
    side = windows.surfaces.shape[-1]
    # A vote counts for its neighbours too: hypotheses lie between cells.
    probability = F.avg_pool2d(flat.view(-1, 1, side, side), 3, stride=1, padding=1)
    return torch.log1p(right / (1 - right) * side**2 * probability)[:, 0] * windows.valid[:, None, None]


def _count(votes: Tensor, offsets: Tensor, radius: int) -> Tensor:
    """(H, 2 radius + 1, 2 radius + 1) sums over the windows of their votes at `offset + shift`.

    Args:
        votes: (N, n, n); beyond its rim nobody votes.
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
    """From -reach to reach so densely that what lies `arm_px` away moves by `step_px` at most from one to the next."""
    count = max(1, math.ceil(reach * arm_px / step_px))
    return [reach * i / count for i in range(-count, count + 1)]
