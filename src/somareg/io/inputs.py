"""Everything that `register` takes as an image, turned into a `Raster`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.errors import ConfigError
from somareg.io.dataarray import from_dataarray, is_dataarray
from somareg.io.georef import assume_crs
from somareg.io.raster import (
    check_any_valid,
    check_side,
    check_size,
    count_non_finite,
    file_sha256,
    from_array,
    header_of,
    read_raster,
)
from somareg.io.source import Block, open_source
from somareg.io.stac import StacAsset, find_asset
from somareg.types import BoolArray, Grid, Header, Raster

if TYPE_CHECKING:
    import pystac
    import xarray

log = logging.getLogger("somareg.io")

Image: TypeAlias = "str | Path | NDArray[Any] | Raster | Header | xarray.DataArray | pystac.Item | pystac.Asset"
"""Path of a raster or "item.json#ASSET", array, Raster, an image of a `Result`, DataArray, STAC Item or Asset."""

Located: TypeAlias = "str | Path | NDArray[Any] | Raster | xarray.DataArray | StacAsset"


Facts = TypeVar("Facts", Raster, Header)


def locate(image: Image, role: str) -> Located:
    """The image itself, or the asset that a STAC reference means (see `find_asset` for errors)."""
    if isinstance(image, Header):  # of a result
        return image.reader()
    found = find_asset(image, role)
    return image if found is None else found  # type: ignore[return-value]  # what is no asset is no pystac object


def told_modalities(moving: Located, reference: Located, said: Mapping[str, Any]) -> dict[str, Any]:
    """`moving_modality` and `reference_modality`, as said, else as STAC Items tell; without either there is none."""
    told = {"moving_modality": moving, "reference_modality": reference}
    found = {key: said.get(key) or getattr(image, "modality", None) for key, image in told.items()}
    return {key: value for key, value in found.items() if value is not None}


def file_of(image: Located) -> str | Path | None:
    """The file of an image, as it was given or as a STAC Item names it; None for one in memory."""
    if isinstance(image, StacAsset):
        return image.path
    return image if isinstance(image, str | Path) else None


@dataclass(frozen=True, eq=False)
class OpenImage:
    """An image that can be read window by window, whether it is a file or in memory.

    Attributes:
        facts: what is known of the whole image; its pixels are there too when it is in memory.
        window: block -> pixels (C, h, w) and one mask (h, w), True where all bands are valid.
    """

    facts: Raster | Header
    window: Callable[[Block], tuple[NDArray[Any], BoolArray]] = field(repr=False)

    @property
    def grid(self) -> Grid:
        """Where the pixels of the whole image are."""
        return self.facts.grid

    def check_size(self, block: Block, max_pixels: float) -> None:
        """Refuse a part that would not fit before anything is allocated.

        Raises:
            InputError: more than `max_pixels` values.
        """
        check_size(self.facts.name, (block.width, block.height, self.facts.count), max_pixels)

    def read(self, block: Block) -> Raster:
        """A part of the image as an image of its own.

        Raises:
            NoDataError: no valid pixel in it.
            ReadError: the file is damaged there.
        """
        facts = self.facts
        data, mask = self.window(block)
        check_any_valid(mask, facts.name, facts.nodata)
        counted = () if isinstance(facts, Raster) else count_non_finite(data, facts.name)
        return Raster(
            data=data,
            mask=mask,
            grid=facts.grid.part(*block),
            name=facts.name,
            nodata=facts.nodata,
            descriptions=facts.descriptions,
            notes=(*facts.notes, *counted),
        )


@contextmanager
def open_image(
    image: Located, role: str, mask: BoolArray | None, cfg: RegisterConfig, *, again: bool = False
) -> Iterator[OpenImage]:
    """The image, open; of a file no pixel is read yet. `role` is "moving" or "reference".

    Args:
        image: as `locate` gives it.
        role: for messages and for the options that belong to it.
        mask: (H, W) True where valid; of an image in memory only.
        cfg: settings.
        again: opened once more, as every tile does: nothing is logged and no checksum is made.

    Raises:
        ConfigError: a mask for a file or a Raster.
        ReadError, InputError, NoDataError, UnsupportedError, GeoreferenceError: as `open_source`, `from_array`,
            `from_dataarray` and `assume_crs`.
    """
    path = file_of(image)
    if path is None:
        raster = _placed(read_image(image, role, mask, cfg), cfg)

        def sliced(block: Block) -> tuple[NDArray[Any], BoolArray]:
            part = slice(block.y, block.y + block.height), slice(block.x, block.x + block.width)
            return raster.data[(slice(None), *part)], raster.mask[part]

        yield OpenImage(raster, sliced)
        return
    if mask is not None:
        raise ConfigError(f"{role}_mask goes with arrays; a file or a Raster carries its own mask")
    nodata = cfg.moving_nodata if role == "moving" else cfg.reference_nodata
    reading: dict[str, Any] = {"role": role, "nodata": nodata, "gcp_method": cfg.gcp_method}
    with open_source(path, **reading, expand_palette=True, tell=not again) as source:
        check_side(source.name, source.grid.width, source.grid.height)

        def window(block: Block) -> tuple[NDArray[Any], BoolArray]:
            data, seen = source.read(block)
            return data, np.asarray(seen.all(axis=0))

        facts = header_of(source, path, partial(read_raster, path, **reading, max_pixels=cfg.max_pixels))
        if not again:
            facts = replace(facts, sha256=file_sha256(path))
        if isinstance(image, StacAsset):
            facts = with_item(facts, image, role, cfg)
        yield OpenImage(_placed(facts, cfg), window)


def _placed(image: Facts, cfg: RegisterConfig) -> Facts:
    return assume_crs(image, cfg.assume_crs) if cfg.assume_crs and image.grid.crs is None else image


def read_image(image: Located, role: str, mask: BoolArray | None, cfg: RegisterConfig) -> Raster:
    """The image in memory; `role` is "moving" or "reference".

    Raises:
        ConfigError: a mask for a file or a Raster.
        ReadError, InputError, NoDataError, UnsupportedError: as `read_raster`, `from_array` and `from_dataarray`.
    """
    nodata = cfg.moving_nodata if role == "moving" else cfg.reference_nodata
    if isinstance(image, np.ndarray):
        return from_array(image, mask=mask, role=role, nodata=nodata)
    if is_dataarray(image):
        return from_dataarray(image, mask=mask, role=role, nodata=nodata, max_pixels=cfg.max_pixels)
    if mask is not None:
        raise ConfigError(f"{role}_mask goes with arrays; a file or a Raster carries its own mask")
    if isinstance(image, Raster):
        return image
    path: Any = file_of(image)
    raster = read_raster(path, role=role, nodata=nodata, max_pixels=cfg.max_pixels, gcp_method=cfg.gcp_method)
    return with_item(raster, image, role, cfg) if isinstance(image, StacAsset) else raster


def with_item(raster: Facts, asset: StacAsset, role: str, cfg: RegisterConfig) -> Facts:
    """The image with its Item, and notes about what that told and where it disagrees with the file."""
    taken = cfg.moving_modality if role == "moving" else cfg.reference_modality
    told: list[str] = asset.disagreements(raster.grid)
    for note in told:
        log.warning(note)
    if asset.modality == taken:
        told.append(f"{role} image taken as {taken}: STAC Item {asset.origin.item} says so ({asset.reason})")
    elif asset.modality is not None:
        told.append(
            f"{role} image taken as {taken}, as asked, although STAC Item {asset.origin.item} says "
            f"{asset.modality} ({asset.reason})"
        )
    return replace(raster, origin=asset.origin, notes=(*raster.notes, *told))
