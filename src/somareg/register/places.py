"""Correlate the smaller image with every place of the larger one, at low resolution.

Without georeferences both are reduced by one factor, and several rotations and scales are tried. With georeferences the
moving image is brought to the reference's pixels, where only a shift is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from somareg.config import RegisterConfig
from somareg.errors import NoDataError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import jacobian_at
from somareg.geometry.proportions import STRIP_PX, keep_side
from somareg.io.inputs import OpenImage
from somareg.io.memory import check_fits
from somareg.io.source import Block
from somareg.matching.place import CHANNELS, beyond, find_place
from somareg.matching.warping import warp_to_reference
from somareg.preprocess.normalise import normalise
from somareg.register.choose import LIBRARY_BYTES, engine_settings
from somareg.register.ground import footprint, part_under
from somareg.register.images import Images
from somareg.register.tiles.overview import read_overview
from somareg.types import FloatArray, Grid

SMALL_PX, LARGE_PX = 160, 3072  # longer side of the small image, and largest of the large one, during the search
LEAST_PX = 8  # shorter side below which nothing is looked for, because the large image had to be reduced too much
PLACE_BYTES = 85.0  # per pixel of the large image at the resolution of the search
TURN_DEG, SCALE = 6.0, 1.1  # steps between hypotheses
STILL = ((0.0, 1.0),)  # the only rotation and scale that is tried where georeferences are known

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Located:
    """Where the smaller image fits best.

    Attributes:
        affine: of the correction: reference pixels -> moving pixels, or with georeferences -> reference pixels at the
            moving image's claimed place.
        height, rival: see `Place`.
        uncertain_px: reference pixels.
    """

    affine: AffineTransform
    height: float
    rival: float
    uncertain_px: float


def is_moving_smaller(reference: Grid, moving: Grid) -> bool:
    """Whether the moving image is the one that is looked for in the other."""
    return math.prod(moving.shape) < math.prod(reference.shape)


def look_everywhere(images: Images, cfg: RegisterConfig) -> Located | None:
    """Find the smaller image in the larger one without georeferences; None where they are too small for it.

    Raises:
        MemoryLimitError: the large image does not fit.
    """
    here, there = images.reference, images.moving
    factor = _factor(here.grid.shape, there.grid.shape)
    if min(*here.grid.shape, *there.grid.shape) // factor < LEAST_PX:
        return None
    swapped = is_moving_smaller(here.grid, there.grid)
    small, large = (there, here) if swapped else (here, there)
    roles = ("moving", "reference") if swapped else ("reference", "moving")
    sides = (
        -(-side // factor) + 2 * beyond(own // factor)
        for side, own in zip(large.grid.shape, small.grid.shape, strict=True)
    )
    check_fits(
        LIBRARY_BYTES + PLACE_BYTES * math.prod(sides),
        f"looking for {small.facts.name} in {large.facts.name}",
        f"cut out the part of {large.facts.name} that shows the other image's ground",
    )
    whole = (Block(0, 0, *image.grid.shape[::-1]) for image in (small, large))
    both = [_reduced(*each, factor, cfg) for each in zip((small, large), roles, whole, strict=True)]
    place = find_place(both[0], both[1], _turns(cfg, here.grid))
    up = AffineTransform.reduction(factor)
    between = up.after(place.transform).after(up.inverse)
    start = between.inverse if swapped else between
    return Located(start, place.height, place.rival, float(CHANNELS.stride * factor))


def look_around(images: Images, cfg: RegisterConfig) -> Located | None:
    """Find how far the moving image lies from where its georeference puts it; None where too little is there to tell.

    It is looked for as far as most of the smaller image's footprint stays in the larger one's.
    """
    here, there = images.reference, images.moving
    back = footprint(images.georef, there.grid, inside=True)
    if not len(back):
        return None
    low, high = np.floor(back.min(axis=0)), np.ceil(back.max(axis=0)) + 1
    bounds = np.zeros(2), np.array(here.grid.shape[::-1], float)
    reach = float(beyond(int(np.minimum(high - low, bounds[1]).max())))
    near = np.maximum(low - reach, bounds[0]), np.minimum(high + reach, bounds[1])
    far = np.maximum(low, near[0] - reach), np.minimum(high, near[1] + reach)
    near_block, far_block = (_block(*each) for each in (near, far))
    shapes = [(block.height, block.width) for block in (near_block, far_block)]
    factor = _factor(*shapes)
    if min(*shapes[0], *shapes[1]) // factor < LEAST_PX:
        return None
    try:
        reference = _reduced(here, "reference", near_block, factor, cfg)
        moving = _brought(images, far_block, factor, cfg)
    except NoDataError:
        return None
    if moving is None:
        return None
    swapped = math.prod(moving[0].shape[-2:]) < math.prod(reference[0].shape[-2:])
    small, large = (moving, reference) if swapped else (reference, moving)
    place = find_place(small, large, STILL)
    shift = place.transform.matrix[:, 2] * factor
    corners = np.array([near_block[:2], far_block[:2]], float)
    # The content of the moving image at its claimed place p lies at p + offset.
    offset = corners[0] - corners[1] + shift if swapped else corners[0] - corners[1] - shift
    return Located(
        AffineTransform.from_parameters(shift=tuple(-offset)),
        place.height,
        place.rival,
        float(CHANNELS.stride * factor),
    )


def _block(low: FloatArray, high: FloatArray) -> Block:
    x, y = (int(value) for value in low)
    return Block(x, y, int(high[0]) - x, int(high[1]) - y)


def _factor(one: Shape, other: Shape) -> int:
    """The factor by which both images are reduced for the search of the smaller one in the larger one."""
    small, large = sorted((one, other), key=math.prod)
    wanted = keep_side(round(max(small) / SMALL_PX), *small, least=STRIP_PX)
    return max(wanted, math.ceil(max(large) / LARGE_PX))


def _reduced(image: OpenImage, role: str, part: Block, factor: int, cfg: RegisterConfig) -> tuple[Tensor, Tensor]:
    """Normalised bands (1, C, h, w) and mask (1, 1, h, w) of a part of an image at low resolution."""
    overview = read_overview(image, part, factor, role, cfg)
    raster = overview.view.raster
    data, _ = normalise(raster.data, raster.mask, getattr(cfg, f"{role}_modality"), overview.scale)
    return torch.from_numpy(data)[None], torch.from_numpy(raster.mask)[None, None].float()


def _brought(images: Images, target: Block, factor: int, cfg: RegisterConfig) -> tuple[Tensor, Tensor] | None:
    """The moving image on the reference's pixels as its georeference says, reduced by `factor`.

    Args:
        images, cfg: see `look_around`.
        target: in reference pixels; it may lie outside the reference.
        factor: reference pixels per pixel.
    """
    middle = target.x + (target.width - 1) / 2, target.y + (target.height - 1) / 2
    jacobian = jacobian_at(images.georef, middle)
    if not np.isfinite(jacobian).all():
        return None
    own_factor = max(1, int(factor * math.sqrt(abs(np.linalg.det(jacobian)))))
    part = part_under(images.georef, target, 0.0, images.moving.grid)
    if min(part.width, part.height) // own_factor < LEAST_PX:
        return None
    image, mask = _reduced(images.moving, "moving", part, own_factor, cfg)
    there = AffineTransform.from_parameters(shift=(part.x, part.y)).after(AffineTransform.reduction(own_factor))
    here = AffineTransform.from_parameters(shift=(target.x, target.y)).after(AffineTransform.reduction(factor))
    to_moving = compose(there.inverse, images.georef, here)
    return warp_to_reference(image, mask, to_moving, (target.height // factor, target.width // factor), 0)


def _turns(cfg: RegisterConfig, reference: Grid) -> list[tuple[float, float]]:
    """Hypotheses (rotation in degrees, scale) of the search, the likeliest first."""
    search = engine_settings(cfg, reference, 1.0).search
    count = math.ceil(search.rotation_deg / TURN_DEG)
    turns = [i * TURN_DEG for i in range(-count, count + 1) if abs(i * TURN_DEG) < 180.0 or i > 0]
    low, high = (math.ceil(abs(math.log(end)) / math.log(SCALE)) for end in search.scale)
    scales = [SCALE**i for i in range(1 - low, high)]
    hypotheses = [(turn, scale) for turn in turns for scale in scales]
    return sorted(hypotheses, key=lambda one: abs(one[0]) / TURN_DEG + abs(math.log(one[1])) / math.log(SCALE))
