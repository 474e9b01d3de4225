"""Decide whether a ground is matched whole or in tiles, and predict the memory before any pixel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from somareg.config import SCENE_PX, RegisterConfig
from somareg.errors import MemoryLimitError
from somareg.io.inputs import OpenImage
from somareg.io.memory import CACHE_BYTES, check_fits
from somareg.io.source import Block
from somareg.preprocess.prepare import is_brought, working_factor
from somareg.register.choose import LIBRARY_BYTES, LONGEST, Chosen, longest_of
from somareg.register.dense import NODE_PX
from somareg.register.ground import ROOM_PX, Ground
from somareg.register.images import Images
from somareg.register.tiles.layout import SceneCfg, lay_tiles, side_by_side
from somareg.register.tiles.overview import STRIP_VALUES, factors
from somareg.register.tiles.votes import MIN_SURE
from somareg.runtime.budget import allowed, in_words
from somareg.types import Raster

# Measured as the largest resident set of registrations of 256 to 3000 px, with and without georeferences.
PER_PX = {"orientation": (85.0, 35.0), "learned": (150.0, 120.0)}
"""Per engine: bytes per working pixel of both images, and extra bytes for each of the first `FIRST_PX` pixels."""
FIRST_PX = 2e6
PER_PLACE = 85.0
"""Bytes per possible shift of the search, counted in working pixels."""
TILE_BYTES = 200e6


@dataclass(frozen=True)
class Road:
    """How a ground is matched.

    Attributes:
        is_tiled: in tiles, else whole.
        count: bytes that a process needs for it.
        note: why the choice differs from the one by size; "" otherwise.
    """

    is_tiled: bool
    count: float
    note: str = ""


def choose_road(images: Images, ground: Ground, cfg: RegisterConfig, chosen: Chosen, sizes: SceneCfg) -> Road:
    """Choose whole or tiled matching for a ground.

    Points that replace the match need no tiles. A ground that does not hold enough tiles side by side to check one by
    another is matched whole even if tiles were requested: tiles of the same pixels are one witness, not four. If memory
    is too short for the whole, tiles are used, because they need less.
    """
    whole = Road(is_tiled=False, count=_whole(images, ground, cfg, chosen))
    if cfg.tie_points_use == "replace" or cfg.scene == "never":
        return whole
    if len(lay_tiles(ground.shape, sizes, sizes.tiles[cfg.preset]).blocks) < MIN_SURE:
        return whole
    tiled = Road(is_tiled=True, count=_tiled(images, ground, cfg, chosen, sizes))
    can_check = side_by_side(ground.shape, sizes) >= MIN_SURE
    if can_check and (cfg.scene == "always" or max(ground.shape) > SCENE_PX):
        return tiled
    limit = allowed()
    if whole.count <= limit or tiled.count > limit:
        return whole
    note = f"matched in tiles: whole it would take {in_words(whole.count)} of memory, and {in_words(limit)} may be used"
    return Road(is_tiled=True, count=tiled.count, note=note)


def check_road(images: Images, ground: Ground, cfg: RegisterConfig, road: Road) -> None:
    """Refuse a road that needs more memory than may be used, before any pixel is read.

    Raises:
        MemoryLimitError: it needs more; the message names both parts and the way out.
    """
    here, there = ground.reference, ground.moving
    pair = f"{there.width} x {there.height} px of {images.moving.facts.name} with "
    pair += f"{here.width} x {here.height} px of {images.reference.facts.name}"
    check_fits(road.count, f"matching {pair}", _way_out(ground, cfg, road))


def not_tried(images: Images, ground: Ground, cfg: RegisterConfig, road: Road) -> str:
    """A note for a ground that is left out because it needs too much memory; "" for one that fits."""
    try:
        check_road(images, ground, cfg, road)
    except MemoryLimitError as error:
        return f"not tried: {error}"
    return ""


def _way_out(ground: Ground, cfg: RegisterConfig, road: Road) -> str:
    here, there = (max(part.width, part.height) for part in (ground.reference, ground.moving))
    if not ground.is_placed and max(here, there) > 4 * min(here, there):
        larger = "moving image" if there > here else "reference"
        return f"cut out the part of the {larger} that shows the other image's ground"
    if ground.is_placed and ground.radius_px > 0.5 * here and (cfg.search_radius_px or cfg.search_radius_m):
        return "search less far (--search-radius)"
    if cfg.scene == "never" and max(ground.shape) > LONGEST["fast"]:
        return "leave out --scene never"
    if cfg.preset != "fast" and not road.is_tiled:
        return "take --preset fast"
    return "give a smaller part of the images"


def working_sizes(ground: Ground, factor: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the reference and of the moving image at 1/`factor` of the reference's resolution.

    If the pair is georeferenced, the moving image is resampled to the reference's grid, enlarged by the search radius;
    so is one whose pixels are of a very different size, as far as it reaches.
    """
    height, width = (side // factor for side in ground.shape)
    there = ground.moving.height, ground.moving.width
    if not (ground.is_placed or is_brought(ground.shape, there, ground.georef)):
        return (height, width), (there[0] // factor, there[1] // factor)
    pad = 2 * (math.ceil(ground.radius_px / factor if ground.knows else 0) + ROOM_PX)
    return (height, width), (height + pad, width + pad)


def whole_factor(ground: Ground, cfg: RegisterConfig) -> int:
    """Factor by which a ground is reduced if it is matched whole."""
    there = ground.moving.height, ground.moving.width
    is_onto = ground.is_placed or is_brought(ground.shape, there, ground.georef)
    return working_factor(ground.shape, None if is_onto else there, longest_of(cfg.preset, ground.shape))


def _whole(images: Images, ground: Ground, cfg: RegisterConfig, chosen: Chosen) -> float:
    factor = whole_factor(ground, cfg)
    both = ((images.reference, ground.reference), (images.moving, ground.moving))
    held = sum(_read(image, part) for image, part in both)
    on_the_way = max(_reduced(image, part, factor) for image, part in both)
    matched = _matched(working_sizes(ground, factor), ground.radius_px / factor, images, chosen)
    return LIBRARY_BYTES + held + max(on_the_way, matched) + _decoded(images, ground) + _given_out(images, cfg, ground)


def _tiled(images: Images, ground: Ground, cfg: RegisterConfig, chosen: Chosen, sizes: SceneCfg) -> float:
    largest = (
        ground.shape if ground.is_placed else max(ground.shape, (ground.moving.height, ground.moving.width), key=max)
    )
    factor, away = factors(ground, sizes.factor(largest))
    here, there = working_sizes(ground, factor)
    seen = (ground.moving.height // away, ground.moving.width // away)
    kept = sum(
        height * width * (4 * len(image.bands) + 1)
        for (height, width), image in ((here, images.reference), (seen, images.moving))
    )
    strips = max(STRIP_VALUES * (image.facts.dtype.itemsize + 12) for image in (images.reference, images.moving))
    matched = _matched((here, there), ground.radius_px / factor, images, chosen)
    work = max(strips, matched, TILE_BYTES)
    return LIBRARY_BYTES + kept + work + _decoded(images, ground) + _given_out(images, cfg, ground)


def _matched(shapes: tuple[tuple[int, int], tuple[int, int]], radius: float, images: Images, chosen: Chosen) -> float:
    """Bytes of the working images, their features, and the votes on shifts."""
    pixels = [height * width for height, width in shapes]
    total = sum(pixels)
    rates = [PER_PX["orientation" if one.network is None else "learned"] for one in (chosen, chosen.rival) if one]
    features = max(total * each + min(total, FIRST_PX) * more for each, more in rates)
    bands = len(images.reference.bands), len(images.moving.bands)
    values = sum(count * 12 * (number - 1) for count, number in zip(pixels, bands, strict=True))
    return features + values + (2 * radius) ** 2 * PER_PLACE


def _read(image: OpenImage, part: Block) -> float:
    """Bytes of the pixels and mask of a part; an image in memory is not read again."""
    size = 0 if isinstance(image.facts, Raster) else image.facts.dtype.itemsize
    return part.width * part.height * (len(image.bands) * (size + 1) + 1)


def _reduced(image: OpenImage, part: Block, factor: int) -> float:
    """Extra bytes while a part is averaged, or only converted to float."""
    size = image.facts.dtype.itemsize
    return part.width * part.height * (12 * len(image.bands) + 8 if factor == 1 else size + 16)


def _decoded(images: Images, ground: Ground) -> float:
    """Bytes that GDAL holds of both files: blocks that are decoded at once, and its cache."""
    pieces = sum(2 * image.block_bytes for image in (images.reference, images.moving))
    kept = sum(
        float(part.width * part.height) * image.facts.dtype.itemsize * image.facts.count
        for image, part in ((images.reference, ground.reference), (images.moving, ground.moving))
        if not isinstance(image.facts, Raster)
    )
    return pieces + min(float(CACHE_BYTES), kept)


def _given_out(images: Images, cfg: RegisterConfig, ground: Ground) -> float:
    """Bytes of the outputs (displacement, certainty, expected error) and of the points where they are evaluated."""
    height, width = ground.shape if cfg.extent == "common" else images.reference.grid.shape
    step = NODE_PX if max(height, width) > SCENE_PX else 1
    return 16 * height * width / step**2
