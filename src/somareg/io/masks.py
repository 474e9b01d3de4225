"""Masks in files of their own, on any grid: clouds, water, an area of interest."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from somareg.errors import ConfigError, InputError
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import on_lattice, pixel_centres, source_window
from somareg.geometry.proportions import same_proportions, scaling
from somareg.geometry.resample import resample
from somareg.io.georef import check_overlap, georeference
from somareg.io.source import Block, RasterSource, open_source
from somareg.io.stac import find_asset
from somareg.types import IDENTITY, BoolArray, Classes, Grid, Transform

log = logging.getLogger("somareg.io")

_BLOCK_PX = 1024
_WINDOW_VALUES = 16_000_000  # of a mask that are read at a time


@dataclass(frozen=True, eq=False)
class MaskFile:
    """An open mask, sampled at the pixels of an image.

    Attributes:
        source: the open file.
        to_mask: pixel centres of the image -> pixel centres of the mask.
        classes: values that are invalid; None where zero is, as in the masks of GDAL.
        notes: how the mask is interpreted, for the report.
    """

    source: RasterSource = field(repr=False)
    to_mask: Transform
    classes: Classes | None
    notes: tuple[str, ...]

    def valid(self, block: Block) -> BoolArray:
        """(h, w), True where the nearest pixel of the mask keeps a pixel of the image valid.

        Raises:
            ReadError: the file is damaged there.
        """
        valid = np.empty((block.height, block.width), bool)
        for top in range(0, block.height, _BLOCK_PX):
            for left in range(0, block.width, _BLOCK_PX):
                h, w = min(_BLOCK_PX, block.height - top), min(_BLOCK_PX, block.width - left)
                part = Block(block.x + left, block.y + top, w, h)
                valid[top : top + h, left : left + w] = self._part(part)
        return valid

    def _part(self, block: Block) -> BoolArray:
        x, y, w, h = block
        xy = on_lattice(self.to_mask, (x, y, x + w - 1, y + h - 1))(pixel_centres(*block))
        window = source_window(xy, self.source.grid.shape, margin=2)
        outside = self.classes is not None  # a pixel outside the mask belongs to no class
        if window is None:
            return np.full((h, w), outside)
        if window[2] * window[3] * self.source.count > _WINDOW_VALUES and max(w, h) > 16:
            half = w // 2 if w >= h else h // 2
            first = block._replace(width=half) if w >= h else block._replace(height=half)
            rest = block._replace(x=x + half, width=w - half) if w >= h else block._replace(y=y + half, height=h - half)
            return np.concatenate([self._part(first), self._part(rest)], axis=1 if w >= h else 0)
        own = self._own(Block(*window))
        picked, inside = resample(own[None], None, (xy - window[:2]).reshape(h, w, 2), kernel="nearest")
        return np.where(inside, picked[0], outside)

    def _own(self, block: Block) -> BoolArray:
        """(h, w), True where all bands of the mask are valid."""
        values, valid = self.source.read(block)
        if self.classes is not None:
            return np.asarray(~self.classes.hold(values).any(axis=0))
        return np.asarray(((values != 0) & valid).all(axis=0))


@contextmanager
def open_mask(path: str, values: str | None, image: Grid, name: str, role: str) -> Iterator[MaskFile]:
    """Open the mask of an image; no pixel is read yet.

    Args:
        path: file of one or more bands, all of which count, or "item.json#ASSET".
        values: invalid classes, see `Classes.parse`; None for zero and what the file itself masks.
        image: grid of the image.
        name: what messages call the image.
        role: of the image, "moving", "reference" or "input".

    Raises:
        ReadError, UnsupportedError: it cannot be opened, see `open_source`.
        InputError: complex values, or neither georeferences nor proportions place the mask on the image.
        NoOverlapError: the mask does not cover the image.
        GeoreferenceError: its CRS cannot be joined with the image's.
    """
    with open_source(mask_file(path, role), role=f"{role} mask", tell=False) as source:
        if source.dtype.kind == "c":
            raise InputError(f"{source.name} is complex; give a mask of whole numbers")
        to_mask, share, how = _place(image, source, name)
        classes = None if values is None else Classes.parse(values)
        rule = "where it is 0 or without data" if classes is None else f"where it is one of {classes}"
        bands = f" in any of its {source.count} bands" if source.count > 1 else ""
        notes = [f"{role} image: invalid by {source.name} {rule}{bands}{how}"]
        if share < 0.99:
            beyond = "invalid" if classes is None else "as the image itself says"
            notes.append(f"{source.name} covers {share:.0%} of the {role} image; elsewhere pixels are {beyond}")
        yield MaskFile(source, to_mask, classes, tuple(notes))


def mask_file(path: str, role: str) -> Path:
    """The file of a mask, named directly or by a STAC Item; see `find_asset` for errors."""
    asset = find_asset(path, f"{role} mask")
    return Path(path) if asset is None else asset.path


def classes_of_array(mask: NDArray[np.generic], values: str | None) -> BoolArray:
    """(H, W), True where a mask in memory keeps a pixel valid: where it is not zero, or not one of the classes.

    Raises:
        ConfigError: it holds no numbers.
    """
    classes = np.asarray(mask)
    if classes.dtype.kind not in "biuf":
        raise ConfigError("moving_mask, reference_mask and mask are files, or arrays (H, W) of bool or numbers")
    return np.asarray(classes, bool) if values is None else ~Classes.parse(values).hold(classes)


def check_mask_values(mask: object, values: str | None, option: str) -> None:
    """Refuse classes without a mask.

    Raises:
        ConfigError: naming the option.
    """
    if values is not None and mask is None:
        raise ConfigError(f"{option} lists classes of a mask, but no mask is given; give it, too")


def _place(image: Grid, source: RasterSource, name: str) -> tuple[Transform, float, str]:
    """The map from image to mask, the share of the image that the mask covers, and a note on how it was placed."""
    mask, how = source.grid, ""
    if image.crs is None and mask.crs is None and IDENTITY not in (image.transform, mask.transform):
        corner, right, below = mask.to_pixel(image.to_map(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
        between = AffineTransform(np.stack([right - corner, below - corner, corner], axis=-1))
        return between, 1.0, ", placed by the geotransforms of both"
    if image.crs is not None and mask.crs is None and mask.transform != IDENTITY:
        mask, how = replace(mask, crs=image.crs), ", taken to have the image's CRS"
    elif image.crs is None and mask.crs is not None and image.transform != IDENTITY:
        image, how = replace(image, crs=mask.crs), ", whose CRS the image is taken to have"
    if image.crs is not None and mask.crs is not None:
        names = name, source.name
        return georeference(image, mask, names), check_overlap(image, mask, names), how
    if not same_proportions(image, mask):
        raise InputError(
            f"{source.name} is {mask.width} x {mask.height} px, not in proportion to {name} ({image.width} x "
            f"{image.height} px); without a georeference in both it must show the same frame"
        )
    return scaling(image, mask), 1.0, ""
