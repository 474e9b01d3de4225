"""Summary of one method's records on one set and level."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from somareg.lab.evaluate import metrics
from somareg.types import FloatArray

Record = dict[str, Any]
Summary = dict[str, Any]


def summarise(records: Sequence[Record], quoted_from: float | None = 0.0) -> Summary:
    """Figures of one method on one set and level.

    Args:
        records: one per pair.
        quoted_from: the smallest threshold that the labels allow. A "go" is right below it, and below 2 px at least.
            None: there are no labels, and figures that need one are None.

    Returns:
        n; cmr (threshold -> share) and cmr_interval (threshold -> 95 % interval); median_px; auc (0-5 px); left, where
        there is a warp (correlation length -> median RMSE as a share of the warp's RMS); auroc_2px and auroc_3px of
        the confidence (None where undefined); go, go_of_good, false_go (None without decisions);
        predicted_within_2x among "go" pairs; seconds_median; failures (no estimate); peak_memory_mb.
    """
    if quoted_from is None:
        return _without_labels(records)
    rmses = np.array([record["rmse_px"] for record in records], float)
    places = _places(records)
    go = [r for r in records if r["decision"] == "go" and r["predicted_rmse_px"] is not None]
    decisions = [record["decision"] for record in records]
    rates = metrics.go_rates(decisions, rmses, good_px=max(2.0, quoted_from)) or {}
    return {
        "n": len(records),
        "cmr": {f"{k:g}": metrics.cmr(rmses, k) for k in metrics.THRESHOLDS},
        "cmr_interval": {f"{k:g}": metrics.cmr_interval(rmses, k, places) for k in metrics.THRESHOLDS},
        "median_px": float(np.median(rmses)),
        "auc": metrics.auc(rmses),
        "left": _left(records),
        "auroc_2px": _auroc(records, rmses, 2.0),
        "auroc_3px": _auroc(records, rmses, 3.0),
        "go": rates.get("go"),
        "go_of_good": rates.get("go_of_good"),
        "false_go": rates.get("false_go"),
        "predicted_within_2x": metrics.within_factor(
            np.array([r["predicted_rmse_px"] for r in go]), np.array([r["rmse_px"] for r in go])
        ),
        "seconds_median": _seconds(records),
        "failures": int(np.isinf(rmses).sum()),
        "peak_memory_mb": peak_memory_mb(),
    }


def _without_labels(records: Sequence[Record]) -> Summary:
    decisions = [record["decision"] for record in records if record["decision"] is not None]
    return {
        "n": len(records),
        **dict.fromkeys(("cmr", "cmr_interval", "median_px", "auc", "left", "auroc_2px", "auroc_3px")),
        "go": decisions.count("go") / len(records) if decisions else None,
        **dict.fromkeys(("go_of_good", "false_go", "predicted_within_2x", "failures")),
        "seconds_median": _seconds(records),
        "peak_memory_mb": peak_memory_mb(),
    }


def _left(records: Sequence[Record]) -> dict[str, float] | None:
    """Correlation length -> median remaining share of the warp; None without warps."""
    shares: dict[float, list[float]] = {}
    for record in records:
        if "warp_px" in record:
            shares.setdefault(record["warp_length_px"], []).append(record["rmse_px"] / record["warp_px"])
    return {f"{length:g}": float(np.median(shares[length])) for length in sorted(shares)} or None


def _seconds(records: Sequence[Record]) -> float:
    return float(np.median([record["seconds"] for record in records]))


def _places(records: Sequence[Record]) -> list[str]:
    """Units of the bootstrap: places, or pairs when there are too few places."""
    groups = [record["group"] for record in records]
    return groups if len(set(groups)) >= metrics.MIN_GROUPS else [record["pair"] for record in records]


def _auroc(records: Sequence[Record], rmses: FloatArray, good_px: float) -> float | None:
    scores = [record["confidence"] for record in records]
    if any(score is None for score in scores):
        return None
    return metrics.auroc(np.array(scores, float), rmses < good_px)


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far (all methods run in it so far), MB; None where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
