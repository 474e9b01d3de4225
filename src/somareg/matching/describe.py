"""What the windows compare: orientation channels or learned features, behind one call."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from somareg.features.encoder import MIN_SIDE
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


class LearnedFeatures:
    """The network's encoder with its FGE.

    Args:
        network: the network.
        strides: that are asked for beside the finest; None for every one that its matcher has a stage for.
    """

    def __init__(self, network: Soma, strides: frozenset[int] | None = None) -> None:
        self.network = network
        trained = {stage.stride for stage in network.cfg.glam.stages}
        self._strides = tuple(sorted(trained if strides is None else {min(trained)} | trained & strides))

    @property
    def strides(self) -> tuple[int, ...]:
        return self._strides

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        height, width = image.shape[-2:]
        # A strip is narrow where votes look at it reduced: the network gets its size in pixels that it knows are none.
        room = [0, max(0, MIN_SIDE - width), 0, max(0, MIN_SIDE - height)]
        encoded = self.network.encode(F.pad(image, room), F.pad(mask, room), modality, self._strides)
        levels = {}
        for s in self._strides:
            features, valid = (
                each[..., : height // s, : width // s] for each in (encoded.pyramid[s], encoded.valid[s])
            )
            levels[s] = features.float() * valid, valid
        return levels

    def temperature(self, stride: int) -> float | None:
        return self.network.temperature(stride)
