"""Locate the common ground, by georeferences or by searching a small image in a large one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from somareg.config import RegisterConfig
from somareg.geometry import AffineTransform
from somareg.geometry.proportions import STRIP_PX, keep_side
from somareg.io.inputs import OpenImage
from somareg.io.memory import check_fits
from somareg.io.source import Block
from somareg.matching.place import CHANNELS, MIN_SEEN, Place, beyond, find_place
from somareg.preprocess.normalise import normalise
from somareg.register.choose import LIBRARY_BYTES, engine_settings, search_radius
from somareg.register.findings import View
from somareg.register.ground import RIM_PX, Ground, Radius, common_ground, ground_at, outline_of
from somareg.register.images import Images
from somareg.register.tiles.overview import read_overview
from somareg.tiepoints.use import Given, reach_px
from somareg.types import FloatArray, Grid

SMALL_PX, LARGE_PX = 160, 3072  # longer side of the small image, and largest of the large one, during the search
LEAST_PX = 8  # shorter side below which nothing is looked for, because the large image had to be reduced too much
PLACE_BYTES = 85.0  # per pixel of the large image at the resolution of the search
_EVERY = 16  # step between points of an outline at which lengths are measured
TURN_DEG, SCALE = 6.0, 1.1  # steps between hypotheses
# Least height of a likely place, see `Place`: of a small image in a large one, and of one that the search did not find.
HEIGHT, SURE_HEIGHT = 5.0, 6.0
USEFUL = 0.9  # share of the larger image's longer side; a larger search radius leaves next to no overlap
RIVAL = (
    1.2  # ratio of heights below which the second place may be right: 1.0 to 1.1 for repeated ground, else above 1.4
)


def known_ground(images: Images, cfg: RegisterConfig, seed: Given | None = None) -> Ground:
    """The common ground from georeferences and points, without reading pixels."""
    ground, notes = _known_ground(images, cfg, seed), _about_radius(cfg, images)
    return replace(ground, notes=(*ground.notes, *notes)) if notes else ground


def _known_ground(images: Images, cfg: RegisterConfig, seed: Given | None) -> Ground:
    here, there = images.reference.grid, images.moving.grid
    radius = _radius(cfg, images)
    if seed and not images.is_placed and _is_part(here, there, radius):
        return ground_at(seed.affine, here, there, radius)
    # A user who names a radius expects images that far apart.
    rim = {} if cfg.search_radius_px is None and cfg.search_radius_m is None else {"rim_px": math.inf}
    ground = common_ground(here, there, images.georef, radius, **rim)
    if seed is None:
        return ground
    corner = -ground.reference.x, -ground.reference.y
    more = reach_px(seed.moved(corner, corner).affine, ground.shape)
    return common_ground(here, there, images.georef, radius, more, **rim)


def likely_grounds(images: Images, cfg: RegisterConfig, seed: Given | None) -> Iterator[Ground]:
    """Candidates of the common ground, the likeliest first. A caller takes the next one while it is not sure.

    Without georeferences and points, the search around the middle does not reach all places. An image that is small in
    the other one is searched in it first, of other pairs the smaller one in the larger one afterwards. Images of
    different size may also show the same ground at different pixel sizes.
    """
    claimed = known_ground(images, cfg, seed)
    here, there = images.reference.grid, images.moving.grid
    radius = _radius(cfg, images)
    if images.is_placed or seed or cfg.search == "local":
        yield claimed
        return
    is_part = _is_part(here, there, radius)
    if not is_part:
        yield claimed
    factor = _factor(here, there)
    if min(*here.shape, *there.shape) // factor >= LEAST_PX:
        place, start, cell = _look(images, cfg, factor)
        is_new = is_part or _off_middle(start, here, there) > radius(max(here.shape))
        if is_new and place.height >= (HEIGHT if is_part else SURE_HEIGHT):
            yield _found(images, cfg, place, start, RIM_PX + 2 * cell)
    if is_part:
        yield claimed


def _found(images: Images, cfg: RegisterConfig, place: Place, start: AffineTransform, rim_px: float) -> Ground:
    """The common ground where the smaller image was found in the larger one.

    Args:
        images, cfg: see `likely_grounds`.
        place: of the smaller image.
        start: reference pixels -> moving pixels, there.
        rim_px: see `ground_at`.
    """
    here, there = images.reference.grid, images.moving.grid
    ground = ground_at(start, here, there, _radius(cfg, images), rim_px)
    role = "moving image" if _is_moving_smaller(here, there) else "reference"
    column, row = (start.inverse if role == "moving image" else start)(np.zeros((1, 2)))[0]
    note = f"the {role} was located in the other image, from column {column:.0f}, row {row:.0f} on"
    doubts: tuple[str, ...] = ()
    if place.height < place.rival * RIVAL:
        doubts = (
            f"The {role} fits another place of the other image nearly as well; give a georeference or tie points.",
        )
    notes = (note, *_about_radius(cfg, images))
    return replace(ground, notes=notes, doubts=doubts, is_looked_for=True)


def _off_middle(start: AffineTransform, reference: Grid, moving: Grid) -> float:
    """Distance of the moving image's middle from the reference's, reference pixels."""
    here, there = (np.array([(grid.width - 1) / 2, (grid.height - 1) / 2]) for grid in (reference, moving))
    return float(np.abs(start.inverse(there[None])[0] - here).max())


def _radius(cfg: RegisterConfig, images: Images) -> Radius:
    """See `Radius`."""
    radius, most = _asked(cfg, images), _useful_px(images)
    return lambda longest: min(radius(longest), most)


def _asked(cfg: RegisterConfig, images: Images) -> Radius:
    """The radius of the options; metres are converted at the moving image's claimed place, not at the centre of the
    reference.
    """
    places = None
    if cfg.search_radius_m is not None and images.is_placed:
        outermost = np.array(images.reference.grid.shape[::-1]) - 1.0
        places = np.clip(_footprint(images)[::_EVERY], 0.0, outermost)
        places = places if len(places) else None
    return partial(search_radius, cfg, images.reference.grid, places=places)


def _footprint(images: Images) -> FloatArray:
    """Points (N, 2) along the moving image's outline by its georeference, reference pixels."""
    points = images.georef.inverse(outline_of(Block(0, 0, *images.moving.grid.shape[::-1])))
    return points[np.isfinite(points).all(axis=1)]


def _useful_px(images: Images) -> float:
    """The largest search radius that leaves some overlap, reference pixels."""
    sides = [float(side) for side in images.reference.grid.shape]
    if not images.is_placed:
        sides += images.moving.grid.shape
    elif len(points := _footprint(images)):
        sides += np.ptp(points, axis=0).tolist()
    return USEFUL * max(sides)


def _about_radius(cfg: RegisterConfig, images: Images) -> tuple[str, ...]:
    """A note when the user's radius was larger than useful."""
    reach, most = _asked(cfg, images)(0.0), _useful_px(images)
    if (cfg.search_radius_px is None and cfg.search_radius_m is None) or reach <= most:
        return ()
    return (f"searched {most:.0f} px far, not {reach:.0f} px as asked: farther away the images would hardly overlap",)


def _is_part(reference: Grid, moving: Grid, radius: Radius) -> bool:
    """Whether one image is so small in the other that a search around the middle does not reach all places."""
    smaller, larger = sorted((reference.shape, moving.shape), key=math.prod)
    room = max(n - m for n, m in zip(larger, smaller, strict=True)) / 2
    fits = all(n >= MIN_SEEN * m for n, m in zip(larger, smaller, strict=True))
    return room > radius(max(reference.shape)) and fits


def _is_moving_smaller(reference: Grid, moving: Grid) -> bool:
    return math.prod(moving.shape) < math.prod(reference.shape)


def _factor(here: Grid, there: Grid) -> int:
    """The factor by which both images are reduced for the search of the smaller one in the larger one."""
    small, large = sorted((there.shape, here.shape), key=math.prod)
    wanted = keep_side(round(max(small) / SMALL_PX), *small, least=STRIP_PX)
    return max(wanted, math.ceil(max(large) / LARGE_PX))


def _look(images: Images, cfg: RegisterConfig, factor: int) -> tuple[Place, AffineTransform, float]:
    """Find the smaller image in the larger one, both reduced by `factor`: the place, the resulting map from reference
    to moving pixels, and its uncertainty in pixels.
    """
    here, there = images.reference, images.moving
    swapped = _is_moving_smaller(here.grid, there.grid)
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
    both = [_reduced(image, role, factor, cfg) for image, role in zip((small, large), roles, strict=True)]
    place = find_place(both[0], both[1], _turns(cfg, here.grid))
    up = AffineTransform.reduction(factor)
    between = up.after(place.transform).after(up.inverse)
    return place, between.inverse if swapped else between, float(CHANNELS.stride * factor)


def _reduced(image: OpenImage, role: str, factor: int, cfg: RegisterConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised bands (1, C, h, w) and mask (1, 1, h, w) of the whole image at low resolution."""
    overview = read_overview(image, Block(0, 0, image.grid.width, image.grid.height), factor, role, cfg)
    view: View = overview.view
    data, _ = normalise(view.raster.data, view.raster.mask, getattr(cfg, f"{role}_modality"), overview.scale)
    return torch.from_numpy(data)[None], torch.from_numpy(view.raster.mask)[None, None].float()


def _turns(cfg: RegisterConfig, reference: Grid) -> list[tuple[float, float]]:
    """Hypotheses (rotation in degrees, scale) of the search, the likeliest first."""
    search = engine_settings(cfg, reference, 1.0).search
    count = math.ceil(search.rotation_deg / TURN_DEG)
    turns = [i * TURN_DEG for i in range(-count, count + 1) if abs(i * TURN_DEG) < 180.0 or i > 0]
    low, high = (math.ceil(abs(math.log(end)) / math.log(SCALE)) for end in search.scale)
    scales = [SCALE**i for i in range(1 - low, high)]
    hypotheses = [(turn, scale) for turn in turns for scale in scales]
    return sorted(hypotheses, key=lambda one: abs(one[0]) / TURN_DEG + abs(math.log(one[1])) / math.log(SCALE))
