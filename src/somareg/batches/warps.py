"""One estimate applied to many rasters: bands, other pixel sizes, masks, dates of a time series."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ByteSize

from somareg.batches.pairs import file_stem, unused_name
from somareg.config import GcpMethod, Resampling, make_config
from somareg.errors import InputError, OutputError, SomaregError, guarded
from somareg.io.displacement import find_displacement, read_estimate
from somareg.io.folders import check_folder_writable, keep_inputs, make_folder, without_inputs
from somareg.io.inputs import file_of, locate
from somareg.io.masks import check_mask_values
from somareg.io.paths import check_folder_name, whole_path
from somareg.jobs.one import Failure
from somareg.jobs.runner import open_runner
from somareg.runtime.budget import limited
from somareg.types import Estimate, Progress, Reading, Result, Verdict
from somareg.warp.engine import UNSAID, apply_to_file
from somareg.warp.judged import check_verdict
from somareg.warp.plan import Resolution
from somareg.warp.reading import NO_MASK, make_reading


@dataclass(frozen=True, eq=False)
class WarpJob:
    """The job of one raster; a worker reads an estimate on disk once per process."""

    raster: str
    estimate: Estimate | str
    out: str
    resampling: Resampling
    resolution: Resolution
    overwrite: bool
    reading: Reading = UNSAID
    max_memory: int | None = None


@dataclass(frozen=True)
class Warped:
    """The outcome of one raster.

    Attributes:
        raster: as given by the caller.
        output: path of the GeoTIFF; it exists when `failure` is None.
        failure: the error; None on success.
        seconds: duration.
        verdict: on the estimate; None when it was not judged.
    """

    raster: str
    output: Path
    failure: Failure | None = None
    seconds: float = 0.0
    verdict: Verdict | None = None


@guarded
def warp_many(
    rasters: Iterable[str | Path],
    estimate: Result | Estimate | str | Path,
    folder: str | Path,
    *,
    nearest: Iterable[str | Path] = (),
    nodata: float | None = None,
    bands: str | Sequence[int] | None = None,
    mask: str | Path | None = None,
    mask_values: str | Sequence[int] | None = None,
    gcp_method: GcpMethod | None = None,
    resampling: Resampling = "cubic",
    resolution: Resolution = "reference",
    max_memory: ByteSize | int | str | None = None,
    workers: int | None = None,
    dask: Any = None,
    overwrite: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Warped]:
    """Apply an estimate to many rasters of the moving image's ground; a failure is recorded and does not stop the
    others.

    Args:
        rasters: files or STAC references; their size may differ from the moving image's. With georeferences each is
            placed by its own; without, it must have the moving image's frame, at any pixel size.
        estimate: as for `warp`; from tie points: `estimate_from_points`.
        folder: for one GeoTIFF per raster, named after it.
        nearest: more rasters, of classes or masks, whose values must not be mixed.
        nodata, bands, mask, mask_values: of each of `rasters`, as for `warp`; `nearest` have none of these.
        gcp_method: for all rasters.
        resampling: for `rasters`.
        resolution: "reference" for the reference grid, "native" for its extent at each raster's own pixel size.
        max_memory: limit of each process, as for `register`.
        workers, dask: as for `batch`.
        overwrite: replace earlier outputs.
        force: apply an estimate although its verdict is no-go.
        progress: called with the last raster and the share of the rasters done.

    Returns:
        One entry per raster, those of `nearest` last.

    Raises:
        InputError: no raster.
        OutputError: an output exists, or the folder cannot be written; nothing is done.
        ReadError: there is no estimate.
        EstimationError: its verdict is no-go, and not `force`; nothing is done.
    """
    subjects: list[tuple[str, Resampling]] = [(str(raster), resampling) for raster in rasters]
    images = len(subjects)
    subjects += [(str(raster), "nearest") for raster in nearest]
    if not subjects:
        raise InputError("no raster to warp; name one or more")
    check_folder_name(folder)
    reading = make_reading(nodata=nodata, bands=bands, mask=mask, mask_values=mask_values, gcp_method=gcp_method)
    check_mask_values(reading.mask, reading.mask_values, "mask_values")
    if reading.mask is not None and reading.mask != NO_MASK:
        reading = replace(reading, mask=whole_path(reading.mask))
    most = make_config({"max_memory": max_memory}).max_memory
    loaded = _known(estimate)
    judged = loaded if isinstance(loaded, Estimate) else _read(loaded)
    check_verdict(judged, force=force)
    outputs = output_paths([raster for raster, _ in subjects], Path(folder))
    files = {raster: _file_of(raster) for raster, _ in subjects}
    # A raster whose output would overwrite itself fails alone; overwriting any other input is refused.
    own = [without_inputs([out], [files[raster]]) for (raster, _), out in zip(subjects, outputs, strict=True)]
    inputs = {f"input {raster}": file for raster, file in files.items()}
    keep_inputs(
        itertools.chain(*own), {**inputs, "mask": reading.mask, "estimate": loaded if isinstance(loaded, str) else None}
    )
    _check(outputs, Path(folder), overwrite)
    classes = Reading(gcp_method=reading.gcp_method)
    readings = [reading if index < images else classes for index in range(len(subjects))]
    jobs = [
        WarpJob(raster, loaded, str(out), kernel, resolution, overwrite, how, most)
        for (raster, kernel), out, how in zip(subjects, outputs, readings, strict=True)
    ]
    done: dict[int, Warped] = {}
    with open_runner(None if workers is None else min(workers, len(jobs)), dask) as runner:
        for index, outcome in runner.run(warp_one, jobs):
            raster, out = subjects[index][0], outputs[index]
            done[index] = Warped(raster, out, outcome.failure, outcome.seconds, judged.verdict)
            if progress is not None:
                progress(f"{len(done)} of {len(jobs)}: {Path(raster).name}", len(done) / len(jobs))
    return [done[index] for index in range(len(jobs))]


def warp_one(job: WarpJob) -> None:
    """Warp one raster, in any process."""
    with limited(job.max_memory):
        _warp_one(job)


def _warp_one(job: WarpJob) -> None:
    path = str(file_of(locate(job.raster, "input")))
    estimate = job.estimate if isinstance(job.estimate, Estimate) else _read(job.estimate)
    apply_to_file(
        path,
        estimate,
        job.out,
        resampling=job.resampling,
        resolution=job.resolution,
        reading=job.reading,
        bands=job.reading.bands,
        overwrite=job.overwrite,
    )


def _file_of(raster: str) -> str | Path:
    with suppress(SomaregError):  # a missing one fails when its turn comes
        return file_of(locate(raster, "input")) or raster
    return raster


def output_paths(rasters: Sequence[str], folder: Path) -> list[Path]:
    """One GeoTIFF in the folder per raster, named after it; equal names are numbered."""
    names: set[str] = set()
    return [(folder / f"{unused_name(file_stem(raster), names)}.tif").absolute() for raster in rasters]


def _known(estimate: Result | Estimate | str | Path) -> Estimate | str:
    if isinstance(estimate, Result):
        return estimate.estimate
    if isinstance(estimate, Estimate):
        return estimate
    file = find_displacement(estimate)
    _read(str(file.absolute()))  # a bad one raises before any work
    return str(file.absolute())


def _read(path: str) -> Estimate:
    stat = Path(path).stat()
    return _read_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _read_once(path: str, size: int, mtime_ns: int) -> Estimate:
    """Read an estimate; the cache tells versions of the file apart by `size` and `mtime_ns`."""
    return read_estimate(path)


def _check(outputs: Iterable[Path], folder: Path, overwrite: bool) -> None:
    if not overwrite:
        for path in outputs:
            if path.exists():
                raise OutputError(f"output {path} exists; give another folder or allow overwriting with --overwrite")
    check_folder_writable(make_folder(folder))
