"""The features that windows compare: orientation channels, or those of a network behind the same call."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.matching.steps import StepCfg
from somareg.types import Modality

Levels = dict[int, tuple[Tensor, Tensor]]
"""stride -> (features (1, K, H // stride, W // stride), validity (1, 1, ...))."""


class Describe(Protocol):
    """Turns an image into features.

    Attributes:
        strides: pixels per cell of its levels, finest first.
        steps: refinement steps that these features were trained for; None for untrained features.
    """

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def steps(self) -> tuple[StepCfg, ...] | None: ...

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        """Features of (1, C, H, W) normalised bands and a (1, 1, H, W) mask."""
        ...

    def temperature(self, stride: int) -> float | None:
        """Log-likelihood per unit of correlation at a stride; None for untrained features."""
        ...


class OrientationFeatures:
    """Orientation channels: one level, no training, the same for every modality."""

    def __init__(self, cfg: OrientationCfg) -> None:
        self.cfg = cfg

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.cfg.stride,)

    @property
    def steps(self) -> None:
        return None

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        return {self.cfg.stride: orientation_channels(image, mask, self.cfg)}

    def temperature(self, stride: int) -> float | None:
        return None
