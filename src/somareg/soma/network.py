"""SOMA's network: encoder with FGE, then GLAM."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from somareg.matching.affine import apply_affine_batch, compose_batch
from somareg.matching.matcher import ROOM_PX
from somareg.matching.warping import pixel_grid, sample
from somareg.soma.encoder import Encoded, Encoder, EncoderCfg
from somareg.soma.glam.matcher import Glam, GlamCfg, GlamOutput
from somareg.soma.pyramid import STRIDES
from somareg.types import Modality

MORE_PX = 8  # around a moving image that is encoded again, beyond the windows' search margin


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
        """Number of trained parameters."""
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
            start: (B, 2, 3) prior affine (reference pixels -> moving pixels); it replaces the coarse fit.
            rewarp: encode the moving image again under the affine that the stages start from.
        """
        encoded_reference = self.encode(reference, reference_mask, modalities[0])
        encoded_moving = self.encode(moving, moving_mask, modalities[1])
        shape = (reference.shape[-2], reference.shape[-1])

        def again(affine: Tensor) -> tuple[Encoded, Tensor]:
            margin = max(stage.window.margin * stage.stride for stage in self.cfg.glam.stages)
            room = -(-max(margin + MORE_PX, ROOM_PX) // STRIDES[-1]) * STRIDES[-1]  # as `Matcher` keeps
            grid = pixel_grid(*shape, room, affine.device).expand(len(affine), -1, -1, -1)
            image, seen = sample(moving, moving_mask, apply_affine_batch(affine, grid))
            corner = torch.tensor([[1.0, 0.0, -room], [0.0, 1.0, -room]], dtype=affine.dtype).to(affine.device)
            return self.encode(image, seen, modalities[1]), compose_batch(affine, corner.expand_as(affine))

        output: GlamOutput = self.glam(encoded_reference, encoded_moving, start=start, rewarp=again if rewarp else None)
        return output

    @torch.no_grad()
    def temperature(self, stride: int) -> float:
        """Log-likelihood per unit of window correlation at the stride of a stage, as trained."""
        return float(self.glam.temperature(stride))
