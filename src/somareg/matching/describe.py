"""What the windows compare: orientation channels or learned features, behind one call."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.features.encoder import Encoded
from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.matching.network import Soma
from somareg.types import Modality

Levels = dict[int, tuple[Tensor, Tensor]]
"""stride -> (features (1, K, H // stride, W // stride), validity (1, 1, ...))."""


class Describe(Protocol):
    """Turns an image into features.

    Attributes:
        strides: pixels per cell of the levels it gives, finest first.
    """

    @property
    def strides(self) -> tuple[int, ...]: ...

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        """Features of (1, C, H, W) normalised bands and a (1, 1, H, W) mask."""
        ...

    def temperature(self, stride: int) -> float | None:
        """Log-likelihood per unit of correlation at a stride; None where nothing was trained."""
        ...


class OrientationFeatures:
    """Orientation channels: one level, no training, the same for every modality."""

    def __init__(self, cfg: OrientationCfg) -> None:
        self.cfg = cfg

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.cfg.stride,)

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        return {self.cfg.stride: orientation_channels(image, mask, self.cfg)}

    def temperature(self, stride: int) -> float | None:
        return None


LOCAL_CELLS = 15  # side of the neighbourhood whose mean is taken out of learned features


class LearnedFeatures:
    """The network's encoder with its FGE, at every stride that its matcher has a stage for.

    Args:
        network: trained.
        detail: take out what is smooth over a neighbourhood, for searching far. Training looks at displacements of a
            few cells, between which smooth features hardly differ: nothing teaches them to be right farther away, where
            they outvote the others. Close to the truth they help.
    """

    def __init__(self, network: Soma, detail: bool = False) -> None:
        self.network, self.detail = network, detail
        self._strides = tuple(sorted({stage.stride for stage in network.cfg.glam.stages}))

    @property
    def strides(self) -> tuple[int, ...]:
        return self._strides

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        return self.levels(self.network.encode(image, mask, modality))

    def levels(self, encoded: Encoded) -> Levels:
        """What the windows need of encoded images."""
        keep = _detail if self.detail else torch.mul
        return {s: (keep(encoded.pyramid[s].float(), encoded.valid[s]), encoded.valid[s]) for s in self._strides}

    def temperature(self, stride: int) -> float | None:
        return self.network.temperature(stride)


def _detail(features: Tensor, valid: Tensor) -> Tensor:
    """Features (B, K, h, w) minus their mean over the valid cells nearby; 0 where not valid."""
    half, seen = LOCAL_CELLS // 2, features * valid

    def mean(x: Tensor) -> Tensor:
        rows = F.avg_pool2d(x, (LOCAL_CELLS, 1), 1, (half, 0))
        return F.avg_pool2d(rows, (1, LOCAL_CELLS), 1, (0, half))

    return (features - mean(seen) / mean(valid).clamp_min(1e-3)) * valid
