"""From evidence to a probability and a predicted error: coefficients fitted on pairs whose truth is known.

The same evidence has another meaning for each engine, so each has its own. `somareg eval --verdict` fits them;
the figures are in benchmarks/calibration.md.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from somareg.errors import ConfigError
from somareg.matching.engine import Alignment
from somareg.quality.error_map import LocalModel
from somareg.quality.signs import SIGNS, figures_of, vector

Engine = Literal["orientation", "learned"]
"""The engine that a calibration is for: weight-free, or with a network."""


@dataclass(frozen=True)
class Calibration:
    """Fitted coefficients.

    Attributes:
        success: weights of a logistic model of "error below 2 px", the intercept last.
        error: weights of a linear model of log(RMSE in working pixels), the intercept last.
        go, review: probabilities from which the verdict is "go" or "review".
        ce90_per_rmse: ratio of CE90 to predicted RMSE that 9 of 10 pairs do not exceed.
        weights: SHA-256 of the network's weights during the fit; None without a network.
        local: model of the error from place to place.
    """

    success: tuple[float, ...]
    error: tuple[float, ...]
    go: float
    review: float
    ce90_per_rmse: float
    weights: str | None = None
    local: LocalModel = field(default_factory=LocalModel)

    def probability(self, alignment: Alignment) -> float:
        """Calibrated probability that the error is below 2 px, 0-1."""
        if alignment.failure:
            return 0.0
        logit = float(np.dot(self.success, [*vector(figures_of(alignment)), 1.0]))
        return 1.0 / (1.0 + math.exp(-min(max(logit, -30.0), 30.0)))

    def predict_rmse(self, alignment: Alignment, factor: int) -> float:
        """Predicted RMSE, reference pixels; inf when nothing was estimated."""
        if alignment.failure:
            return math.inf
        logarithm = float(np.dot(self.error, [*vector(figures_of(alignment)), 1.0]))
        return math.exp(min(max(logarithm, math.log(0.1)), math.log(200.0))) * factor


@lru_cache(maxsize=2)
def load_calibration(engine: Engine) -> Calibration:
    """The calibration that ships with the package for an engine.

    Raises:
        ConfigError: it was fitted to other features than this version computes.
    """
    record = _record(engine)
    if record["signs"] != list(SIGNS):
        raise ConfigError(f"calibration-{engine}.json weighs other signs than this version reads; fit it anew")
    success, error = tuple(record["success"]), tuple(record["error"])
    local = LocalModel(*record.get("local", ()))
    return Calibration(
        success, error, record["go"], record["review"], record["ce90_per_rmse"], record["weights"], local
    )


def calibrated_weights(engine: Engine) -> str | None:
    """SHA-256 of the weights for which the engine's calibration was fitted; None without a network."""
    weights: str | None = _record(engine)["weights"]
    return weights


def _record(engine: Engine) -> dict[str, Any]:
    text = files("somareg.quality").joinpath(f"calibration-{engine}.json").read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text)
    return record
