"""Both images, open, and the map between them by their georeferences."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import rasterio

from somareg.config import RegisterConfig
from somareg.errors import ConfigError
from somareg.io import check_overlap, georeference
from somareg.io.georef import check_crs
from somareg.io.inputs import Located, OpenImage, open_image
from somareg.io.memory import block_cache
from somareg.io.source import Block
from somareg.io.unnamed import in_one_system
from somareg.preprocess.bands import check_bands, choose_bands
from somareg.runtime.budget import limited
from somareg.types import BoolArray, Grid, Modality, Raster, Transform

log = logging.getLogger("somareg.register")


@dataclass(frozen=True, eq=False)
class Images:
    """Both images, before any pixel of a file is read.

    Attributes:
        moving, reference: the images.
        georef: reference pixels -> moving pixels; pixel on pixel without georeferences.
    """

    moving: OpenImage
    reference: OpenImage
    georef: Transform

    @property
    def is_placed(self) -> bool:
        """Whether georeferences relate the images."""
        return self.reference.grid.is_georeferenced


def bounded_cache() -> rasterio.Env:
    """GDAL may keep so many decoded blocks, see `somareg.io.memory`."""
    return rasterio.Env(GDAL_CACHEMAX=block_cache())


@contextmanager
def open_images(
    moving: Located,
    reference: Located,
    cfg: RegisterConfig,
    masks: tuple[BoolArray | None, BoolArray | None] = (None, None),
    *,
    again: bool = False,
) -> Iterator[Images]:
    """Open both images, choose the bands to match and relate the georeferences.

    Args:
        moving, reference: from `locate`.
        cfg: settings.
        masks: of moving and reference in memory, see `open_image`.
        again: see `open_image`.

    Raises:
        ConfigError, ReadError, InputError, NoDataError, UnsupportedError, GeoreferenceError, NoOverlapError,
            MemoryLimitError: see `somareg.errors`.
    """
    if cfg.assume_crs:
        check_crs(cfg.assume_crs)
    with (
        limited(cfg.max_memory),
        bounded_cache(),
        open_image(moving, "moving", masks[0], cfg, again=again) as moving_image,
        open_image(reference, "reference", masks[1], cfg, again=again) as reference_image,
    ):
        away = matched(moving_image, "moving", cfg.moving_bands, cfg.moving_modality)
        here = matched(reference_image, "reference", cfg.reference_bands, cfg.reference_modality)
        here, away = _in_one_system(here, away)
        if cfg.assume_crs and not any("CRS assumed to be" in n for image in (here, away) for n in image.facts.notes):
            away = _noted(away, f"assume_crs {cfg.assume_crs} is not used: both images name a CRS of their own")
        if not (here.grid.is_georeferenced and away.grid.is_georeferenced):
            for image in (away, here):  # all of it will be read
                image.check_size(Block(0, 0, image.grid.width, image.grid.height), cfg.max_pixels)
        names = here.facts.name, away.facts.name
        georef = georeference(here.grid, away.grid, names)
        if here.grid.is_georeferenced:
            check_overlap(here.grid, away.grid, names)
        yield Images(away, here, georef)


def matched(image: OpenImage, role: str, wanted: tuple[int, ...] | None, modality: Modality) -> OpenImage:
    """Select the bands to match: the user's, by their numbers in the file, else those of `choose_bands`.

    Raises:
        ConfigError: a band that it does not have.
    """
    facts = image.facts
    own = len(image.numbers)
    if wanted:
        check_bands(wanted, image.most, facts.name)
        for band in wanted:
            if band not in image.numbers:
                raise ConfigError(
                    f"band {band} of {facts.name} is its alpha band, which cannot be matched in memory; give the file"
                )
        bands = wanted
    else:
        bands = tuple(image.numbers[i - 1] for i in choose_bands(own, None, facts.descriptions, modality))
    if own > len(bands):
        note = f"{role}: matched on band {', '.join(map(str, bands))} of {own}"
        image = replace(image, facts=replace(facts, notes=(*facts.notes, note)))
    return image.matched_on(bands)


def all_bands(raster: Raster) -> tuple[int, ...]:
    """Numbers of all bands in the file of an image of which only the matched ones were read."""
    return tuple(range(1, raster.count + 1))


def _in_one_system(reference: OpenImage, moving: OpenImage) -> tuple[OpenImage, OpenImage]:
    """Use geotransforms without a CRS when they fit, see `somareg.io.unnamed.in_one_system`."""
    names = reference.facts.name, moving.facts.name
    here, there, note = in_one_system(reference.grid, moving.grid, names)
    if not note:
        return reference, moving
    return _on(reference, here), _noted(_on(moving, there), note)


def _on(image: OpenImage, grid: Grid) -> OpenImage:
    return replace(image, facts=replace(image.facts, grid=grid))


def _noted(image: OpenImage, note: str) -> OpenImage:
    log.warning(note)
    return replace(image, facts=replace(image.facts, notes=(*image.facts.notes, note)))
