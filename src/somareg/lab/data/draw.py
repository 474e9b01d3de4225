"""Border-free pairs cut from tiles, on the tiles' device, with their exact geometry.

A reference crop is copied from one modality's tile, pixel by pixel, under a random dihedral pose. The moving crop is
interpolated once from the other modality's tile through the whole chain

    moving px -> (truth and smooth displacement inverted) -> reference px -> (pose) -> reference tile px
              -> (label of the pair) -> moving tile px.

Of several drawn affines the first is taken whose footprint, with the kernel around it, lies inside the tile: neither
image shows a border or a mask that moves with the warp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from somareg.errors import ConfigError, InputError
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.dice import Dice, Range
from somareg.lab.data.render import KERNEL_MARGIN_PX, copy_pixels, interpolate
from somareg.lab.data.tiles import TileSet
from somareg.lab.data.waves import LARGEST_PX, Waves, draw_waves
from somareg.matching.affine import compose_batch, invert_batch
from somareg.types import Modality

_CANDIDATES = 16
_TOWARDS_IDENTITY = (0.75, 0.5, 0.25, 0.0)  # factors that shrink a candidate when none fits


@dataclass(frozen=True)
class DrawCfg:
    """How pairs are drawn. Affines are drawn about the centre of the crop.

    Attributes:
        crop: side S of both images, pixels.
        rotation_deg: uniform in +-this.
        scale: log-uniform between the two; above 1 the moving image shows the ground larger.
        shear_deg: uniform in +-this, the angle by which the y axis leans.
        aspect: log-uniform between the two, the x axis stretched against the y axis.
        shift: uniform per axis in +-this share of the crop.
        near_share: share of the pairs that use the near ranges instead.
        near_rotation_deg, near_scale, near_shear_deg, near_aspect, near_shift: the near ranges.
        similar_share: share of the pairs that keep their shape: neither shear nor aspect, as products of one place do.
        flips, quarter_turns: poses of the tile that the pair is seen in.
        smooth_share: share of the pairs with a smooth displacement on top.
        smooth_px: largest sum of its waves' amplitudes, pixels (wavelengths from 64 px on), at most 4.
        swap_share: share of the batches whose reference is SAR and whose moving image is optical.
        views: "pair", or two views of one image, "sar" or "optical": the same ground without any label, so that an
            encoder can be trained before pairs are at hand.

    Raises:
        ConfigError: a range is empty or outside of what can be drawn.
    """

    crop: int = 160
    rotation_deg: float = 22.0
    scale: Range = (0.78, 1.28)
    shear_deg: float = 3.0
    aspect: Range = (1.0, 1.0)
    shift: float = 0.10
    near_share: float = 0.6
    near_rotation_deg: float = 5.0
    near_scale: Range = (0.95, 1.05)
    near_shear_deg: float = 1.0
    near_aspect: Range = (1.0, 1.0)
    near_shift: float = 0.06
    similar_share: float = 0.0
    flips: bool = True
    quarter_turns: bool = True
    smooth_share: float = 0.2
    smooth_px: float = 3.0
    swap_share: float = 0.0
    views: Literal["pair", "sar", "optical"] = "pair"

    def __post_init__(self) -> None:
        for name in ("scale", "near_scale", "aspect", "near_aspect"):
            low, high = getattr(self, name)
            if not 0.5 <= low <= high <= 2.0:
                raise ConfigError(f"draw.{name} is ({low}, {high}); give (low, high) within 0.5 to 2")
        for name in ("near_share", "similar_share", "smooth_share", "swap_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"draw.{name} is {getattr(self, name)}; give a share from 0 to 1")
        if not 0.0 <= self.smooth_px <= LARGEST_PX:
            raise ConfigError(f"draw.smooth_px is {self.smooth_px}; give 0 to {LARGEST_PX:g} px")
        if self.crop < 16:
            raise ConfigError(f"draw.crop is {self.crop}; give at least 16 px")


@torch.no_grad()
def draw_pairs(tiles: TileSet, index: Tensor, cfg: DrawCfg, generator: torch.Generator) -> PairBatch:
    """One pair from each tile of `index`, grey values 0-255 as stored, on the tiles' device.

    Args:
        tiles: N tiles of side T >= crop; below about 1.3 times the crop large affines never fit.
        index: (B,) int64, which tiles.
        cfg: ranges.
        generator: all randomness; the same state gives the same batch.

    Returns:
        a batch whose masks are 0 where a tile is invalid (and nowhere else, unless a tile is hardly larger than the
        crop).

    Raises:
        InputError: the tiles are smaller than the crop.
    """
    if tiles.size < cfg.crop:
        raise InputError(f"tiles are {tiles.size} px and the crop is {cfg.crop} px; use larger tiles or a smaller crop")
    dice = Dice(generator, tiles.sar.device)
    index = index.to(dice.device)
    swapped = cfg.swap_share > 0 and dice.decide(1)[0] < cfg.swap_share
    images: dict[Modality, Tensor] = {"sar": tiles.sar[index, None], "optical": tiles.optical[index]}
    label = tiles.label[index].double()  # px of the optical tile -> px of the SAR tile
    modalities: tuple[Modality, Modality] = ("sar", "optical") if swapped else ("optical", "sar")
    if cfg.views != "pair":
        modalities = (cfg.views, cfg.views)
        label = torch.eye(2, 3, dtype=label.dtype, device=label.device).expand_as(label)
    elif swapped:
        label = invert_batch(label)
    reference, moving = (images[modality] for modality in modalities)
    valid = tiles.valid[index, None]
    waves, waving = _draw_waves(len(index), cfg, dice)
    at = _place(label, _reach(waves, waving, len(index)), tiles.size, cfg, dice)
    rendered, rendered_mask = interpolate(moving, valid, *_moving_points(at, waves, waving, cfg.crop), at.truth)
    positions = _map(at.pose, *_axes(cfg.crop, dice.device))
    return PairBatch(
        reference=copy_pixels(reference, *positions).float(),
        reference_mask=copy_pixels(valid, *positions).float(),
        moving=rendered,
        moving_mask=rendered_mask,
        truth=at.truth.float(),
        flow=None if waves is None else _flow(waves, waving, len(index), cfg.crop),
        modalities=modalities,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """Placement of the crops of a batch, float64.

    Attributes:
        truth: (B, 2, 3) reference px -> moving px.
        pose: (B, 2, 3) reference px -> px of the reference's tile; whole numbers.
        label: (B, 2, 3) px of the reference's tile -> px of the moving image's tile.
    """

    truth: Tensor
    pose: Tensor
    label: Tensor


def _place(label: Tensor, reach: Tensor, size: int, cfg: DrawCfg, dice: Dice) -> _Placed:
    """The first candidate of each pair that fits its tile, at a random origin at which it does."""
    count, middle = len(label), (cfg.crop - 1) / 2
    linear, shift = _candidates(count, cfg, dice)
    turn = _turns(count, cfg, dice)
    # corners of the moving crop seen from the centre of the reference crop, in the axes of the tile
    corners = middle * torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1]], dtype=label.dtype, device=label.device)
    back = invert_batch(torch.cat([linear, shift[..., None]], dim=-1))
    footprint = turn[:, None] @ (back[..., :2] @ corners + back[..., 2:])
    margin = (KERNEL_MARGIN_PX + reach.double())[:, None, None]
    nearest, farthest = _room(label, size)
    low = (nearest[:, None] - footprint.amin(-1) + margin - middle).ceil().clamp_min(0)
    high = (farthest[:, None] - footprint.amax(-1) - margin - middle).floor().clamp_max(size - cfg.crop)
    fits = (low <= high).all(-1)
    # argmax finds the first; the last candidate, the identity, is taken when nothing fits
    choice = torch.where(fits.any(1), fits.int().argmax(1), fits.shape[1] - 1)
    rows = torch.arange(count, device=label.device)
    linear, shift, low, high = linear[rows, choice], shift[rows, choice], low[rows, choice], high[rows, choice]
    origin = (low + (dice.unit(count, 2) * (high - low + 1)).floor()).minimum(high).clamp(0, size - cfg.crop)
    centre = torch.full((count, 2, 1), middle, dtype=label.dtype, device=label.device)
    truth = torch.cat([linear, shift[..., None] + centre - linear @ centre], dim=-1)
    pose = torch.cat([turn, origin[..., None] + centre - turn @ centre], dim=-1)
    return _Placed(truth, pose, label)


def _candidates(count: int, cfg: DrawCfg, dice: Dice) -> tuple[Tensor, Tensor]:
    """(B, K, 2, 2) linear parts and (B, K, 2) shifts of the centre; the last ones are the first pulled to identity."""
    near = (dice.unit(count, 1) < cfg.near_share).double()

    def spread(*shape: int, far: float, close: float) -> Tensor:
        span = (far + (close - far) * near).view(count, *([1] * len(shape)))
        return (2 * dice.unit(count, *shape).double() - 1) * span

    rotation = spread(_CANDIDATES, far=math.radians(cfg.rotation_deg), close=math.radians(cfg.near_rotation_deg))
    lean = spread(_CANDIDATES, far=math.radians(cfg.shear_deg), close=math.radians(cfg.near_shear_deg)).tan()
    shift = cfg.crop * spread(_CANDIDATES, 2, far=cfg.shift, close=cfg.near_shift)

    def stretch(far: Range, close: Range) -> Tensor:
        if far == close == (1.0, 1.0):
            return torch.zeros_like(rotation)
        low, high = (math.log(s) + (math.log(n) - math.log(s)) * near for s, n in zip(far, close, strict=True))
        return dice.uniform((count, _CANDIDATES), low, high)

    scale = stretch(cfg.scale, cfg.near_scale).exp()
    half = stretch(cfg.aspect, cfg.near_aspect) / 2
    if cfg.similar_share > 0:
        shaped = dice.unit(count, 1) >= cfg.similar_share
        lean, half = lean * shaped, half * shaped
    cos, sin, wide, high = rotation.cos(), rotation.sin(), scale * half.exp(), scale * (-half).exp()
    # rotation ∘ shear ∘ scale, the order of geometry.AffineTransform.from_parameters
    entries = [cos * wide, (cos * lean - sin) * high, sin * wide, (sin * lean + cos) * high]
    linear = torch.stack(entries, dim=-1).view(count, -1, 2, 2)
    left = torch.tensor(_TOWARDS_IDENTITY, dtype=linear.dtype, device=linear.device)[:, None, None]
    one = torch.eye(2, dtype=linear.dtype, device=linear.device)
    linear = torch.cat([linear, one + left * (linear[:, :1] - one)], dim=1)
    return linear, torch.cat([shift, left[:, 0] * shift[:, :1]], dim=1)


def _turns(count: int, cfg: DrawCfg, dice: Dice) -> Tensor:
    """(B, 2, 2) rotations by quarter turns and reflections."""
    quarter = dice.integers(4 if cfg.quarter_turns else 1, count)
    sign = 1.0 - 2.0 * dice.integers(2 if cfg.flips else 1, count)
    cos, sin = (torch.tensor(t, device=dice.device)[quarter] for t in ((1.0, 0, -1, 0), (0.0, 1, 0, -1)))
    return torch.stack([cos * sign, -sin, sin * sign, cos], dim=-1).view(count, 2, 2).double()


def _room(label: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest (x, y), each (B, 2), of a box in the reference's tile that lies inside the moving tile.

    Labels are close to the identity: the tile's outline, seen in the other tile, is nearly a box with the same corners.
    """
    last = size - 1.0
    outline = torch.tensor([[0.0, last, last, 0], [0, 0, last, last], [1, 1, 1, 1]], dtype=label.dtype)
    (left_top, right_top, right_low, left_low) = (invert_batch(label) @ outline.to(label.device)).unbind(-1)
    nearest = torch.stack([torch.maximum(left_top, left_low)[:, 0], torch.maximum(left_top, right_top)[:, 1]], dim=-1)
    farthest = torch.stack(
        [torch.minimum(right_top, right_low)[:, 0], torch.minimum(left_low, right_low)[:, 1]], dim=-1
    )
    return nearest, farthest


def _draw_waves(count: int, cfg: DrawCfg, dice: Dice) -> tuple[Waves | None, Tensor]:
    """Smooth displacements and the pairs that have one, (n,) int64."""
    indices = [i for i, value in enumerate(dice.decide(count)) if value < cfg.smooth_share * (cfg.smooth_px > 0)]
    waving = torch.tensor(indices, dtype=torch.long, device=dice.device)
    return (draw_waves(len(waving), cfg.crop, cfg.smooth_px, dice) if len(waving) else None), waving


def _reach(waves: Waves | None, waving: Tensor, count: int) -> Tensor:
    """(B,) largest displacement of the waves, 0 where there is none."""
    reach = torch.zeros(count, device=waving.device)
    return reach if waves is None else reach.index_copy(0, waving, waves.reach())


def _axes(crop: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates x (1, 1, S) and y (1, S, 1) of pixel centres."""
    line = torch.arange(crop, device=device, dtype=torch.float32)
    return line[None, None, :], line[None, :, None]


def _flow(waves: Waves, waving: Tensor, count: int, crop: int) -> Tensor:
    flow = torch.zeros(count, 2, crop, crop, device=waving.device)
    return flow.index_copy(0, waving, torch.stack(waves(*_axes(crop, waving.device)), dim=1))


def _map(matrix: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Points through (B, 2, 3); products written out, since matrix products lose digits in mixed precision."""
    a = matrix.float()[..., None, None]
    return a[:, 0, 0] * x + a[:, 0, 1] * y + a[:, 0, 2], a[:, 1, 0] * x + a[:, 1, 1] * y + a[:, 1, 2]


def _moving_points(placement: _Placed, waves: Waves | None, waving: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """Coordinates x and y, each (B, S, S), in the tile of every pixel of the moving crop."""
    pixels = _axes(crop, waving.device)
    to_tile = compose_batch(placement.label, placement.pose)
    back = invert_batch(placement.truth)
    x, y = _map(compose_batch(to_tile, back), *pixels)
    if waves is None:
        return x, y
    u, v = _map(to_tile[waving], *waves.inverse(*_map(back[waving], *pixels)))
    return x.index_copy(0, waving, u), y.index_copy(0, waving, v)
