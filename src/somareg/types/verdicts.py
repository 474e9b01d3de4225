"""The verdict on an estimate, small enough to travel with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from somareg.types.kinds import Decision
from somareg.types.words import chance, metres, pixels


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision and its reasons, in plain words.

    Attributes:
        decision: "go" (use it), "review" (a person should look), "no-go" (do not use it).
        reasons: sentences, the most important first; () if a file states only the decision.
        probability: calibrated probability that the error is below 2 px, 0-1; NaN if it is not known.
        predicted_rmse_px, predicted_rmse_m: expected RMS error in reference pixels and metres; NaN on no-go, where no
            error can be told, and in metres where no CRS tells.
        worst: a sentence about the place where the largest error is expected, "" for none and on no-go.
    """

    decision: Decision
    reasons: tuple[str, ...]
    probability: float
    predicted_rmse_px: float = math.nan
    predicted_rmse_m: float = math.nan
    worst: str = ""

    def __post_init__(self) -> None:
        if self.decision == "no-go":  # a pair that is not aligned has no error to expect
            for name, nothing in (("predicted_rmse_px", math.nan), ("predicted_rmse_m", math.nan), ("worst", "")):
                object.__setattr__(self, name, nothing)

    @property
    def headline(self) -> str:
        """Decision, chance, expected error and the worst place in one line, the same in every output."""
        clauses = []
        if math.isfinite(self.probability):
            clauses.append(f"{chance(self.probability)} chance of an error below 2 px")
        if self.decision == "no-go":
            clauses.append("the error is not known")
        elif not math.isfinite(self.predicted_rmse_px):
            clauses.append("expected error not known")
        elif math.isfinite(self.predicted_rmse_m):
            clauses.append(f"expected error {metres(self.predicted_rmse_m)} ({pixels(self.predicted_rmse_px)})")
        else:
            clauses.append(f"expected error {pixels(self.predicted_rmse_px)}")
        line = f"{self.decision.capitalize()}: {'; '.join(clauses)}."
        return f"{line} {self.worst}" if self.worst else line
