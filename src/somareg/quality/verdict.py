"""go, review or no-go, with the reasons in plain words."""

from __future__ import annotations

from somareg.quality.calibration import Calibration
from somareg.quality.support import Support
from somareg.types import Decision, Quality, Verdict

MAX_FOLDING = 0.001
MIN_OVERLAP = 0.2
PROVEN_ZSCORE = 2.0


def judge(support: Support, quality: Quality, calibration: Calibration) -> Verdict:
    """The verdict on an estimate.

    Args:
        support: by the images.
        quality: its figures.
        calibration: thresholds.
    """
    if support.failure:
        return Verdict("no-go", (f"No transform could be estimated: {support.failure}.",), 0.0)
    doubts = [*support.doubts, *_doubts(quality)]
    decision: Decision = "no-go"
    if support.probability >= calibration.go:
        decision = "review" if doubts else "go"
    elif support.probability >= calibration.review:
        decision = "review"
    chance = f"The chance that the error is below 2 px is {chance_in_words(support.probability)}."
    proven = quality.peak_zscore >= PROVEN_ZSCORE
    # Weightiest first: what speaks for an estimate, or what speaks against it.
    told = (chance, *support.told) if decision != "go" and proven else (*support.told, chance)
    return Verdict(decision, (*doubts, *told), support.probability)


def _doubts(quality: Quality) -> list[str]:
    """What forbids "go" whatever the images' agreement."""
    doubts = []
    if quality.folding > MAX_FOLDING:
        doubts.append(f"The displacement folds over itself on {quality.folding:.1%} of the image.")
    if quality.overlap < MIN_OVERLAP:
        doubts.append(f"Only {quality.overlap:.0%} of the smaller image is covered by the other one.")
    return doubts


def chance_in_words(probability: float) -> str:
    """A chance of 0-1 as in "97 %" or "above 99 %": never said to be certain, nor to be none."""
    if probability >= 0.995:
        return "above 99 %"
    return "below 1 %" if probability < 0.005 else f"{100 * probability:.0f} %"
