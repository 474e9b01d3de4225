"""Tiles in rounds: first every second row and column, then more where the model is less accurate than asked.

A quarter of the tiles determines a scene with a smooth displacement. The matched tiles show which others are needed:
those beside a tile that differs from a model fitted without it, and places where the model is uncertain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.errors import EstimationError
from somareg.jobs.one import Outcome, Runner
from somareg.quality import Calibration
from somareg.register.tiles.holdout import HeldOut, beyond_noise, spread_at
from somareg.register.tiles.job import TileJob, TileSettings
from somareg.register.tiles.journal import Journal
from somareg.register.tiles.layout import Layout
from somareg.register.tiles.model import Likely, SceneModel, fit_scene
from somareg.register.tiles.sure import is_sure
from somareg.register.tiles.ties import Ties, collect
from somareg.register.tiles.tile import TileResult, match_tile
from somareg.runtime import memory
from somareg.runtime.threads import helper

ENOUGH_SURE = 12  # sure tiles; with fewer, model and verdict are weak, and every tile is matched
RAYLEIGH = 0.833  # ratio of median and RMS of a 2-D error
TILE_PX = 0.1  # error of a tile's displacement in its middle
_SHARE = 0.7  # share of the remaining work that a round reports, because the number of rounds is unknown


@dataclass(frozen=True, eq=False)
class Rounds:
    """Tiles that were matched, and the model of them.

    Attributes:
        tiles: in the order of their index.
        ties: their tie points.
        model: of the scene; None without one.
        failure: why there is no model, "" otherwise.
        counts: tiles of each round.
        nearer: see `nearer`.
    """

    tiles: list[TileResult]
    ties: Ties
    model: SceneModel | None
    failure: str
    counts: tuple[int, ...]
    nearer: float


@dataclass(frozen=True)
class Aim:
    """The goal of the rounds.

    Attributes:
        shape: (height, width) of the reference's part.
        local: whether a displacement beyond the affine is estimated.
        accuracy_px: required accuracy, RMS of both axes, reference pixels.
        calibration: of the engine, which defines a sure tile.
        failure: why nothing can be modelled, "" otherwise.
    """

    shape: tuple[int, int]
    local: bool
    accuracy_px: float
    calibration: Calibration
    failure: str = ""


def match_in_rounds(
    layout: Layout,
    settings: TileSettings,
    journal: Journal,
    runner: Runner,
    aim: Aim,
    tell: Callable[[int, int, float], None],
) -> Rounds:
    """Match tiles until the model is as accurate as asked, or all are matched.

    The next tiles depend on those of the rounds before and on nothing else, so that a run that resumes from a
    journal matches the same ones.

    Args:
        layout: all tiles.
        settings: of the pair.
        journal: of finished tiles.
        runner: for the tiles.
        aim: when to stop.
        tell: called with the number of finished tiles, of requested tiles, and the share of the work.
    """
    with journal.believed():
        if any(index >= len(layout.blocks) for index in journal.tiles):
            raise ValueError("tiles that this pair does not have")
    finished = {index: tile for index, tile in journal.tiles.items() if tile.status != "failed"}
    requested, counts, progress = set[int](), list[int](), 0.0
    todo: Sequence[int] = layout.first
    while True:
        requested.update(todo)
        counts.append(len(todo))
        share = 1.0 - progress if len(requested) == len(layout.blocks) else _SHARE * (1.0 - progress)
        jobs = [TileJob(index, layout.blocks[index], settings) for index in todo if index not in finished]
        done = len(requested) - len(jobs)
        tell(done, len(requested), progress)
        for number, outcome in runner.run(match_tile, jobs):
            tile = _tile_of(jobs[number], outcome)
            finished[tile.index] = tile
            journal.keep(tile)
            done += 1
            tell(done, len(requested), progress + share * (1 - (len(requested) - done) / max(len(todo), 1)))
        progress += share
        tiles = [finished[index] for index in sorted(requested)]
        ties = collect(tiles)
        memory.release()  # of the last tiles, before two fits at a time need as much
        model, failure = _fit(ties, layout, aim)
        todo = () if aim.failure else wanted(layout, tiles, model, aim)
        if not todo:
            return Rounds(tiles, ties, model, failure, tuple(counts), nearer(layout, tiles, model))


def _fit(ties: Ties, layout: Layout, aim: Aim) -> tuple[SceneModel | None, str]:
    """Fit the model of the tie points; None and the reason when there is none."""
    if aim.failure:
        return None, aim.failure
    try:
        with helper(torch.device("cpu"), 1) as beside:  # the cores are idle now, because workers wait
            return fit_scene(ties, layout, aim.shape, local=aim.local, over=beside.over), ""
    except EstimationError as error:
        return None, str(error)


def wanted(layout: Layout, tiles: Sequence[TileResult], model: SceneModel | None, aim: Aim) -> tuple[int, ...]:
    """The tiles of the next round, in order; none when the goal is reached.

    Args:
        layout: all tiles.
        tiles: the matched ones.
        model: of them; None without one.
        aim: the goal.
    """
    remaining = _left(layout, tiles)
    sure = [tile for tile in tiles if is_sure(tile, aim.calibration)]
    if not remaining or model is None or len(sure) < ENOUGH_SURE:
        return tuple(remaining)
    if not aim.local:
        return ()
    expected = expected_errors(layout, remaining, sure, model)
    return tuple(index for index, error in zip(remaining, expected, strict=True) if error > aim.accuracy_px)


def expected_errors(
    layout: Layout, left: Sequence[int], sure: Sequence[TileResult], model: SceneModel
) -> NDArray[np.float64]:
    """Expected RMS error (N,) in tiles that were not matched, pixels.

    The uncertainty of a field follows from its prior, which is an assumption. So it is scaled by
    the errors on held-out tiles: on all of them, and on those beside the place.

    Args:
        layout: all tiles.
        left: indices (N) of the tiles that were not matched.
        sure: matched tiles with a high probability.
        model: of all matched tiles.
    """
    likely, holdout = model.likely, model.likely.held
    spread = _spread(layout, left, likely)
    excess = {tile.index: _excess(tile, holdout) for tile in sure if tile.index in holdout.off}
    if not likely.field.prior.ratio:  # the affine alone: a place may be as far off as the tile beside it
        return np.array([max((excess.get(other, 0.0) for other in layout.beside(i)), default=0.0) for i in left])
    ratios = {index: off / holdout.foreseen[index] for index, off in excess.items()}
    usual = float(np.median(list(ratios.values()))) / RAYLEIGH if ratios else 1.0
    worst = [max((ratios.get(other, 0.0) for other in layout.beside(i)), default=0.0) for i in left]
    return np.asarray(spread * np.maximum(usual, worst), np.float64)


def nearer(layout: Layout, tiles: Sequence[TileResult], model: SceneModel | None) -> float:
    """Ratio of the error expected where no tile was matched to that of held-out tiles. Those lie further from the tiles
    of their model, so their error is too large for the model of all. 1 when all tiles were matched.
    """
    remaining = _left(layout, tiles)
    if not remaining or model is None or not model.field.prior.ratio:
        return 1.0
    foreseen = np.array(list(model.likely.held.foreseen.values()))
    here = _spread(layout, remaining, model.likely)
    return min(1.0, math.sqrt((np.square(here).mean() + TILE_PX**2) / (np.square(foreseen).mean() + TILE_PX**2)))


def _left(layout: Layout, tiles: Sequence[TileResult]) -> list[int]:
    """Indices of the tiles that are not matched."""
    matched = {tile.index for tile in tiles}
    return [index for index in range(len(layout.blocks)) if index not in matched]


def _spread(layout: Layout, places: Sequence[int], likely: Likely) -> NDArray[np.float64]:
    """RMS error (N,) that a field predicts for the middle of tiles, pixels."""
    middles = np.array([layout.middle(index) for index in places])
    return np.asarray(math.sqrt(2.0) * spread_at(likely.field, likely.sums, middles), np.float64)


def _excess(tile: TileResult, holdout: HeldOut) -> float:
    """Distance of a tile from a model fitted without it, beyond the standard error of its quarters, pixels."""
    return beyond_noise(holdout.uneven[tile.index], tile.precision)


def _tile_of(job: TileJob, outcome: Outcome[TileResult]) -> TileResult:
    if outcome.value is not None:
        return outcome.value
    failure = outcome.failure
    reason = "no answer" if failure is None else f"{failure.kind}: {failure.message}"
    return TileResult(job.index, "failed", reason)
