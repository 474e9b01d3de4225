"""Everything that `register` takes as an image, turned into a `Raster`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.errors import ConfigError
from somareg.io.dataarray import from_dataarray, is_dataarray
from somareg.io.raster import from_array, read_raster
from somareg.io.stac import StacAsset, find_asset
from somareg.types import BoolArray, Raster

if TYPE_CHECKING:
    import pystac
    import xarray

log = logging.getLogger("somareg.io")

Image: TypeAlias = "str | Path | NDArray[Any] | Raster | xarray.DataArray | pystac.Item | pystac.Asset"
"""Path of a raster or "item.json#ASSET", array, Raster, DataArray with rioxarray's georeference, STAC Item or Asset."""

Located: TypeAlias = "str | Path | NDArray[Any] | Raster | xarray.DataArray | StacAsset"


def locate(image: Image, role: str) -> Located:
    """The image itself, or the asset that a STAC reference means (see `find_asset` for errors)."""
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


def with_item(raster: Raster, asset: StacAsset, role: str, cfg: RegisterConfig) -> Raster:
    """The raster with its Item, and notes about what that told and where it disagrees with the file."""
    taken = cfg.moving_modality if role == "moving" else cfg.reference_modality
    notes = asset.disagreements(raster.grid)
    for note in notes:
        log.warning(note)
    if asset.modality == taken:
        notes.append(f"{role} image taken as {taken}: STAC Item {asset.origin.item} says so ({asset.reason})")
    elif asset.modality is not None:
        notes.append(
            f"{role} image taken as {taken}, as asked, although STAC Item {asset.origin.item} says "
            f"{asset.modality} ({asset.reason})"
        )
    return replace(raster, origin=asset.origin, notes=(*raster.notes, *notes))
