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

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import InputError, guarded
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.io.displacement import (
    STEP_TAG,
    check_format,
    estimate_tags,
    find_displacement,
    node_step,
    read_correction,
    read_estimate,
)
from somareg.io.folders import keep_inputs
from somareg.io.source import Block, RasterSource, open_source
from somareg.io.writer import GeotiffSpec, write_geotiff_blocks
from somareg.types import Estimate, Grid, Result

_ROWS = 512


@guarded
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
        tags = estimate_tags(estimate.estimate, getattr(estimate.affine, "matrix", None))
        field = estimate.displacement
        return _write(out, field.grid, tags, lambda block: field.array[:, block.y : block.y + block.height], overwrite)
    file = find_displacement(estimate)
    keep_inputs((Path(out),), {"estimate": file})
    with open_source(file, role="displacement", tell=False) as source:
        check_format(source, file)
        own_tags = {key: value for key, value in source.tags.items() if key.startswith("SOMAREG_") and key != STEP_TAG}
        if node_step(source.tags, file) > 1:  # nodes further apart than the pixels of a shift raster
            stored = read_estimate(file)
            return _write(out, stored.reference, own_tags, partial(_at_pixels, stored), overwrite)
        return _write(out, source.grid, own_tags, lambda block: source.read(block)[0][:2], overwrite)


def _at_pixels(estimate: Estimate, block: Block) -> NDArray[np.float32]:
    points = pixel_centres(*block)
    shift = estimate.correction(points) - points
    return shift.T.reshape(2, block.height, block.width).astype(np.float32)


def _write(
    out: str | Path, grid: Grid, tags: Mapping[str, str], read: Callable[[Block], NDArray[Any]], overwrite: bool
) -> Path:
    """Write the shifts (2, h, w) that `read` gives for each block."""
    both: dict[str, Any] = {"units": ("px", "px"), "descriptions": ("x shift", "y shift")}
    spec = GeotiffSpec(grid=grid, dtype=np.dtype(np.float32), count=2, tags=tags, **both)
    with write_geotiff_blocks(out, spec, cog=False, overwrite=overwrite) as writer:
        for top in range(0, grid.height, _ROWS):
            block = Block(0, top, grid.width, min(_ROWS, grid.height - top))
            writer.write(read(block), block)
    return Path(out)


@guarded
def read_shifts(path: str | Path) -> Estimate:
    """Read the shift raster of any program as an estimate that `somareg.warp` applies.

    Outside the raster the shift of the nearest edge continues. The raster's own georeference places it. One without is
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
