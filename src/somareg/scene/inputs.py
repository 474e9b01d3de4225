"""The two files of a scene, open: what is known of them before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from somareg.config import RegisterConfig
from somareg.errors import UnsupportedError
from somareg.io import assume_crs, check_overlap, georeference
from somareg.io.inputs import Located, file_of, with_item
from somareg.io.raster import check_side
from somareg.io.source import RasterSource, check_size, open_source
from somareg.io.stac import StacAsset
from somareg.types import Raster, Transform

CACHE_MB = 192


@dataclass(frozen=True, eq=False)
class SceneImage:
    """One of the two images.

    Attributes:
        path: of the file.
        source: the open file.
        header: its facts; data and mask are one value repeated, which takes no memory and says nothing.
    """

    path: Path
    source: RasterSource
    header: Raster


@dataclass(frozen=True, eq=False)
class ScenePair:
    """Both images and how their georeferences join them.

    Attributes:
        moving, reference: the images.
        georef: reference pixels -> moving pixels.
    """

    moving: SceneImage
    reference: SceneImage
    georef: Transform


def bounded_cache() -> rasterio.Env:
    """GDAL may keep so many decoded blocks; by default it takes a twentieth of the machine's memory."""
    return rasterio.Env(GDAL_CACHEMAX=CACHE_MB)


def path_of(image: Located, role: str) -> Path:
    """The file of an image.

    Raises:
        UnsupportedError: an image in memory.
    """
    file = file_of(image)
    if file is None:
        raise UnsupportedError(
            f"the {role} image is in memory; a scene is read window by window from a file. Use somareg.register instead"
        )
    return Path(file)


@contextmanager
def open_pair(moving: Located, reference: Located, cfg: RegisterConfig) -> Iterator[ScenePair]:
    """Open both images and join their georeferences.

    Raises:
        ReadError, InputError, UnsupportedError, GeoreferenceError, NoOverlapError: see `somareg.errors`.
    """
    files = path_of(moving, "moving"), path_of(reference, "reference")
    with (
        bounded_cache(),
        open_source(files[0], **reading(cfg, "moving")) as moved,
        open_source(files[1], **reading(cfg, "reference")) as fixed,
    ):
        images = [
            SceneImage(path, source, _header(source, path, located, role, cfg))
            for source, path, located, role in zip(
                (moved, fixed), files, (moving, reference), ("moving", "reference"), strict=True
            )
        ]
        grids = images[1].header.grid, images[0].header.grid
        names = images[1].header.name, images[0].header.name
        georef = georeference(*grids, names)
        if grids[0].is_georeferenced:
            check_overlap(*grids, names)
        yield ScenePair(images[0], images[1], georef)


def reading(cfg: RegisterConfig, role: str) -> dict[str, Any]:
    """How `open_source` opens the image of a role."""
    nodata = cfg.moving_nodata if role == "moving" else cfg.reference_nodata
    return {"role": role, "nodata": nodata, "expand_palette": True, "gcp_method": cfg.gcp_method}


def _header(source: RasterSource, path: Path, located: Located, role: str, cfg: RegisterConfig) -> Raster:
    width, height = source.grid.width, source.grid.height
    check_side(source.name, width, height)
    check_size(source, cfg.max_pixels)
    raster = Raster(
        data=np.broadcast_to(np.zeros((), source.dtype), (source.count, height, width)),
        mask=np.broadcast_to(np.ones((), bool), (height, width)),
        grid=source.grid,
        name=str(path),
        path=path,
        nodata=source.nodata,
        descriptions=source.descriptions,
        tags=source.tags,
        colorinterp=source.colorinterp,
        notes=source.notes,
    )
    if isinstance(located, StacAsset):
        raster = with_item(raster, located, role, cfg)
    return assume_crs(raster, cfg.assume_crs) if cfg.assume_crs and raster.grid.crs is None else raster
