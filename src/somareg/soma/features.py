"""The network's encoder as features for window correlation, see `somareg.matching.describe`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from somareg.matching.describe import Levels
from somareg.matching.steps import StepCfg
from somareg.soma.encoder import MIN_SIDE
from somareg.soma.network import Soma
from somareg.types import Modality


class LearnedFeatures:
    """The network's encoder with its FGE.

    Args:
        network: the network; GLAM's stages define which levels are computed and how they are compared.
    """

    def __init__(self, network: Soma) -> None:
        self.network = network
        self._steps = tuple(stage.step for stage in network.cfg.glam.stages for _ in range(stage.iterations))
        self._strides = tuple(sorted({stage.stride for stage in network.cfg.glam.stages}))

    @property
    def strides(self) -> tuple[int, ...]:
        return self._strides

    @property
    def steps(self) -> tuple[StepCfg, ...]:
        return self._steps

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        height, width = image.shape[-2:]
        # A reduced strip can be narrower than the network's least side: it is padded with pixels that are masked out.
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
