"""somareg itself, through the public call: the weight-free engine, or a trained network."""

from __future__ import annotations

from pathlib import Path

import somareg
from somareg.config import Preset, Search
from somareg.errors import EstimationError
from somareg.lab.evaluate.peers.base import SAR_OPTICAL, ByteImage, Known, Prediction
from somareg.register.choose import AUTO, WEIGHT_FREE
from somareg.soma.weights import DEFAULT_WEIGHTS, read_card, resolve


class Registered:
    """`somareg.register` with a model; any rotation is searched at level R only.

    Args:
        model: as for `somareg.register`, by name, so that it fails instead of falling back.
        preset: see `RegisterConfig`.
        name: of the method; without it the model's, a file's without folder and ending.
        dinov2: as for `somareg.register`; only a model that needs one is given it.

    Attributes:
        network: None for the weight-free engine.
        parameters: number of trained values.
        weights: SHA-256 of their file, None without.

    Raises:
        ConfigError, WeightsError: see `somareg.load_model`.
    """

    def __init__(self, model: str, preset: Preset = "base", name: str | None = None, dinov2: str | None = None) -> None:
        self.model, self.preset = model, preset
        self.dinov2 = None if dinov2 is None or read_card(resolve(model)).dinov2_settings is None else dinov2
        self.name = name or Path(model).stem
        self.network = somareg.load_model(model, dinov2=self.dinov2)
        self.parameters = 0 if self.network is None else self.network.parameter_count
        self.weights = None if self.network is None else read_card(resolve(model)).sha256

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        search: Search = "full" if level == "R" else "auto"
        modalities = known.moving_modality, known.reference_modality
        ships = self.model == DEFAULT_WEIGHTS  # where the weights do not apply, "auto" decides as for a user
        try:
            result = somareg.register(
                moving,
                reference,
                moving_mask=known.moving_mask,
                reference_mask=known.reference_mask,
                moving_modality=modalities[0],
                reference_modality=modalities[1],
                model=AUTO if ships and set(modalities) != {"sar", "optical"} else self.model,
                dinov2=self.dinov2,
                search=search,
                preset=self.preset,
                seed=seed,
            )
        except EstimationError:
            return Prediction(None, confidence=0.0, decision="no-go")
        return Prediction(
            result.displacement.array,
            confidence=result.verdict.probability,
            decision=result.verdict.decision,
            predicted_rmse=result.predicted_rmse_px,
        )


def orientation() -> Registered:
    """The weight-free engine."""
    return Registered(WEIGHT_FREE)


def ours() -> Registered:
    """The shipped weights, as `register` uses them by default."""
    return Registered(DEFAULT_WEIGHTS, name="ours")


def ours_fast() -> Registered:
    """The shipped weights, preset "fast"."""
    return Registered(DEFAULT_WEIGHTS, "fast", "ours-fast")


def ours_precise() -> Registered:
    """The shipped weights, preset "precise"."""
    return Registered(DEFAULT_WEIGHTS, "precise", "ours-precise")
