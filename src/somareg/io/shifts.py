"""Shift rasters: two float32 bands, x and y shift in reference pixels, as SpaceNet 9 exchanges alignments.

The convention of the SpaceNet 9 challenge (Cross-Modal Satellite Imagery Registration, 2025: "Output Requirements" and
"Scoring" of the problem statement, and `create_offset_map_from_reference` of its scorer): a TIFF of the size of the
**optical** image; band 1 is the x shift, band 2 the y shift, in optical pixels. At an optical pixel they are the map
position that the SAR image's georeference gives to the same ground, minus the pixel's own map position, divided by the
pixel width and the (negative) pixel height of the optical geotransform: from optical to SAR, +x right, +y down.

That is `Displacement.array` with the optical image as the reference, without any change of sign or origin. Two details
of that scorer are its own: it takes pixel indices as corners in both images, which differs from pixel centres by half
the difference of the two pixel sizes, and it rounds the true shifts to whole pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from somareg.errors import InputError
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.io.displacement import (
    check_format,
    estimate_tags,
    find_displacement,
    node_step,
    read_correction,
    read_estimate,
)
from somareg.io.source import Block, RasterSource, open_source
from somareg.io.writer import GeotiffSpec, write_geotiff_blocks
from somareg.types import Estimate, Grid, Result

_ROWS = 512
_ESTIMATE_TAGS = (
    "SOMAREG_FORMAT",
    "SOMAREG_CONVENTION",
    "SOMAREG_REFERENCE_GRID",
    "SOMAREG_MOVING_GRID",
    "SOMAREG_AFFINE",
    "SOMAREG_VERDICT",
)


def export_shifts(estimate: Result | str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write an estimate as a shift raster on the reference grid, block by block.

    For the layout of SpaceNet 9 the optical image must be the reference. `somareg warp` and `read_estimate` read the
    file as they read `displacement.tif`.

    Args:
        estimate: a `Result`, or the path of an output folder, displacement.tif or report.json.
        out: GeoTIFF to write.
        overwrite: replace an existing file.

    Returns:
        The path written.

    Raises:
        ReadError, InputError, UnsupportedError: as `read_estimate`.
        OutputError: the file exists, the folder is read-only or the disk is full.
    """
    if isinstance(estimate, Result):
        tags = {
            **estimate_tags(estimate.estimate, getattr(estimate.affine, "matrix", None)),
            "SOMAREG_VERDICT": estimate.verdict.decision,
        }
        field = estimate.displacement
        with write_geotiff_blocks(out, _spec(field.grid, tags), cog=False, overwrite=overwrite) as writer:
            for block in _strips(field.grid):
                writer.write(field.array[:, block.y : block.y + block.height], block)
        return Path(out)
    file = find_displacement(estimate)
    with open_source(file, role="displacement") as source:
        check_format(source, file)
        if node_step(source.tags, file) > 1:
            return _at_every_pixel(read_estimate(file), source.tags, out, overwrite=overwrite)
        kept = {key: source.tags[key] for key in _ESTIMATE_TAGS if key in source.tags}
        with write_geotiff_blocks(out, _spec(source.grid, kept), cog=False, overwrite=overwrite) as writer:
            for block in _strips(source.grid):
                writer.write(source.read(block)[0][:2], block)
    return Path(out)


def _at_every_pixel(estimate: Estimate, tags: Mapping[str, str], out: str | Path, *, overwrite: bool) -> Path:
    """The shift raster of an estimate whose file holds nodes further apart."""
    kept = {key: tags[key] for key in _ESTIMATE_TAGS if key in tags}
    with write_geotiff_blocks(out, _spec(estimate.reference, kept), cog=False, overwrite=overwrite) as writer:
        for block in _strips(estimate.reference):
            points = pixel_centres(*block)
            shift = estimate.correction(points) - points
            writer.write(shift.T.reshape(2, block.height, block.width).astype(np.float32), block)
    return Path(out)


def read_shifts(path: str | Path) -> Estimate:
    """Read the shift raster of any program as an estimate that `somareg.warp` applies.

    Outside the raster the shift of the nearest edge goes on. The raster's own georeference places it. One without is
    applied to images of its own size or proportions.

    Args:
        path: a raster of two bands, x and y shift in its own pixels; a value everywhere.

    Raises:
        ReadError: missing or damaged.
        InputError: another number of bands, a dtype that holds no shifts, or a pixel without a value.
    """
    with open_source(path, role="shift") as source:
        _check_bands(source)
        return Estimate(read_correction(source, AffineTransform.identity()), source.grid, source.grid)


def _check_bands(source: RasterSource) -> None:
    if source.count != 2 or source.dtype.kind not in "fi":
        raise InputError(
            f"{source.name} has {source.count} bands of {source.dtype}; a shift raster has two numbers, x and y"
        )


def _spec(grid: Grid, tags: Mapping[str, str]) -> GeotiffSpec:
    both: dict[str, Any] = {"units": ("px", "px"), "descriptions": ("x shift", "y shift")}
    return GeotiffSpec(grid=grid, dtype=np.dtype(np.float32), count=2, tags=tags, **both)


def _strips(grid: Grid) -> list[Block]:
    tops = range(0, grid.height, _ROWS)
    return [Block(0, top, grid.width, min(_ROWS, grid.height - top)) for top in tops]
