"""SOMA's network: encoder with FGE, then GLAM."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from somareg.soma.encoder import Encoded, Encoder, EncoderCfg
from somareg.soma.glam.affine_flow import AffineFlowStage, warp_features
from somareg.soma.glam.matcher import Glam, GlamCfg, GlamOutput
from somareg.soma.pyramid import STRIDES
from somareg.types import Modality


@dataclass(frozen=True)
class NetworkCfg:
    """Settings of the network.

    Attributes:
        encoder: features.
        glam: matching.
    """

    encoder: EncoderCfg = field(default_factory=EncoderCfg)
    glam: GlamCfg = field(default_factory=GlamCfg)


class Soma(nn.Module):
    """Encoder and matcher.

    Args:
        cfg: settings.
    """

    def __init__(self, cfg: NetworkCfg | None = None) -> None:
        super().__init__()
        self.cfg = cfg or NetworkCfg()
        self.encoder = Encoder(self.cfg.encoder)
        self.glam = Glam(self.cfg.encoder.outputs, self.cfg.glam)

    @property
    def parameter_count(self) -> int:
        """Trained numbers."""
        return sum(p.numel() for p in self.parameters())

    def encode(self, image: Tensor, mask: Tensor, modality: Modality, strides: tuple[int, ...] = STRIDES) -> Encoded:
        """Features of a batch of images, see `Encoder.forward`."""
        encoded: Encoded = self.encoder(image, mask, modality, strides)
        return encoded

    def forward(
        self,
        reference: Tensor,
        reference_mask: Tensor,
        moving: Tensor,
        moving_mask: Tensor,
        modalities: tuple[Modality, Modality],
        *,
        start: Tensor | None = None,
        rewarp: bool = False,
    ) -> GlamOutput:
        """Match a batch of pairs.

        Args:
            reference, moving: (B, C, H, W) normalised images, at least 64 px; the two may differ in size.
            reference_mask, moving_mask: (B, 1, H, W).
            modalities: of reference and moving.
            start: (B, 2, 3) affine known before (reference pixels -> moving pixels); it replaces the coarse fit.
            rewarp: encode the moving image again under the affine that the stages start with.
        """
        encoded_reference = self.encode(reference, reference_mask, modalities[0])
        encoded_moving = self.encode(moving, moving_mask, modalities[1])
        shape = (reference.shape[-2], reference.shape[-1])

        def again(affine: Tensor) -> Encoded:
            image, seen = warp_features(moving, moving_mask, affine, shape, 0, 1)
            return self.encode(image, seen, modalities[1])

        output: GlamOutput = self.glam(encoded_reference, encoded_moving, start=start, rewarp=again if rewarp else None)
        return output

    @torch.no_grad()
    def temperature(self, stride: int) -> float:
        """Log-likelihood per unit of window correlation at a stride, as trained."""
        for stage in self.glam.stages:
            assert isinstance(stage, AffineFlowStage)
            if stage.cfg.stride == stride:
                return float(stage.log_temperature.exp())
        raise KeyError(stride)
