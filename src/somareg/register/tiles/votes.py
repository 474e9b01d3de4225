"""How tiles support the model of their pair.

Every tile is a pair of the size that the engines' verdicts were calibrated on, so each brings a calibrated probability
that it is right. A scene is trusted when tiles that are sure of themselves agree with a model that never saw them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from somareg.quality import Calibration, Support, agreement_in_words
from somareg.register.tiles.model import SceneModel
from somareg.register.tiles.tile import TileResult
from somareg.types import FloatArray

AGREE_PX = 2.0
BY_CHANCE = 0.05  # of the wrong tiles lie within `AGREE_PX` of a model of others: so much of what is searched does
UNPROVEN = 0.25
MIN_SURE = 4  # tiles that must be sure of themselves for "go"
MIN_COVERAGE = 0.15  # share of the tiles with pixels that must be


@dataclass(frozen=True, eq=False)
class Votes:
    """What the tiles say about the model.

    Attributes:
        tiles: with pixels in both images.
        sure: of them, those that their own evidence calls right.
        agreeing: of those, the ones that a model of other tiles meets within 2 px.
        probability: that the error is below 2 px, 0-1.
        held_out_px: RMS by which sure tiles differ from the model of others; inf when it cannot be told.
        predicted_px: of that what is left of it where no tile was matched; see `somareg.register.tiles.rounds.nearer`.
    """

    tiles: int
    sure: int
    agreeing: int
    probability: float
    held_out_px: float
    predicted_px: float


def count_votes(
    tiles: Sequence[TileResult], model: SceneModel | None, calibration: Calibration, nearer: float = 1.0
) -> Votes:
    """Let the tiles vote.

    Args:
        tiles: of the scene.
        model: of the scene, None when there is none.
        calibration: of the engine, for what "sure" means.
        nearer: error to expect where no tile was matched, by that on tiles that were held out.
    """
    full = [t for t in tiles if t.status != "empty"]
    sure = {t.index: t.figures["probability"] for t in full if t.figures.get("probability", 0.0) >= calibration.review}
    held = model.held_out if model else {}
    errors = {index: math.hypot(*held[index]) for index in sure if index in held}
    agreeing = [index for index, error in errors.items() if error <= AGREE_PX]
    # A tile that is wrong rarely meets a model that never saw it; a part of a wrong tile more: few votes prove little.
    right = sum(sure[index] / (sure[index] + BY_CHANCE * (1 - sure[index])) for index in agreeing)
    probability = right / (len(sure) + UNPROVEN)
    inside = np.minimum(np.array(list(errors.values())), 10.0)
    held_out = float(np.sqrt((inside**2).mean())) if errors else math.inf
    return Votes(len(full), len(sure), len(agreeing), probability, held_out, held_out * nearer)


def support_of_tiles(
    tiles: Sequence[TileResult],
    votes: Votes,
    model: SceneModel | None,
    calibration: Calibration,
    failure: str = "",
    others: tuple[str, ...] = (),
) -> Support:
    """What the tiles say together for an estimate.

    Args:
        tiles, votes, model: of the pair.
        calibration: of the engine, for its thresholds.
        failure: why there is no model, "" otherwise.
        others: doubts that the tiles know nothing of.
    """
    sure = [t for t in tiles if t.figures.get("probability", 0.0) >= calibration.review]
    figures = sure or [t for t in tiles if t.status == "matched"]
    coverage = votes.sure / max(votes.tiles, 1)
    doubts = list(others)
    if votes.sure < MIN_SURE:
        doubts.append(f"Only {votes.sure} tiles found common ground by themselves (at least {MIN_SURE} are needed).")
    elif coverage < MIN_COVERAGE:
        doubts.append(f"Only {coverage:.0%} of the tiles found common ground by themselves.")
    zscore = _mean(figures, "zscore", 0.0)
    remarks = [
        f"{votes.sure} of {votes.tiles} tiles found the images' common ground by themselves; {votes.agreeing} of them "
        f"lie within {AGREE_PX:g} px of a model that was fitted without them."
    ]
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
