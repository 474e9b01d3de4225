"""go, review or no-go, with the reasons in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from somareg.config import RegisterConfig
from somareg.quality.ambiguity import PROVEN_ZSCORE
from somareg.quality.calibration import Calibration
from somareg.quality.support import Support
from somareg.types import Decision, Quality, Verdict
from somareg.types.words import chance

MAX_FOLDING = 0.001
MIN_OVERLAP = 0.2
ALIGNED_PX = 1.0  # a pair is aligned as it stands up to this RMS displacement, measured with no larger expected error


@dataclass(frozen=True)
class Demands:
    """Demands of the user for a "go", beside the calibration's threshold.

    Attributes:
        max_error_px, max_error_m: largest expected RMS error, reference pixels and metres; None for no limit.
        min_probability: smallest probability, 0-1.
    """

    max_error_px: float | None = 3.0
    max_error_m: float | None = None
    min_probability: float = 0.0

    @classmethod
    def of(cls, cfg: RegisterConfig) -> Demands:
        """Take the demands from the options."""
        return cls(cfg.max_error, cfg.max_error_m, cfg.min_probability or 0.0)


def judge(support: Support, quality: Quality, calibration: Calibration, demands: Demands | None = None) -> Verdict:
    """The verdict on an estimate.

    "go" needs the probability, an expected error within the limit, and no doubt. Otherwise the verdict is "review" as
    long as the probability reaches the calibration's threshold for that, which demands do not change. Agreement at the
    level of chance is no reason for "go", so a "go" does not mention it.

    Args:
        support: by the images.
        quality: its figures.
        calibration: thresholds.
        demands: of the user.
    """
    demands = demands or Demands()
    if support.failure:
        return Verdict("no-go", (f"No transform could be estimated: {support.failure}.",), 0.0)
    probability = support.probability
    likely = f"The chance that the error is below 2 px is {chance(probability)}."
    remarks = (*((support.agreement,) if support.agreement else ()), *support.told)
    if not probability >= calibration.review:
        return Verdict("no-go", (*_doubts(support, quality), *remarks, likely), probability)
    short = _short_of(probability, calibration.go, demands.min_probability)
    against = (*short, *_too_far(quality, demands), *_doubts(support, quality))
    decision: Decision = "review" if against else "go"
    proven = quality.peak_zscore >= PROVEN_ZSCORE
    if decision == "go" and not proven:
        remarks = support.told
    chances = () if short else (likely,)
    # Weightiest first: reasons for the estimate on "go", against it otherwise.
    remarks = (*chances, *remarks) if proven or decision == "go" else (*remarks, *chances)
    ground = quality.metres.predicted_rmse_m if quality.metres else math.nan
    return Verdict(
        decision, (*against, *remarks), probability, quality.predicted_rmse_px, ground, worst=quality.worst_place
    )


def judge_as_it_stands(verdict: Verdict, quality: Quality) -> Verdict:
    """The verdict on a pair as it stands, from that on the estimate of its displacement.

    Only a trusted estimate tells. "go" then needs a displacement of at most `ALIGNED_PX` and an estimate that is not
    expected to err by more; otherwise it becomes "review".

    Args:
        verdict: on the estimate.
        quality: its figures.
    """
    # The worst place is that of the estimate's error; here it would read as that of the misalignment.
    verdict = replace(verdict, worst="")
    if verdict.decision != "go":
        return verdict
    rms, error = quality.shift_before_px, quality.predicted_rmse_px
    if not rms <= ALIGNED_PX:
        reason = f"The images are {rms:.2f} px RMS apart; `somareg register` can align them."
    elif not error <= ALIGNED_PX:
        have = f"is {_apart(error, ALIGNED_PX, 2)[0]} px" if math.isfinite(error) else "is not known"
        reason = (
            f"The images seem to lie together to {rms:.2f} px RMS, but the expected error of this measurement {have}; "
            f"a go allows up to {ALIGNED_PX:g} px."
        )
    else:
        return replace(verdict, reasons=(f"The images lie together to {rms:.2f} px RMS.", *verdict.reasons))
    return replace(verdict, decision="review", reasons=(reason, *verdict.reasons))


def _short_of(probability: float, threshold: float, demand: float) -> tuple[str, ...]:
    """A sentence when a probability is too low for "go"."""
    needed = max(threshold, demand)
    if probability >= needed:
        return ()
    by = " (min_probability)" if demand > threshold else ""
    have, bar = _apart(100 * probability, 100 * needed, 0)
    return (f"The chance that the error is below 2 px is {have} %; a go needs {bar} %{by}.",)


def _too_far(quality: Quality, demands: Demands) -> tuple[str, ...]:
    """A sentence when the expected error exceeds the limit."""
    ground = quality.metres.predicted_rmse_m if quality.metres else math.nan
    limits = (
        (quality.predicted_rmse_px, demands.max_error_px, "px", "max_error"),
        (ground, demands.max_error_m, "m", "max_error_m"),
    )
    for error, limit, unit, option in limits:
        if limit is None or error <= limit:
            continue
        if not math.isfinite(error):
            return (f"The expected error is not known; a go allows up to {limit:g} {unit} ({option}).",)
        have, most = _apart(error, limit, 2 if error < 10 else 1)
        return (f"The expected error is {have} {unit}; a go allows up to {most} {unit} ({option}).",)
    return ()


def _doubts(support: Support, quality: Quality) -> tuple[str, ...]:
    """Doubts that forbid "go" regardless of the images' agreement."""
    doubts = list(support.doubts)
    if quality.folding > MAX_FOLDING:
        doubts.append(f"The displacement folds over itself on {quality.folding:.1%} of the image.")
    if quality.overlap < MIN_OVERLAP:
        doubts.append(f"Only {quality.overlap:.0%} of the smaller image is covered by the other one.")
    return tuple(doubts)


def _apart(value: float, bound: float, digits: int) -> tuple[str, str]:
    """Format a value and a bound with enough digits to show on which side of the bound the value lies."""
    bound_text = f"{bound:.6g}"
    for more in range(digits, 7):
        text = f"{value:.{more}f}"
        if float(text) != float(bound_text) and (float(text) < float(bound_text)) == (value < bound):
            return text, bound_text
    return repr(value), repr(bound)
