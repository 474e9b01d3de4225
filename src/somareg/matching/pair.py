"""The two images as the matcher sees them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from somareg.matching.warping import reduce
from somareg.types import Modality


@dataclass(frozen=True, eq=False)
class Pair:
    """Normalised images and masks; the two may differ in size and number of bands.

    Attributes:
        reference, moving: (1, C, H, W) float32 of comparable contrast (see `preprocess`).
        reference_mask, moving_mask: (1, 1, H, W) float32, 1 valid, 0 not.
        modalities: of reference and moving.
    """

    reference: Tensor
    reference_mask: Tensor
    moving: Tensor
    moving_mask: Tensor
    modalities: tuple[Modality, Modality] = ("other", "other")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the reference."""
        return self.reference.shape[-2], self.reference.shape[-1]

    def reduced(self, factor: int) -> Pair:
        """Both images averaged over `factor` x `factor` pixels."""
        if factor == 1:
            return self
        reference, reference_mask = reduce(self.reference, self.reference_mask, factor)
        moving, moving_mask = reduce(self.moving, self.moving_mask, factor)
        return Pair(reference, reference_mask, moving, moving_mask, self.modalities)

    def swapped(self) -> Pair:
        """The pair with the roles exchanged."""
        backwards = (self.modalities[1], self.modalities[0])
        return Pair(self.moving, self.moving_mask, self.reference, self.reference_mask, backwards)
