"""somareg itself, through the public call: the weight-free engine, or a trained network."""

from __future__ import annotations

from pathlib import Path

import somareg
from somareg.config import Preset, Search
from somareg.errors import EstimationError
from somareg.lab.evaluate.peers.base import ByteImage, Prediction


class Registered:
    """`somareg.register` with a model; searches any rotation only at level R.

    Args:
        model: as for `somareg.register`.
        preset: see `RegisterConfig`.

    Attributes:
        name: the model's, a file's without folder and ending.
        network: None for the weight-free engine.
        parameters: numbers that were trained.

    Raises:
        ConfigError, WeightsError: see `somareg.load_model`.
    """

    def __init__(self, model: str, preset: Preset = "base") -> None:
        self.model, self.preset = model, preset
        self.name = Path(model).stem
        self.network = somareg.load_model(model)
        self.parameters = 0 if self.network is None else self.network.parameter_count

    def __call__(self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int) -> Prediction:
        search: Search = "full" if level == "R" else "auto"
        try:
            result = somareg.register(moving, reference, model=self.model, search=search, preset=self.preset, seed=seed)
        except EstimationError:
            return Prediction(None, confidence=0.0, decision="no-go")
        return Prediction(
            result.displacement.array,
            confidence=result.verdict.probability,
            decision=result.verdict.decision,
            predicted_rmse=result.predicted_rmse_px,
        )


class Orientation(Registered):
    """The weight-free engine."""

    def __init__(self, preset: Preset = "base") -> None:
        super().__init__("orientation", preset)
