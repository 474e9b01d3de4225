"""Support of the tiles for the model of their pair.

Every tile is a pair of the size on which the engines' verdicts were calibrated, so each has a calibrated probability
that it is right. A scene is trusted when sure tiles agree with a model fitted without them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from somareg.quality import Calibration, Support, agreement_in_words
from somareg.register.tiles.holdout import beyond_noise
from somareg.register.tiles.layout import Layout
from somareg.register.tiles.model import SceneModel
from somareg.register.tiles.sure import ambiguity_of, is_probable, is_sure
from somareg.register.tiles.tile import TileResult
from somareg.types import FloatArray

AGREE_PX = 2.0
BY_CHANCE = 0.05  # share of wrong tiles within `AGREE_PX` of a model of others: the share of the search area
UNPROVEN = 0.25
MIN_SURE = 4  # least sure tiles for "go", and least worth of them
MIN_COVERAGE = 0.15  # least share of sure tiles among those with pixels


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes of the tiles on the model.

    Attributes:
        tiles: number of tiles with pixels in both images.
        sure: number of them that are right by their own evidence.
        worth: number of tiles side by side that show as many pixels as the sure ones.
        agreeing: number of sure ones within 2 px of a model of other tiles.
        unclear: number of tiles that would be sure if no other shift fitted them about as well.
        probability: that the error is below 2 px, 0-1.
        held_out_px: RMS difference of sure tiles from the model of others, bending within a tile included, because a
            median over the tile does not show it; inf when unknown.
        predicted_px: expected error of the model, `held_out_px` times `somareg.register.tiles.rounds.nearer`.
    """

    tiles: int
    sure: int
    worth: float
    agreeing: int
    unclear: int
    probability: float
    held_out_px: float
    predicted_px: float


def count_votes(
    tiles: Sequence[TileResult],
    layout: Layout,
    model: SceneModel | None,
    calibration: Calibration,
    nearer: float = 1.0,
) -> Votes:
    """Count the votes of the tiles.

    Args:
        tiles: of the scene.
        layout: of its tiles.
        model: of the scene, None without one.
        calibration: of the engine, which defines a sure tile.
        nearer: see `somareg.register.tiles.rounds.nearer`.
    """
    full = [t for t in tiles if t.status != "empty"]
    sure = {t.index for t in full if is_sure(t, calibration)}
    probable = {t.index: t.figures["probability"] for t in full if is_probable(t, calibration)}
    # Where most are ambiguous, all are heard, for a review as of a pair matched whole.
    is_unclear = bool(ambiguity_of(full, calibration))
    heard = probable if is_unclear else {index: probable[index] for index in sure}
    held = model.held_out if model else {}
    errors = {t.index: _error(t, model) for t in full if model and t.index in heard and t.index in held}
    agreeing = [index for index, error in errors.items() if error <= AGREE_PX]
    # A wrong tile rarely agrees with a model of other tiles, unless all are ambiguous in the same way. `UNPROVEN` keeps
    # few votes from proving much.
    chance = 1.0 if is_unclear else BY_CHANCE
    right = sum(heard[index] / (heard[index] + chance * (1 - heard[index])) for index in agreeing)
    share = layout.worth(heard) / max(len(heard), 1)  # pixels under several tiles are one witness
    probability = share * right / (share * len(heard) + UNPROVEN)
    inside = np.minimum(np.array(list(errors.values())), 10.0)
    held_out = float(np.sqrt((inside**2).mean())) if errors else math.inf
    agreed, unclear = len(sure.intersection(agreeing)), len(probable) - len(sure)
    worth = layout.worth(sure)
    return Votes(len(full), len(sure), worth, agreed, unclear, probability, held_out, held_out * nearer)


def support_of_tiles(
    tiles: Sequence[TileResult],
    votes: Votes,
    model: SceneModel | None,
    calibration: Calibration,
    failure: str = "",
    others: tuple[str, ...] = (),
) -> Support:
    """The support of all tiles for an estimate.

    Args:
        tiles, votes, model: of the pair.
        calibration: of the engine, for its thresholds.
        failure: why there is no model, "" otherwise.
        others: further doubts.
    """
    sure = [t for t in tiles if is_sure(t, calibration)]
    figures = sure or [t for t in tiles if t.status == "matched"]
    coverage = votes.sure / max(votes.tiles, 1)
    doubts = [*others, *ambiguity_of(tiles, calibration)]
    if votes.sure < MIN_SURE:
        doubts.append(f"Only {votes.sure} tiles found common ground by themselves (at least {MIN_SURE} are needed).")
    elif round(votes.worth) < MIN_SURE:
        doubts.append(
            f"The {votes.sure} tiles that found common ground by themselves overlap so far that they show the pixels "
            f"of only {round(votes.worth)} (at least {MIN_SURE} are needed)."
        )
    elif coverage < MIN_COVERAGE:
        doubts.append(f"Only {coverage:.0%} of the tiles found common ground by themselves.")
    zscore = _mean(figures, "zscore", 0.0)
    remarks = [
        f"{votes.sure} of {votes.tiles} tiles found the images' common ground by themselves; {votes.agreeing} of them "
        f"lie within {AGREE_PX:g} px of a model that was fitted without them."
    ]
    if votes.unclear:
        remarks.append(f"Tiles that do not count because another shift fits them about as well: {votes.unclear}.")
    if math.isfinite(votes.held_out_px):
        remarks.append(f"Tiles and models fitted without them differ by {votes.held_out_px:.2f} px RMS.")
    return Support(
        probability=votes.probability,
        predicted_px=votes.predicted_px,
        ce90_per_rmse=calibration.ce90_per_rmse,
        coverage=coverage,
        zscore=zscore,
        sharpness=_mean(figures, "sharpness", 0.0),
        hit_ratio=_mean(figures, "hit_ratio", 0.0),
        forward_backward_px=_median(figures, "forward_backward"),
        split_half_px=model.split_half_px if model else math.inf,
        before=_mean(figures, "correlation_before", math.nan),
        after=_mean(figures, "correlation", 0.0),
        agreement=agreement_in_words("On average, the tiles agree", zscore) if figures else "",
        told=tuple(remarks),
        doubts=tuple(doubts),
        failure=failure,
    )


def _error(tile: TileResult, model: SceneModel) -> float:
    """Difference of a tile from the model of others, pixels: of all of it, or of its quarters where it is bent."""
    return max(math.hypot(*model.held_out[tile.index]), beyond_noise(model.uneven[tile.index], tile.precision))


def _values(tiles: Sequence[TileResult], name: str) -> FloatArray:
    values: FloatArray = np.array([t.figures[name] for t in tiles if name in t.figures], float)
    finite: FloatArray = values[np.isfinite(values)]
    return finite


def _mean(tiles: Sequence[TileResult], name: str, default: float) -> float:
    values = _values(tiles, name)
    return float(values.mean()) if len(values) else default


def _median(tiles: Sequence[TileResult], name: str) -> float:
    values = _values(tiles, name)
    return float(np.median(values)) if len(values) else math.inf
