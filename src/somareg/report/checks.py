"""What each quality figure means and which values are usual for a good alignment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["good", "fair", "poor", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table of checks.

    Attributes:
        key: name in `Quality`.
        label: what a reader calls it.
        unit: "px", "%" (the value is a share 0-1), or "".
        meaning: one sentence.
        good, fair: bounds of a usual good and of a still acceptable value.
        higher_is_better: which side of the bounds is good.
    """

    key: str
    label: str
    unit: str
    meaning: str
    good: float
    fair: float
    higher_is_better: bool

    def state(self, value: float | None) -> State:
        """Where a value lies."""
        if value is None or not math.isfinite(value):
            return "unknown"
        if self.higher_is_better:
            return "good" if value >= self.good else "fair" if value >= self.fair else "poor"
        return "good" if value <= self.good else "fair" if value <= self.fair else "poor"

    @property
    def good_range(self) -> str:
        """The good side of the bound in words, "at least 50 %"."""
        number = f"{100 * self.good:g} %" if self.unit == "%" else f"{self.good:g} {self.unit}".strip()
        if self.good == 0:
            return "none"
        return f"{'at least' if self.higher_is_better else 'at most'} {number}"


CHECKS = (
    Check(
        "predicted_rmse_px",
        "Predicted error",
        "px",
        "Expected RMS distance between the aligned image and the truth, calibrated on pairs with known truth.",
        1.0,
        2.0,
        False,
    ),
    Check(
        "predicted_ce90_px",
        "Predicted CE90",
        "px",
        "Radius expected to hold 90 % of the remaining errors.",
        1.5,
        3.0,
        False,
    ),
    Check("n_points", "Tie points", "", "Windows where both images could be matched.", 30, 12, True),
    Check(
        "inlier_ratio",
        "Inliers",
        "%",
        "Share of the tie points, by weight, that agree with one common transform.",
        0.5,
        0.3,
        True,
    ),
    Check(
        "coverage",
        "Coverage",
        "%",
        "Share of the overlap that holds an agreeing point; elsewhere the transform is extrapolated.",
        0.5,
        0.25,
        True,
    ),
    Check(
        "residual_median_px",
        "Median residual",
        "px",
        "Typical distance between an agreeing point and the final transform; includes the noise of the point itself.",
        1.0,
        2.0,
        False,
    ),
    Check(
        "peak_zscore",
        "Peak height",
        "",
        "Mean height of the windows' correlation at the estimate, in deviations of its background. "
        "Unrelated images rarely reach 2.",
        2.5,
        2.0,
        True,
    ),
    Check(
        "hit_ratio",
        "Windows that agree by themselves",
        "%",
        "Share of windows whose own best match agrees with the estimate; about 10 % agree by chance.",
        0.8,
        0.6,
        True,
    ),
    Check(
        "peak_sharpness",
        "Peak uniqueness",
        "",
        "Correlation at the estimate against its best value elsewhere: 0 when they tie, 1 when there is no other.",
        0.7,
        0.55,
        True,
    ),
    Check(
        "forward_backward_px",
        "Forward–backward",
        "px",
        "RMS disagreement when the two images swap roles.",
        1.0,
        2.0,
        False,
    ),
    Check(
        "split_half_px",
        "Split half",
        "px",
        "RMS disagreement between transforms fitted to two halves of the points.",
        1.0,
        2.0,
        False,
    ),
    Check(
        "similarity_gain",
        "Similarity gain",
        "",
        "Rise of the structural similarity of the two images, from before to after.",
        0.01,
        -0.002,
        True,
    ),
    Check("overlap", "Overlap", "%", "Share of the reference that valid moving pixels cover.", 0.5, 0.1, True),
    Check("folding", "Folding", "%", "Share of pixels where the map folds over itself.", 0.0, 0.001, False),
)


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A check with its value, ready to print."""

    check: Check
    value: str
    detail: str
    state: State


def check_rows(quality: Mapping[str, Any]) -> list[CheckRow]:
    """Rows of the table.

    Args:
        quality: the `quality` of a record; None where nothing was measured.
    """
    before, after = quality.get("similarity_before"), quality.get("similarity_after")
    values = dict(quality)
    values["similarity_gain"] = None if before is None or after is None else after - before
    detail = {"similarity_gain": "" if before is None or after is None else f"{before:.3f} to {after:.3f}"}
    return [
        CheckRow(
            check, _show(values.get(check.key), check), detail.get(check.key, ""), check.state(values.get(check.key))
        )
        for check in CHECKS
    ]


def _show(value: float | None, check: Check) -> str:
    if value is None:
        return "–" if check.key.startswith("predicted_") else "not measured"
    if check.unit == "%":
        digits = 0 if value == 0 or value >= 0.1 else 1 if value >= 0.001 else 3
        return f"{100 * value:.{digits}f} %"
    if check.unit == "px":
        return f"{value:.2f} px"
    if check.key == "n_points":
        return f"{value:.0f}"
    return f"{value:+.3f}" if check.key == "similarity_gain" else f"{value:.2f}"
