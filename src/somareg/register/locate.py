"""Locate the common ground, by georeferences or by searching a small image in a large one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from somareg.config import RegisterConfig
from somareg.errors import GeoreferenceError
from somareg.geometry import AffineTransform, compose
from somareg.matching.place import MIN_SEEN
from somareg.register.choose import search_radius
from somareg.register.ground import RIM_PX, Ground, Radius, common_ground, footprint, ground_at
from somareg.register.images import Images
from somareg.register.places import Located, is_moving_smaller, look_around, look_everywhere
from somareg.tiepoints.use import Given, reach_px
from somareg.types import Grid

_EVERY = 16  # step between points of an outline at which lengths are measured
# Least height of a likely place, see `Place`; the second for images of about one size without georeferences. Pairs of
# different places reach 4.8 with georeferences (n 299), 5.7 without (n 231).
HEIGHT, FAR_HEIGHT = 5.0, 6.0
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
    rim = {"rim_px": math.inf} if _names_radius(cfg) else {}
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
    different size may also show the same ground at different pixel sizes. With georeferences, the moving image is
    looked for further away after the search around its claimed place. If the user has named a search radius, no image
    that was searched around an expected place is looked for further away.
    """
    claimed = known_ground(images, cfg, seed)
    if seed or cfg.search == "local":
        yield claimed
        return
    here, there = images.reference.grid, images.moving.grid
    if not images.is_placed and _is_part(here, there, _radius(cfg, images)):
        found = look_everywhere(images, cfg)
        if found and found.height >= HEIGHT:
            yield _found(images, cfg, found)
        yield claimed
        return
    yield claimed
    if not _names_radius(cfg):
        further = (_misplaced if images.is_placed else _apart)(images, cfg, claimed)
        if further:
            yield further


def _names_radius(cfg: RegisterConfig) -> bool:
    """Whether the user has said how far to search."""
    return cfg.search_radius_px is not None or cfg.search_radius_m is not None


def _apart(images: Images, cfg: RegisterConfig, claimed: Ground) -> Ground | None:
    """The common ground, without georeferences, if it lies beyond the search around the middle."""
    here, there = images.reference.grid, images.moving.grid
    found = look_everywhere(images, cfg)
    if found is None or found.height < FAR_HEIGHT or _off_middle(found.affine, here, there) <= claimed.radius_px:
        return None
    return _found(images, cfg, found)


def _found(images: Images, cfg: RegisterConfig, found: Located) -> Ground:
    """The common ground where the smaller image was found in the larger one."""
    here, there = images.reference.grid, images.moving.grid
    ground = ground_at(found.affine, here, there, _radius(cfg, images), RIM_PX + 2 * found.uncertain_px)
    role = "moving image" if is_moving_smaller(here, there) else "reference"
    column, row = (found.affine.inverse if role == "moving image" else found.affine)(np.zeros((1, 2)))[0]
    note = f"the {role} was located in the other image, from column {column:.0f}, row {row:.0f} on"
    notes = (note, *_about_radius(cfg, images))
    return replace(ground, notes=notes, doubts=_rivals(found, role, "write a georeference"), is_looked_for=True)


def _misplaced(images: Images, cfg: RegisterConfig, claimed: Ground) -> Ground | None:
    """The common ground if the moving image lies beyond the search around where its georeference puts it."""
    found = look_around(images, cfg)
    if found is None or found.height < HEIGHT:
        return None
    x, y = (float(value) for value in found.affine.matrix[:, 2])
    apart = math.hypot(x, y)
    if apart <= claimed.radius_px:
        return None
    here, there = images.reference.grid, images.moving.grid
    try:
        ground = common_ground(here, there, compose(images.georef, found.affine), _radius(cfg, images))
    except GeoreferenceError:  # a map that is torn there
        return None
    notes = (*ground.notes, f"the georeferences seem to be {apart:.0f} px apart; matched there")
    doubts = _rivals(found, "moving image", "correct its georeference")
    return replace(ground, notes=notes, doubts=doubts, is_looked_for=True, offset=(x, y))


def _rivals(found: Located, role: str, way_out: str) -> tuple[str, ...]:
    """Doubts about a place that is hardly better than another one."""
    if found.height >= found.rival * RIVAL:
        return ()
    return (f"The {role} fits another place of the other image nearly as well; {way_out} or give tie points.",)


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
        places = np.clip(footprint(images.georef, images.moving.grid)[::_EVERY], 0.0, outermost)
        places = places if len(places) else None
    return partial(search_radius, cfg, images.reference.grid, places=places)


def _useful_px(images: Images) -> float:
    """The largest search radius that leaves some overlap, reference pixels."""
    sides = [float(side) for side in images.reference.grid.shape]
    if not images.is_placed:
        sides += images.moving.grid.shape
    elif len(points := footprint(images.georef, images.moving.grid)):
        sides += np.ptp(points, axis=0).tolist()
    return USEFUL * max(sides)


def _about_radius(cfg: RegisterConfig, images: Images) -> tuple[str, ...]:
    """A note when the user's radius was larger than useful."""
    reach, most = _asked(cfg, images)(0.0), _useful_px(images)
    if not _names_radius(cfg) or reach <= most:
        return ()
    return (f"searched {most:.0f} px far, not {reach:.0f} px as asked: farther away the images would hardly overlap",)


def _is_part(reference: Grid, moving: Grid, radius: Radius) -> bool:
    """Whether one image is so small in the other that a search around the middle does not reach all places."""
    smaller, larger = sorted((reference.shape, moving.shape), key=math.prod)
    room = max(n - m for n, m in zip(larger, smaller, strict=True)) / 2
    fits = all(n >= MIN_SEEN * m for n, m in zip(larger, smaller, strict=True))
    return room > radius(max(reference.shape)) and fits
