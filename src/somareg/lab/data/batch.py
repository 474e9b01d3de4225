"""The batch of a training step: pairs of images with their exact truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.types import Modality


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """B pairs of S x S images whose geometry is known: `moving <- truth ∘ (x + flow(x))`.

    Attributes:
        reference: (B, C, S, S) float32.
        reference_mask: (B, 1, S, S) float32, 1 valid, 0 not.
        moving: (B, C2, S, S) float32.
        moving_mask: (B, 1, S, S) float32.
        truth: (B, 2, 3) float32 affine, reference pixel centres -> moving pixel centres.
        flow: (B, 2, S, S) float32 smooth displacement (dx, dy) on the reference grid, pixels, applied before `truth`;
            it has no affine part. None when all pairs of the batch are affine.
        modalities: of reference and moving.
    """

    reference: Tensor
    reference_mask: Tensor
    moving: Tensor
    moving_mask: Tensor
    truth: Tensor
    flow: Tensor | None
    modalities: tuple[Modality, Modality]

    def __len__(self) -> int:
        return int(self.reference.shape[0])

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on another device."""
        return PairBatch(
            reference=self.reference.to(device),
            reference_mask=self.reference_mask.to(device),
            moving=self.moving.to(device),
            moving_mask=self.moving_mask.to(device),
            truth=self.truth.to(device),
            flow=None if self.flow is None else self.flow.to(device),
            modalities=self.modalities,
        )

    def displacement(self) -> Tensor:
        """(B, 2, S, S) true displacement of every reference pixel, `moving_xy - reference_xy`, pixels."""
        height, width = self.reference.shape[-2:]
        device, dtype = self.truth.device, self.truth.dtype
        y, x = torch.meshgrid(
            torch.arange(height, device=device, dtype=dtype),
            torch.arange(width, device=device, dtype=dtype),
            indexing="ij",
        )
        dx, dy = (self.flow[:, 0], self.flow[:, 1]) if self.flow is not None else (x.new_zeros(1), x.new_zeros(1))
        # (truth - identity) first: no cancellation between large coordinates
        change = (self.truth - torch.eye(2, 3, device=device, dtype=dtype))[..., None, None]
        u, v = x + dx, y + dy
        return torch.stack(
            [
                change[:, 0, 0] * u + change[:, 0, 1] * v + change[:, 0, 2] + dx,
                change[:, 1, 0] * u + change[:, 1, 1] * v + change[:, 1, 2] + dy,
            ],
            dim=1,
        )
