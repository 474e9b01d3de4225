"""Evidence of the images for an estimate, from a pair matched whole or from the tiles of a larger one."""

from __future__ import annotations

from dataclasses import dataclass

from somareg.matching.engine import Alignment
from somareg.quality.ambiguity import PROVEN_ZSCORE, ambiguities, disagreements
from somareg.quality.calibration import Calibration
from somareg.quality.error_map import chance_below

RIGHT_PX = 2.0  # the verdict's probability is that of an error below this, reference pixels


@dataclass(frozen=True)
class Support:
    """Evidence for an estimate; lengths in reference pixels.

    Attributes:
        probability: calibrated, that the error is below 2 px, 0-1.
        predicted_px: expected RMS error; inf when unknown.
        ce90_per_rmse: ratio of the expected CE90 to the expected RMS error.
        coverage, zscore, sharpness, hit_ratio, forward_backward_px, split_half_px: see `somareg.types.Quality`.
        before, after: its `similarity_before` and `similarity_after`.
        agreement: a sentence on `zscore`, "" without one.
        told: further sentences for the verdict.
        doubts: sentences that forbid "go".
        failure: why there is no estimate, "" otherwise.
    """

    probability: float
    predicted_px: float
    ce90_per_rmse: float
    coverage: float
    zscore: float
    sharpness: float
    hit_ratio: float
    forward_backward_px: float
    split_half_px: float
    before: float
    after: float
    agreement: str = ""
    told: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    failure: str = ""


def support_of(alignment: Alignment, factor: int, calibration: Calibration, doubts: tuple[str, ...] = ()) -> Support:
    """The support of a pair matched whole.

    The calibration tells the chance of an error below 2 working pixels. In a reduced pair those are more than 2 pixels
    of the reference, so the chance is at most what the predicted error leaves for 2 of these.

    Args:
        alignment: in working pixels.
        factor: reference pixels per working pixel.
        calibration: of the engine.
        doubts: further ones.
    """
    evidence = alignment.evidence
    halves, backward = alignment.split_half_px * factor, alignment.forward_backward_px * factor
    probability, predicted = calibration.probability(alignment), calibration.predict_rmse(alignment, factor)
    if factor > 1:
        probability = min(probability, float(chance_below(RIGHT_PX, predicted)))
    return Support(
        probability=probability,
        predicted_px=predicted,
        ce90_per_rmse=calibration.ce90_per_rmse,
        coverage=evidence.coverage,
        zscore=evidence.zscore,
        sharpness=evidence.sharpness,
        hit_ratio=evidence.hit_ratio,
        forward_backward_px=backward,
        split_half_px=halves,
        before=evidence.correlation_before,
        after=evidence.correlation,
        agreement=agreement_in_words("The images agree", evidence.zscore),
        told=(
            f"Two halves of the tie points agree to {halves:.1f} px, matching backwards agrees to {backward:.1f} px.",
            *disagreements(alignment, factor),
        ),
        doubts=(*doubts, *ambiguities(alignment, factor)),
        failure=alignment.failure,
    )


def agreement_in_words(subject: str, zscore: float) -> str:
    """A sentence on how far images agree above chance.

    Args:
        subject: subject and verb, as in "The images agree".
        zscore: height of the correlation's peak at the estimate, in deviations of its background.
    """
    words = f"{subject} {zscore:.1f} deviations above chance at the estimate (unrelated images rarely reach 2)."
    return words if zscore >= PROVEN_ZSCORE else f"{words} That proves no common ground."
