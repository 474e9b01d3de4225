"""somareg's own weight-free engine, through the public call."""

from __future__ import annotations

import somareg
from somareg.config import Preset, Search
from somareg.errors import EstimationError
from somareg.lab.evaluate.peers.base import ByteImage, Prediction


class Orientation:
    """`somareg.register(model="orientation")`; searches any rotation only at level R.

    Args:
        preset: see `RegisterConfig`.
    """

    name = "orientation"

    def __init__(self, preset: Preset = "base") -> None:
        self.preset = preset

    def __call__(self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int) -> Prediction:
        search: Search = "full" if level == "R" else "auto"
        try:
            result = somareg.register(
                moving, reference, model="orientation", search=search, preset=self.preset, seed=seed
            )
        except EstimationError:
            return Prediction(None, confidence=0.0, decision="no-go")
        return Prediction(
            result.displacement.array,
            confidence=result.verdict.probability,
            decision=result.verdict.decision,
            predicted_rmse=result.predicted_rmse_px,
        )
