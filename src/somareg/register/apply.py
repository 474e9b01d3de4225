"""An estimate applied to any raster: the public call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import ByteSize

from somareg.config import GcpMethod, Resampling, make_config
from somareg.errors import guarded
from somareg.io import read_estimate
from somareg.io.dataarray import is_dataarray, kept_attributes, to_dataarray
from somareg.io.displacement import find_displacement
from somareg.io.folders import keep_inputs
from somareg.io.inputs import Image, file_of, locate
from somareg.io.verdicts import verdict_attributes, without_verdict
from somareg.runtime.budget import limited
from somareg.types import Estimate, Progress, Result
from somareg.warp.engine import apply, apply_to_file
from somareg.warp.judged import check_verdict
from somareg.warp.memory import in_memory, is_same
from somareg.warp.plan import Resolution
from somareg.warp.reading import NO_MASK, make_reading


@guarded
def warp(
    raster: Image,
    estimate: Result | Estimate | str | Path,
    out: str | Path | None = None,
    *,
    nodata: float | None = None,
    bands: str | Sequence[int] | None = None,
    mask: str | Path | NDArray[Any] | None = None,
    mask_values: str | Sequence[int] | None = None,
    gcp_method: GcpMethod | None = None,
    resampling: Resampling = "cubic",
    resolution: Resolution = "reference",
    max_memory: ByteSize | int | str | None = None,
    overwrite: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Apply an estimate to any raster of the moving image's ground: other bands, other pixel sizes, masks.

    The options with which the moving image was registered apply here, too. The moving image itself, recognised by its
    checksum, is read in the same way: nodata value, mask file, bands that are imagery although flagged alpha. Any other
    raster declares itself which of its pixels are invalid; if it declares nothing and is not sampled with "nearest",
    it gets that nodata value. Arguments given here take precedence.

    The verdict on the estimate goes into the tags of the output: `SOMAREG_VERDICT`, `SOMAREG_PROBABILITY`,
    `SOMAREG_PREDICTED_RMSE_PX` and, where known, `SOMAREG_PREDICTED_RMSE_M`. A "review" estimate is applied
    with a warning in the log. So is an estimate without a verdict, which leaves no such tags.

    Args:
        raster: path, array (of the moving image's size or the same proportions), Raster, STAC Item or DataArray; of a
            Dask array only the chunks that are needed are computed.
        estimate: a `Result`, an `Estimate`, or the path of a displacement.tif, report.json or output folder, or of a
            shift raster (see `somareg.io.shifts`).
        out: GeoTIFF to write; None returns the warped raster.
        nodata: nodata value of the raster, instead of the declared one; NaN for none.
        bands: bands to write, from 1; default all. One that is named is imagery although it may be flagged alpha.
        mask: file of a mask on any grid, see `docs/masks.md`, or for an array one of its size, not zero where valid;
            "none" for no mask although the moving image had one.
        mask_values: classes of the mask that are invalid, such as "3,8-10" or "bit3"; default 0.
        gcp_method: the curve through ground control points; default the estimate's.
        resampling: "nearest" for masks and classes, "bilinear" or "cubic".
        resolution: "reference" for the reference grid, "native" for its extent at the raster's own pixel size.
        max_memory: that this process may take, as for `register`.
        overwrite: replace an existing file.
        force: apply an estimate although its verdict is no-go.
        progress: called with a stage's name and the share of work done.

    Returns:
        The path written; when `out` is None the warped Raster, or for a DataArray the warped DataArray.

    Raises:
        EstimationError: the verdict on the estimate is no-go, and not `force`.
        MemoryLimitError: without `out`, the warped raster does not fit.
        SomaregError: see `somareg.errors`.
    """
    said = {"nodata": nodata, "bands": bands, "mask": mask, "mask_values": mask_values, "gcp_method": gcp_method}
    kept = {"resampling": resampling, "resolution": resolution}
    with limited(make_config({"max_memory": max_memory}).max_memory):
        return _warp(raster, estimate, out, said, kept, overwrite=overwrite, force=force, progress=progress)


def _warp(
    raster: Image,
    estimate: Result | Estimate | str | Path,
    out: str | Path | None,
    said: Mapping[str, Any],
    kept: Mapping[str, Any],
    *,
    overwrite: bool,
    force: bool,
    progress: Progress | None,
) -> Any:
    """`warp` in the memory that it may take; `said` of the reading, `kept` of the output."""
    nodata, mask = said["nodata"], said["mask"]
    known = _estimate(estimate)
    check_verdict(known, force=force)
    located: Any = locate(raster, "input")
    subject: Any = file_of(located) or located
    array = mask if mask is not None and not isinstance(mask, str | Path) else None
    file = None if array is not None or mask is None else str(mask)
    if out is not None:
        item = str(raster).partition("#")[0] if isinstance(raster, str | Path) else None
        estimated = None if isinstance(estimate, Result | Estimate) else find_displacement(estimate)
        files = {"input": file_of(located), "mask": file, "estimate": estimated, "STAC Item of the input": item}
        keep_inputs((Path(out),), files)
    reading = make_reading(**{**said, "mask": file})
    made_of = subject
    if isinstance(estimate, Result) and nodata is None and mask is None and is_same(subject, estimate.moving):
        subject = estimate.moving
    else:
        subject = in_memory(subject, array, reading)
        reading = reading if array is None else replace(reading, mask=NO_MASK, mask_values=None)
    chosen: dict[str, Any] = {"reading": reading, "bands": reading.bands}
    if out is None:
        warped = apply(subject, known, **kept, **chosen)
        if not is_dataarray(made_of):
            return warped
        like = estimate.reference.origin if isinstance(estimate, Result) and kept["resolution"] == "reference" else None
        name = str(made_of.name) if made_of.name else None
        attributes = without_verdict(kept_attributes(made_of))
        return to_dataarray(warped, like=like, name=name, kept=attributes, **verdict_attributes(known.verdict))
    return apply_to_file(
        subject,
        known,
        out,
        overwrite=overwrite,
        progress=progress,
        **kept,
        **chosen,
    )


def _estimate(known: Result | Estimate | str | Path) -> Estimate:
    if isinstance(known, Result):
        return known.estimate
    return known if isinstance(known, Estimate) else read_estimate(known)
