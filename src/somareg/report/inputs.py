"""The two images in `report.json`."""

from __future__ import annotations

import math
import os
from pathlib import Path

from pydantic import Field

from somareg.io.paths import whole_path
from somareg.report.plain import Part, plain, text
from somareg.types import Header, Raster
from somareg.types.brief import crs_name


class InputRecord(Part):
    """One of the two images, as read."""

    name: str
    path: str | None = Field(description="absolute; null for arrays")
    path_from_report: str | None = Field(
        default=None, description="the same from the report's folder, where there is one"
    )
    sha256: str | None = Field(description="of the file; null for arrays")
    width: int
    height: int
    bands: int
    band_names: list[str]
    dtype: str
    crs: str | None = Field(description="WKT")
    crs_name: str | None = Field(description="EPSG code, or the name in the WKT")
    pixel_size: tuple[float, float] | None = Field(description="x and y, map units")
    nodata: float | str | None = Field(description="declared nodata; 'nan', 'inf' or '-inf' as text")
    valid_share: float = Field(ge=0, le=1)


def input_record(raster: Raster | Header, folder: Path | None) -> InputRecord:
    """The record of an image; `folder` is the final folder of the report, if known."""
    grid = raster.grid
    nodata = raster.nodata
    path = None if raster.path is None else whole_path(raster.path)
    return InputRecord(
        name=text(raster.name),
        path=None if path is None else text(path),
        path_from_report=None if path is None or folder is None else _relative(path, folder),
        sha256=raster.sha256 or None,
        width=grid.width,
        height=grid.height,
        bands=raster.count,
        band_names=plain(raster.descriptions),
        dtype=str(raster.dtype),
        crs=grid.crs,
        crs_name=crs_name(grid.crs),
        pixel_size=grid.pixel_size if grid.is_georeferenced else None,
        nodata=nodata if nodata is None or math.isfinite(nodata) else str(nodata),
        valid_share=raster.valid_share,
    )


def _relative(path: str, folder: Path) -> str | None:
    """The path relative to a folder; None when there is none, as between two drives."""
    try:
        return text(Path(os.path.relpath(path, os.path.abspath(folder))).as_posix())  # noqa: PTH100
    except ValueError:
        return None
