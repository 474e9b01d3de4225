"""The verdict as tags of a raster and attributes of a DataArray, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from somareg.types import Decision, Verdict

VERDICT_TAG = "SOMAREG_VERDICT"

_FIGURES = {
    "SOMAREG_PROBABILITY": "probability",
    "SOMAREG_PREDICTED_RMSE_PX": "predicted_rmse_px",
    "SOMAREG_PREDICTED_RMSE_M": "predicted_rmse_m",
}


def verdict_tags(verdict: Verdict | None) -> dict[str, str]:
    """Tags for decision, probability and expected error; unknown figures have no tag."""
    if verdict is None:
        return {}
    figures = {tag: getattr(verdict, name) for tag, name in _FIGURES.items()}
    return {VERDICT_TAG: verdict.decision, **{tag: f"{v:.6g}" for tag, v in figures.items() if math.isfinite(v)}}


def verdict_attributes(verdict: Verdict | None) -> dict[str, Any]:
    """The same as attributes of a DataArray, such as `somareg_predicted_rmse_px`."""
    tags = verdict_tags(verdict)
    return {tag.lower(): text if tag == VERDICT_TAG else float(text) for tag, text in tags.items()}


def without_verdict(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the verdict of an earlier registration from the tags or attributes of a raster."""
    own_tags = {VERDICT_TAG, *_FIGURES}
    return {name: value for name, value in metadata.items() if str(name).upper() not in own_tags}


def verdict_of_tags(tags: Mapping[str, str]) -> Verdict | None:
    """The inverse of `verdict_tags`, which holds neither reasons nor the worst place.

    Raises:
        ValueError: malformed.
    """
    decision: Any = tags.get(VERDICT_TAG)
    if decision is None:
        return None
    if decision not in get_args(Decision):
        raise ValueError("no verdict")
    figures = {name: float(tags.get(tag, "nan")) for tag, name in _FIGURES.items()}
    if not all(math.isnan(value) or value >= 0 for value in figures.values()) or figures["probability"] > 1:
        raise ValueError("no probability or no error")
    return Verdict(decision, (), figures["probability"], figures["predicted_rmse_px"], figures["predicted_rmse_m"])
