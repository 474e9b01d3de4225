"""The pixels of a tile: a block of the reference, and the moving image brought to its grid by the global affine."""

from __future__ import annotations

import math

import numpy as np
import torch

from somareg.errors import InputError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import pixel_centres, source_window
from somareg.io.inputs import OpenImage, open_image
from somareg.io.source import Block
from somareg.matching.pair import Pair
from somareg.preprocess.grid import to_reference_grid
from somareg.preprocess.ground_only import ground_only
from somareg.preprocess.holes import bridge_holes, bridged
from somareg.preprocess.normalise import normalise
from somareg.register.choose import to_pair
from somareg.register.tiles.job import TileJob
from somareg.types import Grid, Raster, Transform

ROOM_PX = 32  # moving pixels kept beyond the search radius, for the margins of windows
MIN_VALID_SHARE = 0.1  # least share of a tile that must be valid in both images
MAX_VALUES = 100_000_000  # most pixels of a much finer moving image under one tile


def read_patches(job: TileJob) -> tuple[Pair, AffineTransform] | str:
    """Read the pixels of a tile, with the moving image on the reference's grid by the global affine, and the start.

    Returns:
        The pair and the affine from the tile's pixels to those of the moving patch; or the reason for an empty tile.
    """
    settings, cfg, block = job.settings, job.settings.cfg, job.block
    with open_image(settings.reference, "reference", None, cfg, again=True) as image:
        here = image.matched_on(settings.reference_bands)
        reference, reference_mask = here.window(_inside(settings.reference_part, block))
    if reference_mask.mean() < MIN_VALID_SHARE:
        return "hardly any valid pixel in the reference"
    pad = math.ceil(settings.radius_px) + ROOM_PX
    grid = Grid(block.width, block.height)
    with open_image(settings.moving, "moving", None, cfg, again=True) as image:
        patch = _moving_patch(image.matched_on(settings.moving_bands), job, pad)
    if patch is None:
        return "outside the moving image"
    moving, corner, to_moving = patch
    here_on = AffineTransform.from_parameters(shift=(block.x, block.y))
    places = tuple(compose(corner, place, here_on) for place in settings.places)
    picture = Raster(reference, reference_mask, grid)
    modalities = cfg.moving_modality, cfg.reference_modality
    left = ground_only(moving, picture, places, modalities, is_part=True)  # the overview noted it
    if left.doubts:  # what is drawn over both would be matched, and it agrees better than any ground
        return "the finest detail of both images agrees exactly: something may be drawn all over this part"
    reference_mask = left.reference.mask
    moving = bridged(left.moving, "moving")[0]
    warped, warped_mask = to_reference_grid(moving, grid, to_moving, pad=pad)
    if (reference_mask & warped_mask[pad:-pad, pad:-pad]).mean() < MIN_VALID_SHARE:
        return "hardly any valid pixel in common"
    reference, reference_mask, _ = bridge_holes(reference, reference_mask)
    reference, _ = normalise(reference, reference_mask, cfg.reference_modality, cfg.reference_scale)
    warped, _ = normalise(warped, warped_mask, cfg.moving_modality, cfg.moving_scale)
    modalities = cfg.reference_modality, cfg.moving_modality
    pair = to_pair(reference, reference_mask, warped, warped_mask, torch.device(settings.device), modalities)
    return pair, AffineTransform.from_parameters(shift=(pad, pad))


def _inside(part: Block, block: Block) -> Block:
    """Convert a block of a part to pixels of the whole image."""
    return block._replace(x=part.x + block.x, y=part.y + block.y)


def _moving_patch(image: OpenImage, job: TileJob, pad: int) -> tuple[Raster, AffineTransform, Transform] | None:
    """The moving image under a tile, and the maps to its pixels from those of the moving part and of the tile."""
    block, settings = job.block, job.settings
    part, facts = settings.moving_part, image.facts
    shift = AffineTransform.from_parameters(shift=(block.x, block.y))
    whole = compose(settings.georef, settings.start, shift)
    columns, rows = (math.ceil((side + 2 * pad) / 16) + 1 for side in (block.width, block.height))
    points = whole(pixel_centres(0, 0, columns, rows) * 16.0 - pad)
    density = float(np.nanmax(np.abs(np.diff(points[:2], axis=0)), initial=16.0)) / 16.0
    window = source_window(points, (part.height, part.width), margin=8 + math.ceil(density))
    if window is None:
        return None
    if window[2] * window[3] * len(image.bands) > MAX_VALUES:
        raise InputError(
            f"{facts.name} is so much finer than the reference that one tile covers {window[2]} x {window[3]} of its "
            "pixels; resample it closer to the reference's pixel size first"
        )
    data, mask = image.window(_inside(part, Block(*window)))
    raster = Raster(data, mask, Grid(window[2], window[3]), name=facts.name)
    corner = AffineTransform.from_parameters(shift=(-window[0], -window[1]))
    return raster, corner, compose(corner, whole)
