"""An open image, read window by window: its selected bands, and the pixels where all of them are valid."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import NoDataError
from somareg.io.masks import MaskFile, open_mask
from somareg.io.raster import check_any_valid, check_size, count_non_finite
from somareg.io.source import Block
from somareg.types import BoolArray, Grid, Header, Raster

log = logging.getLogger("somareg.io")

HOPELESS = 0.01  # least share of one band's valid pixels that must be valid in all bands


@dataclass(frozen=True, eq=False)
class OpenImage:
    """An image that can be read window by window, whether it is a file or in memory.

    Attributes:
        facts: grid and metadata of the whole image, with pixels when it is in memory.
        pixels: block, bands -> pixels (C, h, w) and per-band mask (C, h, w) of these bands.
        numbers: 1-based numbers in the file of the bands that `facts` counts.
        most: number of bands in the file, alpha bands included.
        bands: numbers of the selected bands.
        block_bytes: of the largest pieces of its file and its mask's that are decoded in one go; 0 in memory.
    """

    facts: Raster | Header
    pixels: Callable[[Block, tuple[int, ...]], tuple[NDArray[Any], BoolArray]] = field(repr=False)
    numbers: tuple[int, ...]
    most: int
    bands: tuple[int, ...]
    block_bytes: int = 0

    @property
    def grid(self) -> Grid:
        """The grid of the whole image."""
        return self.facts.grid

    def matched_on(self, bands: tuple[int, ...]) -> OpenImage:
        """Select bands; invalid pixels of other bands no longer count."""
        facts = self.facts
        if isinstance(facts, Header):
            return replace(self, facts=replace(facts, reader=partial(facts.reader, matched=bands)), bands=bands)
        if facts.band_masks is not None:
            mask = facts.band_masks[[self.numbers.index(band) for band in bands]].all(axis=0)
            facts = replace(facts, mask=np.asarray(mask))
        return replace(self, facts=facts, bands=bands)

    def window(self, block: Block) -> tuple[NDArray[Any], BoolArray]:
        """Pixels (C, h, w) of the selected bands, and one mask (h, w), True where all of them are valid."""
        data, valid = self.pixels(block, self.bands)
        return data, np.asarray(valid.all(axis=0))

    def check_size(self, block: Block, max_pixels: float) -> None:
        """Refuse a part that would not fit before anything is allocated.

        Raises:
            InputError: more than `max_pixels` values.
        """
        check_size(self.facts.name, (block.width, block.height, len(self.bands)), max_pixels)

    def read(self, block: Block) -> Raster:
        """Read a part of the selected bands as a `Raster`.

        Raises:
            NoDataError: hardly a pixel is valid in all selected bands.
            ReadError: the file is damaged there.
        """
        facts = self.facts
        data, valid = self.pixels(block, self.bands)
        mask: BoolArray = np.asarray(valid.all(axis=0))
        about = about_bands(facts.name, self.bands, [float(own.mean()) for own in valid], float(mask.mean()))
        if about and mask.sum() < HOPELESS * valid.sum(axis=(1, 2)).max():
            raise NoDataError(about[0])
        for note in about:
            log.warning(note)
        check_any_valid(mask, facts.name, facts.nodata)
        remarks = () if isinstance(facts, Raster) else count_non_finite(data, facts.name)
        return Raster(
            data=data,
            mask=mask,
            grid=facts.grid.part(*block),
            name=facts.name,
            nodata=facts.nodata,
            descriptions=tuple(facts.descriptions[self.numbers.index(b)] for b in self.bands if self._is_described(b)),
            notes=(*facts.notes, *remarks, *about),
        )

    def _is_described(self, band: int) -> bool:
        return band in self.numbers and self.numbers.index(band) < len(self.facts.descriptions)


def about_bands(name: str, bands: tuple[int, ...], shares: list[float], together: float) -> tuple[str, ...]:
    """Describe the valid shares when bands are valid in different places, so that hardly a pixel is valid in all.

    Args:
        name: of the image.
        bands: numbers of the selected bands.
        shares: valid share of each band, 0-1.
        together: share of pixels valid in all bands, 0-1.
    """
    most = max(shares)
    if most == 0 or together >= 0.5 * most:
        return ()
    by_band = ", ".join(f"{band} ({share:.0%})" for band, share in zip(bands, shares, strict=True))
    fullest = [band for band, share in zip(bands, shares, strict=True) if share > 0.5 * most]
    way = f"; name fewer bands, for example {','.join(map(str, fullest))}" if len(fullest) < len(bands) else ""
    return (f"{name}: {together:.0%} of the pixels are valid in all matched bands; in each band: {by_band}{way}",)


def in_memory(raster: Raster) -> OpenImage:
    """Wrap a raster in memory as an open image; bands keep their numbers in the file."""
    names = raster.colorinterp
    most = max(raster.count, len(names))
    every = tuple(i for i in range(1, most + 1) if most == raster.count or names[i - 1] != "alpha")[: raster.count]
    valid, data = raster.valid, raster.data

    def sliced(block: Block, bands: tuple[int, ...]) -> tuple[NDArray[Any], BoolArray]:
        selection = slice(None) if bands == every else [every.index(band) for band in bands]
        part = slice(block.y, block.y + block.height), slice(block.x, block.x + block.width)
        return data[(slice(None), *part)][selection], valid[(slice(None), *part)][selection]

    return OpenImage(raster, sliced, every, most, every)


def masked(image: OpenImage, mask: MaskFile, again: tuple[str, str | None, str]) -> OpenImage:
    """Apply a mask file to an open image.

    Args:
        image: open.
        mask: open.
        again: file, classes and role, to open the mask again when the whole image is read.
    """

    def pixels(block: Block, bands: tuple[int, ...]) -> tuple[NDArray[Any], BoolArray]:
        data, valid = image.pixels(block, bands)
        return data, valid & mask.valid(block)

    facts = image.facts
    if isinstance(facts, Header):
        notes = (*facts.notes, *mask.notes)
        reader = partial(_read_masked, again, facts.reader)
        result = replace(image, facts=replace(facts, notes=notes, reader=reader), pixels=pixels)
    else:
        result = replace(in_memory(apply_mask(facts, mask)), bands=image.bands)
    return replace(result, block_bytes=image.block_bytes + mask.source.block_bytes)


def apply_mask(raster: Raster, mask: MaskFile) -> Raster:
    """Apply a mask file to a raster in memory."""
    valid = mask.valid(Block(0, 0, raster.grid.width, raster.grid.height))
    bands = raster.band_masks
    return replace(
        raster,
        mask=raster.mask & valid,
        band_masks=None if bands is None else bands & valid,
        notes=(*raster.notes, *mask.notes),
    )


def _read_masked(
    mask: tuple[str, str | None, str], reader: Callable[..., Raster], *, matched: tuple[int, ...] | None = None
) -> Raster:
    """Read an image by its reader and apply the mask (file, classes, role)."""
    raster = reader(matched=matched)
    file, values, role = mask
    with open_mask(file, values, raster.grid, raster.name, role) as opened:
        return apply_mask(raster, opened)
