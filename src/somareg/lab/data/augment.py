"""Which radiometric effects befall a batch, and the one call from tiles to a batch for the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.lab.data import effects
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.dice import Dice, Range
from somareg.lab.data.draw import DrawCfg, draw_pairs
from somareg.lab.data.standardise import standardise
from somareg.lab.data.tiles import TileSet
from somareg.types import Modality

Step = Callable[[Tensor, Dice], Tensor]
_RECTANGLES = 3


def _check_shares(cfg: Any) -> None:
    for item in fields(cfg):
        value = getattr(cfg, item.name)
        if item.name.endswith("_share") and not 0.0 <= value <= 1.0:
            raise ConfigError(f"augment: {item.name} is {value}; give a share from 0 to 1")


@dataclass(frozen=True)
class OpticalAugmentCfg:
    """Shares of the images that an effect befalls, and ranges of its strength; grey values are 0-255.

    Attributes:
        tone_share, gamma, contrast, brightness: power law, contrast factor, shift in grey values.
        permute_share, mix_share, grey_share: bands in another order, mixtures of the bands, one mixture for all.
        map_share, map_classes: flat colours by grey value, as a map has; number of them.
        gradient_share, shading_share, shading_px: outlines only; the grey value as a height, smoothed and lit from a
            side. With the map these stand for images that are not photographs.
        invert_share: the negative.
        blur_share, blur_px: deviation of the Gaussian.
        sharpen_share, sharpen: strength of the unsharp mask.
        noise_share, noise: deviation, in deviations of the image.
        stripes_share, stripes: deviation of rows or columns, in deviations of the image.
        haze_share, haze: opacity.
        clouds_share, clouds: share of the image that they cover.
    """

    tone_share: float = 0.5
    gamma: Range = (0.6, 1.6)
    contrast: Range = (0.6, 1.5)
    brightness: float = 30.0
    permute_share: float = 0.25
    mix_share: float = 0.2
    grey_share: float = 0.3
    map_share: float = 0.0
    map_classes: int = 6
    gradient_share: float = 0.0
    shading_share: float = 0.0
    shading_px: Range = (0.5, 1.0)
    invert_share: float = 0.05
    blur_share: float = 0.2
    blur_px: Range = (0.3, 1.0)
    sharpen_share: float = 0.1
    sharpen: Range = (0.3, 1.5)
    noise_share: float = 0.25
    noise: Range = (0.03, 0.4)
    stripes_share: float = 0.05
    stripes: Range = (0.03, 0.2)
    haze_share: float = 0.1
    haze: Range = (0.1, 0.5)
    clouds_share: float = 0.1
    clouds: Range = (0.05, 0.3)

    def __post_init__(self) -> None:
        _check_shares(self)
        if self.map_classes < 2:
            raise ConfigError(f"augment: map_classes is {self.map_classes}; give 2 or more")

    def steps(self) -> tuple[tuple[float, Step], ...]:
        """(share, effect) in the order from the ground to the file."""
        e = effects
        return (
            (self.mix_share, e.mix_bands),
            (self.permute_share, e.permute_bands),
            (self.haze_share, partial(e.haze, opacity=self.haze)),
            (self.clouds_share, partial(e.clouds, cover=self.clouds)),
            (self.grey_share, e.single_band),
            (self.map_share, partial(e.map_colours, most=self.map_classes)),
            (self.gradient_share, e.gradient_only),
            (self.shading_share, partial(e.relief_shading, pixels=self.shading_px)),
            (self.blur_share, partial(e.blur, sigma=self.blur_px)),
            (self.noise_share, partial(e.noise, deviation=self.noise)),
            (self.stripes_share, partial(e.stripes, deviation=self.stripes)),
            (self.sharpen_share, partial(e.sharpen, strength=self.sharpen)),
            (self.tone_share, _tone(self.gamma, self.contrast, self.brightness)),
            (self.invert_share, e.invert_contrast),
        )


@dataclass(frozen=True)
class SarAugmentCfg:
    """Shares of the images that an effect befalls, and ranges of its strength; grey values 0-255 are decibels.

    Attributes:
        speckle_share, correlated_share: additional speckle, white or shared by neighbours.
        looks: its looks, log-uniform.
        correlation_px: deviation of the Gaussian that smooths correlated speckle.
        decibels: what 0-255 stands for.
        blur_share, blur_px: deviation of the Gaussian.
        tone_share, gamma, contrast, brightness: power law, contrast factor, shift in grey values.
        invert_share: the negative.
    """

    speckle_share: float = 0.3
    correlated_share: float = 0.15
    looks: Range = (1.0, 10.0)
    correlation_px: Range = (0.4, 0.9)
    decibels: Range = (25.0, 50.0)
    blur_share: float = 0.25
    blur_px: Range = (0.3, 1.0)
    tone_share: float = 0.5
    gamma: Range = (0.7, 1.4)
    contrast: Range = (0.6, 1.5)
    brightness: float = 25.0
    invert_share: float = 0.05

    def __post_init__(self) -> None:
        _check_shares(self)
        if self.looks[0] < 1:
            raise ConfigError(f"augment: looks start at {self.looks[0]}; give at least 1")

    def steps(self) -> tuple[tuple[float, Step], ...]:
        """(share, effect) in the order from the ground to the file."""
        speckle = partial(effects.speckle, looks=self.looks, decibels=self.decibels)
        return (
            (self.speckle_share, speckle),
            (self.correlated_share, partial(speckle, correlation=self.correlation_px)),
            (self.blur_share, partial(effects.blur, sigma=self.blur_px)),
            (self.tone_share, _tone(self.gamma, self.contrast, self.brightness)),
            (self.invert_share, effects.invert_contrast),
        )


def _tone(gamma: Range, contrast: Range, brightness: float) -> Step:
    return partial(effects.tone, gamma=gamma, contrast=contrast, brightness=brightness)


@dataclass(frozen=True)
class AugmentCfg:
    """All effects.

    Attributes:
        optical, sar: by modality.
        dropout_share: share of the images that lose one to three rectangles (their mask becomes 0).
        dropout_side: sides of the rectangles as shares of the image's.
        edge_share: share of the images that end within the crop, as at the edge of a swath: the mask is 0 beyond a
            straight line of any direction.
        edge_depth: how far in the line lies at most, as a share of the image's extent across it.
    """

    optical: OpticalAugmentCfg = field(default_factory=OpticalAugmentCfg)
    sar: SarAugmentCfg = field(default_factory=SarAugmentCfg)
    dropout_share: float = 0.1
    dropout_side: Range = (0.05, 0.3)
    edge_share: float = 0.0
    edge_depth: float = 0.35

    def __post_init__(self) -> None:
        _check_shares(self)


@torch.no_grad()
def make_batch(
    tiles: TileSet, index: Tensor, draw_cfg: DrawCfg, augment_cfg: AugmentCfg | None, generator: torch.Generator
) -> PairBatch:
    """Pairs as the network sees them: drawn, augmented and standardised, on the tiles' device.

    Args:
        tiles: see `draw_pairs`.
        index: (B,) int64, which tiles.
        draw_cfg: geometry.
        augment_cfg: radiometry; None leaves grey values as they are.
        generator: all randomness; the same state gives the same batch.

    Raises:
        InputError: the tiles are smaller than the crop.
    """
    batch = draw_pairs(tiles, index, draw_cfg, generator)
    if augment_cfg is not None:
        batch = augment(batch, augment_cfg, generator)
    of_reference, of_moving = batch.modalities
    return replace(
        batch,
        reference=standardise(batch.reference, batch.reference_mask, of_reference),
        moving=standardise(batch.moving, batch.moving_mask, of_moving),
    )


@torch.no_grad()
def augment(batch: PairBatch, cfg: AugmentCfg, generator: torch.Generator) -> PairBatch:
    """Effects on both images of every pair, each independent of the other; geometry stays.

    Args:
        batch: grey values 0-255.
        cfg: shares and strengths.
        generator: all randomness.

    Returns:
        grey values 0-255; masks are also 0 in rectangles that were dropped and beyond edges.
    """
    dice = Dice(generator, batch.reference.device)
    of_reference, of_moving = batch.modalities
    return replace(
        batch,
        reference=_befall(batch.reference, of_reference, cfg, dice),
        reference_mask=_with_gaps(batch.reference_mask, cfg, dice),
        moving=_befall(batch.moving, of_moving, cfg, dice),
        moving_mask=_with_gaps(batch.moving_mask, cfg, dice),
    )


def _befall(image: Tensor, modality: Modality, cfg: AugmentCfg, dice: Dice) -> Tensor:
    """Every step on the images that it was drawn for."""
    steps = cfg.sar.steps() if modality == "sar" else cfg.optical.steps()
    numbers = dice.decide(len(steps), len(image))
    image = image.clone()
    for (share, step), row in zip(steps, numbers, strict=True):
        chosen = [i for i, value in enumerate(row) if value < share]
        if chosen:
            rows = torch.tensor(chosen, device=image.device)
            image[rows] = step(image[rows], dice).clamp(0, 255)
    return image


def _with_gaps(mask: Tensor, cfg: AugmentCfg, dice: Dice) -> Tensor:
    mask = drop_rectangles(mask, cfg.dropout_share, cfg.dropout_side, dice)
    return cut_edges(mask, cfg.edge_share, cfg.edge_depth, dice) if cfg.edge_share > 0 else mask


def cut_edges(mask: Tensor, share: float, depth: float, dice: Dice) -> Tensor:
    """A mask (B, 1, H, W) that ends at a straight line in a share of the images.

    Args:
        mask: 1 valid, 0 not.
        share: of the images.
        depth: largest share of an image's extent across the line that is lost.
        dice: randomness and device.
    """
    count, _, height, width = mask.shape
    angle = 2 * math.pi * dice.unit(count, 1, 1, 1)
    nx, ny = angle.cos(), angle.sin()
    x = (torch.arange(width, device=mask.device) - (width - 1) / 2) * nx
    y = (torch.arange(height, device=mask.device)[:, None] - (height - 1) / 2) * ny
    reach = (nx.abs() * (width - 1) + ny.abs() * (height - 1)) / 2
    line = reach * (1 - 2 * depth * dice.unit(count, 1, 1, 1))
    line = torch.where(dice.unit(count, 1, 1, 1) < share, line, torch.inf)
    return mask * (x + y <= line)


def drop_rectangles(mask: Tensor, share: float, side: Range, dice: Dice) -> Tensor:
    """A mask (B, 1, H, W) without one to three rectangles in a share of the images."""
    count, _, height, width = mask.shape
    dropped = dice.unit(count, 1, 1) < share
    dropped = dropped & (torch.arange(_RECTANGLES, device=mask.device) <= dice.integers(_RECTANGLES, count, 1)[:, None])
    inside = []
    for length in (height, width):
        extent = dice.uniform((count, _RECTANGLES, 1), *side) * length
        start = dice.unit(count, _RECTANGLES, 1) * (length - extent)
        line = torch.arange(length, device=mask.device)
        inside.append((line >= start) & (line < start + extent) & dropped.view(count, -1, 1))
    hole = (inside[0][..., :, None] & inside[1][..., None, :]).any(1, keepdim=True)
    return mask * ~hole
