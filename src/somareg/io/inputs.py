"""Everything that `register` accepts as an image, opened or read as a `Raster`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from somareg.config import RegisterConfig
from somareg.errors import ConfigError
from somareg.io.dataarray import from_dataarray, is_dataarray
from somareg.io.georef import assume_crs
from somareg.io.masks import check_mask_values, classes_of_array, open_mask
from somareg.io.opened import OpenImage, in_memory, masked
from somareg.io.raster import (
    check_side,
    file_sha256,
    from_array,
    header_of,
    read_raster,
)
from somareg.io.source import Block, open_source
from somareg.io.stac import StacAsset, find_asset
from somareg.types import BoolArray, Header, Raster

if TYPE_CHECKING:
    import pystac
    import xarray

__all__ = ["Image", "Located", "OpenImage", "file_of", "locate", "open_image", "read_image", "told_modalities"]

log = logging.getLogger("somareg.io")

Image: TypeAlias = "str | Path | NDArray[Any] | Raster | Header | xarray.DataArray | pystac.Item | pystac.Asset"
"""Path of a raster or "item.json#ASSET", array, Raster, an image of a `Result`, DataArray, STAC Item or Asset."""

Located: TypeAlias = "str | Path | NDArray[Any] | Raster | xarray.DataArray | StacAsset"


Facts = TypeVar("Facts", Raster, Header)


def locate(image: Image, role: str) -> Located:
    """Return the image itself, or the asset that a STAC reference names (see `find_asset` for errors)."""
    if isinstance(image, Header):  # of a result
        return image.reader()
    asset = find_asset(image, role)
    return image if asset is None else asset  # type: ignore[return-value]  # what is no asset is no pystac object


def told_modalities(moving: Located, reference: Located, options: Mapping[str, Any]) -> dict[str, Any]:
    """`moving_modality` and `reference_modality` from the options, else from STAC Items; unknown ones are left out."""
    images = {"moving_modality": moving, "reference_modality": reference}
    modalities = {key: options.get(key) or getattr(image, "modality", None) for key, image in images.items()}
    return {key: value for key, value in modalities.items() if value is not None}


def file_of(image: Located) -> str | Path | None:
    """The file of an image, as the caller or a STAC Item names it; None for an image in memory."""
    if isinstance(image, StacAsset):
        return image.path
    return image if isinstance(image, str | Path) else None


@contextmanager
def open_image(
    image: Located, role: str, mask: ArrayLike | None, cfg: RegisterConfig, *, again: bool = False
) -> Iterator[OpenImage]:
    """Open an image without reading pixels of a file. `role` is "moving" or "reference".

    All bands are selected; `OpenImage.matched_on` selects fewer.

    Args:
        image: from `locate`.
        role: for messages, and to choose the options of this image.
        mask: (H, W), not zero where valid; for an image in memory only. A mask in a file is an option of `cfg`.
        cfg: settings.
        again: the image was opened before, as for every tile: log nothing and compute no checksum.

    Raises:
        ConfigError: a mask in memory for a file or a Raster, or classes without a mask.
        ReadError, InputError, NoDataError, UnsupportedError, GeoreferenceError: as `open_source`, `from_array`,
            `from_dataarray`, `open_mask` and `assume_crs`.
    """
    file, values = getattr(cfg, f"{role}_mask"), getattr(cfg, f"{role}_mask_values")
    check_mask_values(file if mask is None else mask, values, f"{role}_mask_values")
    with ExitStack() as stack:
        path = file_of(image)
        if path is None:
            opened = in_memory(_placed(read_image(image, role, mask, cfg), cfg))
        else:
            if mask is not None:
                raise ConfigError(_NO_ARRAY.format(role=role))
            opened = _in_file(stack, image, path, role, cfg, again=again)
        if file is not None:
            facts = opened.facts
            mask_of_file = stack.enter_context(open_mask(file, values, facts.grid, facts.name, role))
            for note in mask_of_file.notes:
                log.log(logging.DEBUG if again else logging.INFO, note)
            opened = masked(opened, mask_of_file, (file, values, role))
        yield opened


_NO_ARRAY = "{role}_mask is an array for an image in memory only; for a file or a Raster give a mask file"


def _in_file(
    stack: ExitStack, image: Located, path: str | Path, role: str, cfg: RegisterConfig, *, again: bool
) -> OpenImage:
    reading = _reading(role, cfg)
    source = stack.enter_context(open_source(path, role=role, **reading, expand_palette=True, tell=not again))
    check_side(source.name, source.grid.width, source.grid.height)
    facts = header_of(source, path, partial(read_raster, path, role=role, **reading, max_pixels=cfg.max_pixels))
    if not again:
        facts = replace(facts, sha256=file_sha256(path))
    if isinstance(image, StacAsset):
        facts = with_item(facts, image, role, cfg)
    numbers = (1, 2, 3) if source.palette is not None else source.bands
    most = max(numbers) if source.palette is not None else source.dataset.count

    def pixels(block: Block, bands: tuple[int, ...]) -> tuple[NDArray[Any], BoolArray]:
        return source.read(block) if bands == numbers else source.read(block, bands)

    return OpenImage(_placed(facts, cfg), pixels, numbers, most, numbers, source.block_bytes)


def _reading(role: str, cfg: RegisterConfig) -> dict[str, Any]:
    """Arguments of `open_source` from the settings."""
    return {
        "nodata": getattr(cfg, f"{role}_nodata"),
        "bands": getattr(cfg, f"{role}_bands"),
        "gcp_method": cfg.gcp_method,
    }


def _placed(image: Facts, cfg: RegisterConfig) -> Facts:
    return assume_crs(image, cfg.assume_crs) if cfg.assume_crs and image.grid.crs is None else image


def read_image(image: Located, role: str, mask: ArrayLike | None, cfg: RegisterConfig) -> Raster:
    """Read an image into memory, without its mask file; `role` is "moving" or "reference".

    Raises:
        ConfigError: a mask for a file or a Raster.
        ReadError, InputError, NoDataError, UnsupportedError: as `read_raster`, `from_array` and `from_dataarray`.
    """
    reading = _reading(role, cfg)
    nodata = reading["nodata"]
    if mask is not None:
        mask = classes_of_array(np.asarray(mask), getattr(cfg, f"{role}_mask_values"))
    if isinstance(image, np.ndarray):
        return from_array(image, mask=mask, role=role, nodata=nodata)
    if is_dataarray(image):
        return from_dataarray(image, mask=mask, role=role, nodata=nodata, max_pixels=cfg.max_pixels)
    if mask is not None:
        raise ConfigError(_NO_ARRAY.format(role=role))
    if isinstance(image, Raster):
        return image
    path: Any = file_of(image)
    raster = read_raster(path, role=role, **reading, max_pixels=cfg.max_pixels)
    return with_item(raster, image, role, cfg) if isinstance(image, StacAsset) else raster


def with_item(raster: Facts, asset: StacAsset, role: str, cfg: RegisterConfig) -> Facts:
    """Add the STAC Item to an image, with notes about what it contributed and where it contradicts the file."""
    modality = cfg.moving_modality if role == "moving" else cfg.reference_modality
    notes: list[str] = asset.disagreements(raster.grid)
    for note in notes:
        log.warning(note)
    if asset.modality == modality:
        notes.append(f"{role} image taken as {modality}: STAC Item {asset.origin.item} says so ({asset.reason})")
    elif asset.modality is not None:
        notes.append(
            f"{role} image taken as {modality}, as asked, although STAC Item {asset.origin.item} says "
            f"{asset.modality} ({asset.reason})"
        )
    return replace(raster, origin=asset.origin, notes=(*raster.notes, *notes))
