"""`preprocess.normalise` for batches of 8-bit grey values on their device, so that training and registration agree."""

from __future__ import annotations

import torch
from torch import Tensor

from somareg.features.masks import is_readable
from somareg.types import Modality

_BINS = 2048
_TAIL = 1.8  # as in preprocess.sar.detect_scale
_OPTICAL_FLOOR = 0.05


@torch.no_grad()
def standardise(image: Tensor, mask: Tensor, modality: Modality) -> Tensor:
    """Robustly stretched bands with mean 0 and deviation 1 over the valid pixels, 0 elsewhere.

    Percentiles come from histograms of 2048 bins over each band's range, so they are right to a two-thousandth of it.
    Every band of SAR is judged by itself to be logarithmic or linear, while `normalise` judges all bands together.

    Args:
        image: (B, C, H, W) float32, grey values 0-255 that came from 8-bit images.
        mask: (B, 1, H, W) float32, 1 valid, 0 not.
        modality: SAR with the long tail of linear values goes through the logarithm; everything that is not SAR
            through a square root of its stretched range.

    Returns:
        (B, C, H, W) float32.
    """
    valid = mask > 0
    counts = _Counts(image, valid)
    low, high = counts.percentile(0.01), counts.percentile(0.99)
    lowest, highest = counts.low, counts.high
    if modality == "sar":
        floor = counts.tail_floor()
        # The logarithm is monotone: percentiles pass through it. Bands that are logarithmic already stay as they are.
        linear = counts.has_tail()
        low, high, lowest, highest = (torch.where(linear, (t + floor).log(), t) for t in (low, high, lowest, highest))
        if not is_readable(linear) or bool(linear.any()):
            image = torch.where(linear, (image + floor).log(), image)
    flat = high <= low
    low, high = torch.where(flat, lowest, low), torch.where(flat, highest, high)
    stretched = ((image - low) / (high - low).clamp_min(1e-6)).clamp_(0.0, 1.0)
    if modality != "sar":
        stretched = (stretched + _OPTICAL_FLOOR).sqrt_()
    return _whiten(stretched, mask) * (high > low)


def _whiten(image: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the mask, 0 outside of it."""
    count = mask.sum((-2, -1), keepdim=True).clamp_min(1.0)
    centred = (image - (image * mask).sum((-2, -1), keepdim=True) / count) * mask
    deviation = (centred.square().sum((-2, -1), keepdim=True) / count).sqrt()
    return centred / deviation.clamp_min(1e-6)


class _Counts:
    """Cumulative histogram of the valid values of every band.

    Attributes:
        low, high: (B, C, 1, 1) smallest and largest valid value; 0 where a band has none.
    """

    def __init__(self, image: Tensor, valid: Tensor) -> None:
        values = image.flatten(2)
        weight = valid.flatten(2).expand_as(values)
        some = weight.any(-1, keepdim=True)
        low = torch.where(weight, values, torch.inf).amin(-1, keepdim=True)
        high = torch.where(weight, values, -torch.inf).amax(-1, keepdim=True)
        low, high = torch.where(some, low, 0.0), torch.where(some, high, 0.0)
        self._step = (high - low).clamp_min(1e-6) / (_BINS - 1)
        self._place = ((values - low) / self._step).round_().clamp_(0, _BINS - 1).long()
        counts = values.new_zeros(*values.shape[:2], _BINS)
        self._below = counts.scatter_add_(2, self._place, weight.to(values.dtype)).cumsum(2)
        self._positive = (weight & (values >= 0.5)).sum(-1, keepdim=True).to(values.dtype)
        self.low, self.high = low[..., None], high[..., None]

    def percentile(self, share: float) -> Tensor:
        """(B, C, 1, 1) value below which `share` of the valid values lie."""
        return self._value((self._below[..., -1:] - 1).clamp_min(0) * share)

    def tail_floor(self) -> Tensor:
        """(B, C, 1, 1) second percentile of the values that 8 bits hold as positive; 1 where there are none."""
        rank = self._below[..., -1:] - self._positive + 0.02 * (self._positive - 1)
        return torch.where(self._positive[..., None] > 0, self._value(rank), 1.0).clamp_min(1e-3)

    def has_tail(self) -> Tensor:
        """(B, C, 1, 1) bool, the rule of `detect_scale` for integers: linear SAR has a long tail."""
        low, middle, high = (self.percentile(share) for share in (0.05, 0.5, 0.95))
        return high - middle >= _TAIL * (middle - low).clamp_min(1e-9)

    def _value(self, rank: Tensor) -> Tensor:
        """Value of that rank (0 the smallest), from the first bin whose cumulative count exceeds it."""
        at = torch.searchsorted(self._below, rank, right=True).clamp_max(_BINS - 1)
        return self.low + (at * self._step)[..., None]
