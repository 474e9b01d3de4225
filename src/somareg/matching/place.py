"""Find a small image in a large one without prior knowledge: correlate the whole small image with every place.

The search votes with small windows, and among very many places a small window has many false matches. The whole small
image is more distinctive, so it is correlated whole: by its orientation channels, at low resolution, with the rotations
and scales of the search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.geometry import AffineTransform
from somareg.matching.warping import warp_to_reference

CHANNELS = OrientationCfg()
MIN_SEEN = 0.55  # share of the small image that must be covered by valid pixels of the large one
RIVAL_CELLS = 8.0  # places further away than this are rivals
CLEAR, CLEARER = 9.0, 1.3  # height and ratio to the best rival from which no other rotation and scale is tried


@dataclass(frozen=True, eq=False)
class Place:
    """Where a small image lies.

    Attributes:
        transform: small pixels -> large pixels.
        height: of the correlation there above the mean of all places, in their standard deviations.
        rival: height of the best place elsewhere.
    """

    transform: AffineTransform
    height: float
    rival: float


@torch.inference_mode()
def find_place(
    small: tuple[Tensor, Tensor], large: tuple[Tensor, Tensor], turns: Sequence[tuple[float, float]]
) -> Place:
    """The place where a small image is most similar to a part of a large one, over whose edges it may reach.

    Args:
        small, large: normalised images (1, C, H, W) and masks (1, 1, H, W) of equal pixel size.
        turns: (rotation in degrees, scale) to try, in this order, until a place is clear.
    """
    field, valid = orientation_channels(*large, CHANNELS)
    height, width = (int(n) for n in small[0].shape[-2:])
    over_y, over_x = (beyond(n) // CHANNELS.stride for n in (height, width))
    field, valid = (F.pad(part, [over_x, over_x, over_y, over_y]) for part in (field, valid))
    rows, columns = field.shape[-2:]
    size = _even(rows), _even(columns)
    spectrum = torch.fft.rfft2(field[0], s=size)
    energy = torch.fft.rfft2(field.square().sum(1), s=size)
    seen = torch.fft.rfft2(valid[0], s=size)
    best = Place(AffineTransform.identity(), 0.0, 0.0)
    middle = ((width - 1) / 2, (height - 1) / 2)
    for turn, scale in turns:
        turned = AffineTransform.from_parameters(rotation_deg=turn, scale=scale, centre=middle)
        template, mask = _template(small, turned)
        found = _best(template, mask, (spectrum, energy, seen), size, (rows, columns))
        if found is None:
            continue
        (column, row), top, rival = found
        stride = CHANNELS.stride
        shift = AffineTransform.from_parameters(shift=((column - over_x) * stride, (row - over_y) * stride))
        place = Place(shift.after(turned.inverse), top, rival)
        best = max(best, place, key=lambda one: one.height)
        if best.height >= max(CLEAR, CLEARER * best.rival):
            break
    return best


def beyond(side: int) -> int:
    """How far a small image of a side may reach beyond the large one, pixels."""
    return round((1.0 - MIN_SEEN) * side)


def _template(small: tuple[Tensor, Tensor], turned: AffineTransform) -> tuple[Tensor, Tensor]:
    """Channels (K, h, w) of the rotated and scaled small image, minus their mean, and their validity (h, w)."""
    shape = int(small[0].shape[-2]), int(small[0].shape[-1])
    image, mask = warp_to_reference(*small, turned, shape, 0)
    channels, valid = orientation_channels(image, mask, CHANNELS)
    weight = valid[0, 0]
    mean = (channels[0] * weight).sum((-2, -1), keepdim=True) / weight.sum().clamp_min(1.0)
    return (channels[0] - mean) * weight, weight


def _best(
    template: Tensor, mask: Tensor, large: tuple[Tensor, Tensor, Tensor], size: tuple[int, int], shape: tuple[int, int]
) -> tuple[tuple[float, float], float, float] | None:
    """Cell (x, y) of the padded large image on which the template's first one lies, its height and that of its best
    rival.
    """
    spectrum, energy, seen = large
    rows, columns = shape[0] - template.shape[-2] + 1, shape[1] - template.shape[-1] + 1
    if min(rows, columns) < 1 or not bool(mask.any()):
        return None

    def against(kernel: Tensor, image: Tensor) -> Tensor:
        product = image * torch.fft.rfft2(kernel, s=size).conj()
        whole: Tensor = torch.fft.irfft2(product.sum(0), s=size)
        return whole[:rows, :columns]

    covered = against(mask[None], seen) / mask.sum()
    power = against(mask[None], energy).clamp_min(1e-6)
    # The root keeps the noise even where less is covered.
    score = against(template, spectrum) / (power.sqrt() * template.norm().clamp_min(1e-6)) * covered.clamp(0, 1).sqrt()
    known = covered >= MIN_SEEN
    if int(known.sum()) < 2:
        return None
    values = score[known]
    deviation = values.std().clamp_min(1e-9)
    height = torch.where(known, (score - values.mean()) / deviation, -math.inf)
    row, column = divmod(int(height.argmax()), columns)
    top = float(height[row, column])
    yy, xx = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    elsewhere = torch.hypot((yy - row).float(), (xx - column).float()) > RIVAL_CELLS
    rival = float(height[elsewhere].max()) if bool(elsewhere.any()) else 0.0
    return (float(column), float(row)), top, rival


def _even(n: int) -> int:
    """The next size from n on for which the FFT is fast."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
