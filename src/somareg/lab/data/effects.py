"""Effects of sensors, weather and processing on images (n, C, H, W) with grey values 0-255.

Strengths are drawn for each image from ranges. Nothing here moves an edge: blurs are symmetric, noise is local.
Products over bands are written out, since matrix products lose digits in mixed precision.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.lab.data.dice import Dice, Range

_BLUR_RADIUS = 3
_OCTAVES = (3, 6, 12, 24)


def _each(image: Tensor, dice: Dice, span: Range) -> Tensor:
    """One number for each image, (n, 1, 1, 1)."""
    return dice.uniform((len(image), 1, 1, 1), *span)


def _contrast(image: Tensor) -> Tensor:
    """Deviation of the grey values of each image, (n, 1, 1, 1)."""
    # `std` may read a value back to the host, which then waits for the device.
    return (image - image.mean((1, 2, 3), keepdim=True)).square().mean((1, 2, 3), keepdim=True).sqrt()


def tone(image: Tensor, dice: Dice, gamma: Range, contrast: Range, brightness: float) -> Tensor:
    """Power law of the range, then contrast about the mean and a shift of up to +-`brightness` grey values."""
    curved = 255 * (image / 255).pow(dice.log_uniform((len(image), 1, 1, 1), *gamma))
    mean = curved.mean((1, 2, 3), keepdim=True)
    shift = _each(image, dice, (-brightness, brightness))
    return mean + dice.log_uniform((len(image), 1, 1, 1), *contrast) * (curved - mean) + shift


def invert_contrast(image: Tensor, dice: Dice) -> Tensor:
    """The negative."""
    return 255 - image


def permute_bands(image: Tensor, dice: Dice) -> Tensor:
    """Bands in random order."""
    order = dice.unit(*image.shape[:2]).argsort(1)
    return image[torch.arange(len(image), device=image.device)[:, None], order]


def mix_bands(image: Tensor, dice: Dice) -> Tensor:
    """Every band becomes a random convex mixture of all."""
    bands = image.shape[1]
    weight = -dice.unit(len(image), bands, bands).clamp_min(1e-6).log()
    weight = weight / weight.sum(2, keepdim=True)
    return sum(
        (weight[:, :, i, None, None] * image[:, i : i + 1] for i in range(1, bands)),
        weight[:, :, :1, None] * image[:, :1],
    )


def single_band(image: Tensor, dice: Dice) -> Tensor:
    """One random convex mixture of the bands, repeated: a panchromatic image."""
    weight = -dice.unit(*image.shape[:2], 1, 1).clamp_min(1e-6).log()
    return ((weight * image).sum(1, keepdim=True) / weight.sum(1, keepdim=True)).expand_as(image)


def gradient_only(image: Tensor, dice: Dice) -> Tensor:
    """Size of the grey value's gradient at 1 px, the same in all bands: outlines without the sign of a step."""
    grey = gaussian_blur(image.mean(1, keepdim=True), torch.ones(len(image), device=image.device))
    across, down = _slopes(grey)
    size = (across.square() + down.square()).sqrt()
    return (255 * size / (4 * size.mean((-2, -1), keepdim=True) + 1e-3)).expand_as(image)


def relief_shading(image: Tensor, dice: Dice, pixels: Range) -> Tensor:
    """The grey value as a height, lit from a random side: outlines are dark on one side and bright on the other.

    Args:
        image: (n, C, H, W), 0-255.
        dice: randomness and device.
        pixels: deviation of the Gaussian that smooths the heights.
    """
    grey = gaussian_blur(image.mean(1, keepdim=True), dice.uniform((len(image),), *pixels))
    across, down = _slopes(grey)
    azimuth = 2 * math.pi * dice.unit(len(image), 1, 1, 1)
    lit = azimuth.cos() * across + azimuth.sin() * down
    return (128 + 48 * lit / _contrast(lit).clamp_min(1e-3)).expand_as(image)


def map_colours(image: Tensor, dice: Dice, most: int) -> Tensor:
    """Areas of similar grey value in random flat colours, as on a map of classes.

    Their outlines follow the edges to about two pixels: the image is smoothed first, and any level may be cut.

    Args:
        image: (n, C, H, W), 0-255.
        dice: randomness and device.
        most: classes, each at a random range of grey values; neighbouring ranges may lie close together.
    """
    grey = gaussian_blur(image.mean(1, keepdim=True), torch.ones(len(image), device=image.device))
    rank = (grey - grey.mean((-2, -1), keepdim=True)) / _contrast(grey).clamp_min(1e-3)
    limits = dice.normal(len(image), most - 1, 1, 1)
    which = (rank > limits).sum(1, keepdim=True)  # (n, 1, H, W), 0 to most - 1
    colours = 255 * dice.unit(len(image), image.shape[1], most)
    return colours.gather(2, which.flatten(2).expand(-1, image.shape[1], -1)).view_as(image)


def _slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, replicated borders."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    return across / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian smoothing by `sigma` (n,) pixels, at most about 1.2; shifted additions, replicated borders."""
    side = torch.arange(1, _BLUR_RADIUS + 1, device=image.device)
    bell = (-0.5 * (side / sigma.clamp_min(1e-3)[:, None]).square()).exp()
    middle = 1 / (1 + 2 * bell.sum(1, keepdim=True))
    taps = torch.cat([middle, bell * middle], dim=1)[..., None, None, None]
    r = _BLUR_RADIUS
    for axis, padding in ((-1, (r, r, 0, 0)), (-2, (0, 0, r, r))):
        padded, length = F.pad(image, padding, mode="replicate"), image.shape[axis]
        image = padded.narrow(axis, r, length) * taps[:, 0]
        for i in range(1, r + 1):
            around = padded.narrow(axis, r - i, length) + padded.narrow(axis, r + i, length)
            image.addcmul_(around, taps[:, i])
    return image


def blur(image: Tensor, dice: Dice, sigma: Range) -> Tensor:
    """Gaussian blur, pixels."""
    return gaussian_blur(image, dice.uniform((len(image),), *sigma))


def sharpen(image: Tensor, dice: Dice, strength: Range) -> Tensor:
    """Unsharp mask at 1 px."""
    soft = gaussian_blur(image, torch.ones(len(image), device=image.device))
    return image + _each(image, dice, strength) * (image - soft)


def noise(image: Tensor, dice: Dice, deviation: Range) -> Tensor:
    """White Gaussian noise in deviations of the image, so that low contrast survives."""
    return image + _each(image, dice, deviation) * _contrast(image) * dice.normal(*image.shape)


def stripes(image: Tensor, dice: Dice, deviation: Range) -> Tensor:
    """Offsets of whole rows or whole columns, in deviations of the image: detectors that disagree."""
    count, _, height, width = image.shape
    along = dice.unit(count, 1, 1, 1) < 0.5
    offset = torch.where(along, dice.normal(count, 1, height, 1), dice.normal(count, 1, 1, width))
    return image + _each(image, dice, deviation) * _contrast(image) * offset


def cloud_field(count: int, size: torch.Size | tuple[int, int], dice: Dice) -> Tensor:
    """(n, 1, H, W) smooth random field of size (H, W) of mean 0 and deviation 1 with detail at four sizes."""
    field = torch.zeros(count, 1, *size, device=dice.device)
    for octave, cells in enumerate(_OCTAVES):
        lattice = dice.normal(count, 1, cells, cells) * 0.55**octave
        field += F.interpolate(lattice, size=tuple(size), mode="bilinear", align_corners=False)
    field -= field.mean((-2, -1), keepdim=True)
    return field / field.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-6)


def haze(image: Tensor, dice: Dice, opacity: Range) -> Tensor:
    """A bright veil of uneven thickness."""
    field = cloud_field(len(image), image.shape[-2:], dice)
    veil = _each(image, dice, opacity) * (0.7 + 0.3 * field.clamp(-1, 1))
    return image + veil * (_each(image, dice, (180, 255)) - image)


def clouds(image: Tensor, dice: Dice, cover: Range) -> Tensor:
    """Bright clouds with soft rims over a share of the image; the mask stays valid, as for undetected clouds."""
    field = cloud_field(len(image), image.shape[-2:], dice)
    threshold = math.sqrt(2) * torch.erfinv(1 - 2 * _each(image, dice, cover))
    thick = ((field - threshold) / _each(image, dice, (0.15, 0.6)) + 0.5).clamp(0, 1) * _each(image, dice, (0.75, 1.0))
    return image + thick * (_each(image, dice, (220, 255)) + 6 * field - image)


def gamma_speckle(shape: torch.Size | tuple[int, ...], dice: Dice, looks: Tensor, correlation: Tensor | None) -> Tensor:
    """Speckle of mean 1 and variance 1 / looks, gamma distributed.

    A cubed normal variable is very nearly gamma distributed (Wilson and Hilferty, 1931), down to one look. It costs a
    tenth of an exact draw, and a smoothed normal field gives speckle that neighbours share.

    Args:
        shape: (n, C, H, W).
        dice: randomness and device.
        looks: (n, 1, 1, 1), at least 1.
        correlation: (n,) deviation in pixels of the Gaussian that smooths the field; None for white speckle.
    """
    field = dice.normal(*shape)
    if correlation is not None:
        field = gaussian_blur(field, correlation)
        # inner pixels only: replicated borders keep more variance
        inner = field[..., _BLUR_RADIUS:-_BLUR_RADIUS, _BLUR_RADIUS:-_BLUR_RADIUS]
        field = field / inner.square().mean((-3, -2, -1), keepdim=True).sqrt()
    return (1 - 1 / (9 * looks) + field / (3 * looks.sqrt())).clamp_min(0.05).pow(3)


def speckle(image: Tensor, dice: Dice, looks: Range, decibels: Range, correlation: Range | None = None) -> Tensor:
    """More speckle on an image whose grey values are decibels.

    Args:
        image: (n, C, H, W), 0-255.
        dice: randomness and device.
        looks: log-uniform; 1 is the strongest.
        decibels: what the range 0-255 stands for; unknown for stored images, hence drawn.
        correlation: pixels over which neighbours share it; None for white speckle.
    """
    sigma = None if correlation is None else dice.uniform((len(image),), *correlation)
    count = dice.log_uniform((len(image), 1, 1, 1), *looks)
    factor = gamma_speckle(image.shape, dice, count, sigma)
    return image + (255 * 10 / math.log(10)) / _each(image, dice, decibels) * factor.log()
