"""Apply an estimate to any raster: one resampling from the original pixels, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from somareg.geometry.lattice import source_window
from somareg.geometry.resample import resample
from somareg.geometry.sampler import Kernel
from somareg.io.folders import keep_inputs
from somareg.io.memory import block_cache, check_fits
from somareg.io.source import Block
from somareg.io.validity import differs
from somareg.io.verdicts import verdict_tags, without_verdict
from somareg.io.writer import write_geotiff_blocks
from somareg.runtime.budget import allowed, limited
from somareg.runtime.version import __version__
from somareg.types import BoolArray, Estimate, Grid, Progress, Raster, Reading
from somareg.warp.opening import open_subject
from somareg.warp.plan import Resolution, WarpPlan, make_plan
from somareg.warp.subject import Subject

if TYPE_CHECKING:
    import xarray

UNSAID = Reading()
"""A reading without any option set."""

_PER_BAND = ("descriptions", "scales", "offsets", "units")
_MAX_WINDOW_VALUES = 48_000_000  # most values read at a time; a block that needs more is split
_READ_CACHE_BYTES = 512 << 20  # large enough for the strips of a striped file under one row of blocks
_ON_THE_WAY = 24  # bytes per value of a window: masks, floats and samples


def apply(
    raster: Raster | xarray.DataArray | str | Path,
    estimate: Estimate,
    *,
    resampling: Kernel = "cubic",
    resolution: Resolution = "reference",
    reading: Reading = UNSAID,
    bands: Sequence[int] | None = None,
) -> Raster:
    """Warp a raster onto the reference, in memory.

    Args:
        raster: the moving image or any other raster of its ground, in memory, a DataArray or a file.
        estimate: from `Result.estimate` or `read_estimate`.
        resampling: kernel; palettes and bool masks always use "nearest".
        resolution: "reference" for the reference grid, "native" for its extent at the raster's own pixel size.
        reading: how the raster is read; what is not said follows from the estimate, see `reading_for`.
        bands: 1-based bands that are kept; default all.

    Returns:
        A raster of the same dtype and bands. Invalid pixels hold its nodata value; without one, NaN in real and
        complex rasters and 0 in integer ones.

    Raises:
        ReadError: a file cannot be read.
        UnsupportedError: a URL or virtual path.
        InputError: in pixel mode, the raster does not have the moving image's proportions.
        GeoreferenceError: the georeferences cannot be combined, or (NoOverlapError) the raster lies elsewhere.
        MemoryLimitError: the warped raster does not fit into memory.
    """
    with open_subject(raster, estimate, reading, bands, classes=resampling == "nearest") as subject:
        plan = make_plan(_placed_by(estimate, reading), subject.grid, subject.name, resolution)
        kernel = subject.kernel(resampling)
        shape = subject.count, plan.grid.height, plan.grid.width
        size = float(np.prod(shape)) * (subject.dtype.itemsize + 1)
        check_fits(size, f"warping {subject.name} in memory", "write a file (out=), which goes block by block")
        data, mask = np.empty(shape, subject.dtype), np.empty(shape, bool)
        for block in _blocks(Block(0, 0, plan.grid.width, plan.grid.height), 1024):
            part = (slice(None), slice(block.y, block.y + block.height), slice(block.x, block.x + block.width))
            data[part], mask[part] = _warp_block(subject, plan, block, kernel)
        return _in_memory(subject, data, mask, plan.grid, _processing_tags(subject, estimate, kernel, resolution))


def apply_to_file(
    raster: Raster | xarray.DataArray | str | Path,
    estimate: Estimate,
    out_path: str | Path,
    *,
    resampling: Kernel = "cubic",
    resolution: Resolution = "reference",
    reading: Reading = UNSAID,
    bands: Sequence[int] | None = None,
    overwrite: bool = False,
    block_size: int = 1024,
    progress: Progress | None = None,
) -> Path:
    """Warp a raster onto the reference, block by block into a cloud-optimised GeoTIFF that appears whole or not at all.

    Dtype, bands, descriptions, units, scales, tags, colours, palette, nodata value and alpha are kept. A raster
    without nodata value and alpha gets an internal mask. Memory does not grow with the size of the rasters.

    Args:
        raster: the moving image or any other raster of its ground, a file or in memory.
        estimate: from `Result.estimate` or `read_estimate`.
        out_path: GeoTIFF to write.
        resampling: kernel; palettes and bool masks always use "nearest".
        resolution: "reference" for the reference grid, "native" for its extent at the raster's own pixel size.
        reading: how the raster is read; what is not said follows from the estimate, see `reading_for`.
        bands: 1-based bands that are kept; default all.
        overwrite: replace an existing file.
        block_size: side of the blocks, pixels of the output.
        progress: called with the stage ("warping") and the fraction done, 0-1.

    Returns:
        The output path.

    Raises:
        OutputError: the output exists, is the input, is in a read-only folder, or the disk is full.
        SomaregError: as `apply`.
    """
    final = Path(out_path)
    keep_inputs((final,), {"input": raster if isinstance(raster, str | Path) else None, "mask": reading.mask})
    with (
        limited(None) as limit,
        rasterio.Env(GDAL_CACHEMAX=block_cache(_READ_CACHE_BYTES, limit // 4)),
        open_subject(raster, estimate, reading, bands, classes=resampling == "nearest") as subject,
    ):
        plan = make_plan(_placed_by(estimate, reading), subject.grid, subject.name, resolution)
        kernel = subject.kernel(resampling)
        tags = _processing_tags(subject, estimate, kernel, resolution)
        spec = subject.output_spec(plan.grid, tags, averaged_overviews=kernel != "nearest")
        blocks = list(_blocks(Block(0, 0, plan.grid.width, plan.grid.height), block_size))
        with write_geotiff_blocks(final, spec, overwrite=overwrite) as writer:
            for done, block in enumerate(blocks, 1):
                data, mask = _warp_block(subject, plan, block, kernel)
                writer.write(data, block, np.asarray(mask[subject.own].any(axis=0)))
                if progress is not None:
                    progress("warping", done / len(blocks))
    return final


def _placed_by(estimate: Estimate, reading: Reading) -> Estimate:
    """Use the control-point curve of the reading options for the moving image in the estimate, too."""
    control = estimate.moving.control
    if reading.gcp_method in (None, "auto") or control is None:
        return estimate
    method: Any = reading.gcp_method
    return replace(estimate, moving=replace(estimate.moving, control=control.with_method(method)))


def _in_memory(subject: Subject, data: NDArray[Any], mask: BoolArray, grid: Grid, tags: Mapping[str, str]) -> Raster:
    """Build the warped `Raster`, with alpha bands separate from the others."""
    facts = subject.metadata
    own = subject.own
    valid = mask[own]
    joined: BoolArray = np.asarray(valid.all(axis=0))
    per_band: dict[str, Any] = {name: tuple(facts[name][i] for i in own) if facts[name] else () for name in _PER_BAND}
    return Raster(
        data=data[own],
        mask=joined,
        grid=grid,
        name=subject.name,
        nodata=subject.nodata,
        tags={**without_verdict(facts["tags"]), **tags},
        colorinterp=tuple(facts["colorinterp"]),
        band_masks=None if bool((valid == joined).all()) else valid,
        alpha=data[list(subject.alphas)] if subject.alphas else None,
        **per_band,
    )


def _warp_block(subject: Subject, plan: WarpPlan, block: Block, kernel: Kernel) -> tuple[NDArray[Any], BoolArray]:
    """Warp one block: pixels and per-band mask (C, h, w), reading only the window under it."""
    shape = subject.count, block.height, block.width
    data = np.full(shape, subject.fill, subject.dtype)
    data[list(subject.alphas)] = 0
    mask = np.zeros(shape, bool)
    x, y = plan.coordinates(block)
    window = source_window((x, y), subject.grid.shape, margin=3 + int(max(plan.footprint)))
    if window is None:
        return data, mask
    most = min(_MAX_WINDOW_VALUES, allowed() // (4 * (subject.dtype.itemsize + _ON_THE_WAY)))
    if window[2] * window[3] * subject.count > most and max(block.width, block.height) > 32:
        for piece in _blocks(block, (max(block.width, block.height) + 1) // 2):
            top, left = piece.y - block.y, piece.x - block.x
            part = (slice(None), slice(top, top + piece.height), slice(left, left + piece.width))
            data[part], mask[part] = _warp_block(subject, plan, piece, kernel)
        return data, mask
    pixels, valid = subject.read(Block(*window))
    x -= window[0]
    y -= window[1]
    shared = bool((valid == valid[:1]).all())
    data, sampled = resample(
        pixels,
        valid[0] if shared else valid,
        (x, y),
        kernel=kernel,
        footprint=plan.footprint,
        out_dtype=subject.dtype,
        fill=subject.fill,
    )
    mask[...] = sampled
    for alpha in subject.alphas:
        data[alpha][~mask[alpha]] = 0
        if subject.is_shown_by_alpha and subject.dtype.kind in "iu":
            data[alpha][mask[alpha] & (data[alpha] == 0)] = 1  # half-transparent pixels stay valid
    if subject.dtype.kind == "f":
        _keep_finite(data, mask)
    if subject.nodata is not None and not subject.has_mask:
        for band in range(subject.count):
            if band not in subject.alphas:
                _keep_off_nodata(data[band], mask[band], subject.nodata)
    return data, mask


def _keep_finite(data: NDArray[Any], mask: BoolArray) -> None:
    """Clip sums that overflow the type, and make NaN invalid."""
    if np.isfinite(data[mask]).all():
        return
    mask &= ~np.isnan(data)
    top = np.finfo(data.dtype).max
    data[mask] = np.clip(data[mask], -top, top)


def _keep_off_nodata(data: NDArray[Any], mask: BoolArray, nodata: float) -> None:
    """Move valid pixels that equal the nodata value to the next value that a reader distinguishes from it."""
    hit = mask & ~differs(data, nodata)
    if not hit.any():
        return
    if data.dtype.kind in "iu":
        top = np.iinfo(data.dtype).max
        data[hit] = int(nodata) - 1 if nodata >= top else int(nodata) + 1
    else:
        real: Any = np.float32 if data.dtype in (np.float32, np.complex64) else np.float64
        value = real(nodata)
        further = value + abs(value) * 16 * np.finfo(real).eps
        data[hit] = max(further, np.nextafter(value, real(np.inf)))


def _blocks(area: Block, side: int) -> Iterator[Block]:
    """Split the area into blocks of at most `side` pixels, row by row."""
    for y in range(area.y, area.y + area.height, side):
        for x in range(area.x, area.x + area.width, side):
            yield Block(x, y, min(side, area.x + area.width - x), min(side, area.y + area.height - y))


def _processing_tags(subject: Subject, estimate: Estimate, kernel: Kernel, resolution: Resolution) -> dict[str, str]:
    reading = subject.reading.said()
    read = {"SOMAREG_READING": json.dumps(reading)} if reading else {}
    return {
        **read,
        **verdict_tags(estimate.verdict),
        "SOMAREG_VERSION": __version__,
        "SOMAREG_PROCESSING": "aligned to the reference image, resampled once from the original pixels",
        "SOMAREG_RESAMPLING": kernel,
        "SOMAREG_RESOLUTION": resolution,
        "SOMAREG_SOURCE": Path(subject.name).name,
    }
