"""Figures and verdict of a scene, from the evidence of its tiles.

Every tile is a pair of the size that the engines' verdicts were calibrated on, so each brings a calibrated probability
that it is right. A scene is trusted when tiles that are sure of themselves agree with a model that never saw them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from somareg.geometry import AffineTransform, FieldTransform
from somareg.quality.calibration import Calibration
from somareg.quality.measure import rms_over
from somareg.quality.verdict import MAX_FOLDING, MIN_OVERLAP, chance_in_words
from somareg.scene.model import SceneModel
from somareg.scene.tile import TileResult
from somareg.types import Decision, FloatArray, Quality, TiePoints, Verdict

AGREE_PX = 2.0
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
    """

    tiles: int
    sure: int
    agreeing: int
    probability: float
    held_out_px: float


def count_votes(tiles: Sequence[TileResult], model: SceneModel | None, calibration: Calibration) -> Votes:
    """Let the tiles vote.

    Args:
        tiles: of the scene.
        model: of the scene, None when there is none.
        calibration: of the engine, for what "sure" means.
    """
    seen = [t for t in tiles if t.status != "empty"]
    sure = {t.index: t.figures["probability"] for t in seen if t.figures.get("probability", 0.0) >= calibration.review}
    held = model.held_out if model else {}
    errors = {index: math.hypot(*held[index]) for index in sure if index in held}
    agreeing = [index for index, error in errors.items() if error <= AGREE_PX]
    # One tile more that is wrong: few votes prove little.
    probability = sum(sure[index] for index in agreeing) / (len(sure) + 1)
    inside = np.minimum(np.array(list(errors.values())), 10.0)
    held_out = float(np.sqrt((inside**2).mean())) if errors else math.inf
    return Votes(len(seen), len(sure), len(agreeing), probability, held_out)


def measure_scene(
    tiles: Sequence[TileResult],
    votes: Votes,
    model: SceneModel | None,
    ties: TiePoints,
    maps: tuple[AffineTransform, FieldTransform, AffineTransform],
    scene: tuple[tuple[int, int], float, float | None],
    calibration: Calibration,
) -> Quality:
    """Every figure of `Quality`.

    Args:
        tiles, votes, model, ties: of the scene.
        maps: affine and local field of the correction, and the affine expected before matching.
        scene: (height, width) of the reference, share of it that the moving image covers, metres per pixel.
        calibration: of the engine.
    """
    affine, field, expected = maps
    shape, overlap, metres = scene
    sure = [t for t in tiles if t.figures.get("probability", 0.0) >= calibration.review]
    figures = sure or [t for t in tiles if t.status == "matched"]
    height, width = shape
    relative = expected.inverse.after(affine)
    parameters = relative.parameters(((width - 1) / 2, (height - 1) / 2))
    local = float(np.sqrt((field.array**2).sum(0).mean()))
    inlier = ties.inlier
    return Quality(
        n_points=len(ties),
        inlier_ratio=float(inlier.mean()) if len(ties) else 0.0,
        coverage=votes.sure / max(votes.tiles, 1),
        residual_median_px=float(np.median(ties.residual_px[inlier])) if inlier.any() else math.nan,
        peak_zscore=_mean(figures, "zscore", 0.0),
        peak_sharpness=_mean(figures, "sharpness", 0.0),
        hit_ratio=_mean(figures, "hit_ratio", 0.0),
        forward_backward_px=_median(figures, "forward_backward"),
        split_half_px=model.split_half_px if model else math.inf,
        similarity_before=_mean(figures, "correlation_before", math.nan),
        similarity_after=_mean(figures, "correlation", 0.0),
        overlap=overlap,
        folding=float((field.jacobian_determinant() <= 0).mean()),
        shift_before_px=rms_over(relative, shape, local),
        rotation_deg=parameters["rotation_deg"],
        scale=math.sqrt(abs(parameters["scale"][0] * parameters["scale"][1])),
        shear_deg=parameters["shear_deg"],
        shift_px=parameters["shift"],
        local_rms_px=local,
        predicted_rmse_px=votes.held_out_px,
        predicted_ce90_px=votes.held_out_px * calibration.ce90_per_rmse,
        metres_per_pixel=metres,
    )


def judge_scene(votes: Votes, quality: Quality, calibration: Calibration, failure: str = "") -> Verdict:
    """go, review or no-go, with the reasons in plain words.

    Args:
        votes: of the tiles.
        quality: the figures.
        calibration: of the engine, for its thresholds.
        failure: why there is no model, "" otherwise.
    """
    if failure:
        return Verdict("no-go", (f"No model of the scene could be estimated: {failure}.",), 0.0)
    doubts = list(_doubts(votes, quality))
    decision: Decision = "no-go"
    if votes.probability >= calibration.go:
        decision = "review" if doubts else "go"
    elif votes.probability >= calibration.review:
        decision = "review"
    told = (
        f"{votes.sure} of {votes.tiles} tiles found the images' common ground by themselves; {votes.agreeing} of them "
        f"lie within {AGREE_PX:g} px of a model that was fitted without them."
    )
    apart = f"Tiles and models fitted without them differ by {votes.held_out_px:.2f} px RMS."
    chance = f"The chance that the error is below 2 px is {chance_in_words(votes.probability)}."
    return Verdict(
        decision, (*doubts, told, *([apart] if math.isfinite(votes.held_out_px) else []), chance), votes.probability
    )


def _doubts(votes: Votes, quality: Quality) -> list[str]:
    """What forbids "go"."""
    doubts = []
    if votes.sure < MIN_SURE:
        doubts.append(f"Only {votes.sure} tiles found common ground by themselves (at least {MIN_SURE} are needed).")
    elif quality.coverage < MIN_COVERAGE:
        doubts.append(f"Only {quality.coverage:.0%} of the tiles found common ground by themselves.")
    if quality.folding > MAX_FOLDING:
        doubts.append(f"The displacement folds over itself on {quality.folding:.1%} of the image.")
    if quality.overlap < MIN_OVERLAP:
        doubts.append(f"Only {quality.overlap:.0%} of the reference is covered by the moving image.")
    return doubts


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
