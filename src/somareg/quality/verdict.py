"""go, review or no-go, with the reasons in plain words."""

from __future__ import annotations

from somareg.matching.engine import Alignment
from somareg.quality.calibration import Calibration
from somareg.types import Decision, Quality, Verdict

MAX_FOLDING = 0.001
MIN_OVERLAP = 0.2


def judge(alignment: Alignment, quality: Quality, calibration: Calibration) -> Verdict:
    """The verdict on an estimate.

    Args:
        alignment: of the engine.
        quality: its figures.
        calibration: probability and thresholds.
    """
    if alignment.failure:
        return Verdict("no-go", (f"No transform could be estimated: {alignment.failure}.",), 0.0)
    probability = calibration.probability(alignment)
    decision: Decision = "no-go"
    if probability >= calibration.go:
        decision = "go"
    elif probability >= calibration.review:
        decision = "review"
    doubts = list(_doubts(quality))
    if decision == "go" and doubts:
        decision = "review"
    return Verdict(decision, (*doubts, *_reasons(decision, quality, probability)), probability)


def _doubts(quality: Quality) -> list[str]:
    """What forbids "go" whatever the images' agreement."""
    doubts = []
    if quality.folding > MAX_FOLDING:
        doubts.append(f"The displacement folds over itself on {quality.folding:.1%} of the image.")
    if quality.overlap < MIN_OVERLAP:
        doubts.append(f"Only {quality.overlap:.0%} of the reference is covered by the moving image.")
    return doubts


def _reasons(decision: Decision, quality: Quality, probability: float) -> list[str]:
    strength = (
        f"The images agree {quality.peak_zscore:.1f} deviations above chance at the estimate "
        "(unrelated images rarely reach 2)."
    )
    halves = f"Two halves of the tie points agree to {quality.split_half_px:.1f} px"
    ways = f"matching backwards agrees to {quality.forward_backward_px:.1f} px"
    chance = f"The chance that the error is below 2 px is {chance_in_words(probability)}."
    if decision == "go":
        return [strength, f"{halves}, {ways}.", chance]
    if quality.peak_zscore < 2.0:
        return [f"{strength} That proves no common ground.", f"{halves}, {ways}.", chance]
    return [chance, strength, f"{halves}, {ways}."]


def chance_in_words(probability: float) -> str:
    """A chance of 0-1 as in "97 %" or "above 99 %": never said to be certain, nor to be none."""
    if probability >= 0.995:
        return "above 99 %"
    return "below 1 %" if probability < 0.005 else f"{100 * probability:.0f} %"
