"""The files of a result, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from somareg.config import did_you_mean
from somareg.errors import ConfigError, EstimationError, guarded
from somareg.io.atomic import check_writable, output_folder
from somareg.io.dataarray import kept_attributes, need_rioxarray, to_dataarray
from somareg.io.displacement import BANDS, write_displacement
from somareg.io.folders import check_free_space, keep_inputs
from somareg.io.lock import FolderLock
from somareg.io.paths import check_folder_name
from somareg.io.verdicts import verdict_attributes, without_verdict
from somareg.report import ALIGNED, OWNED, check_reports, has_page, write_report
from somareg.report.qgis import write_project
from somareg.report.stac import need_pystac, write_stac_item
from somareg.tiepoints.formats import write_tie_points
from somareg.types import Header, Progress, Raster, Reading, Reports, Result, StacOrigin, TiePoints
from somareg.warp.engine import apply, apply_to_file

QGIS_POINTS = 2000  # QGIS's georeferencer is slow with more points
PAGE_POINTS = 8000  # most points that the page draws


@guarded
def save(
    result: Result,
    folder: Path,
    *,
    overwrite: bool = False,
    force: bool = False,
    stac: bool = False,
    reports: Reports = "all",
    progress: Progress | None = None,
    lock: FolderLock | None = None,
    beside: tuple[str, ...] = (),
) -> Path:
    """Write every output into `folder`; see `Result.save`, and `output_folder` for `lock` and `beside`."""
    check_folder_name(folder)
    check_reports(reports)
    if stac:
        need_pystac()
    inputs: dict[str, str | Path | None] = {}
    for role, image in (("moving image", result.moving), ("reference image", result.reference)):
        inputs |= {
            role: image.path,
            f"STAC Item of the {role}": image.origin.href if isinstance(image.origin, StacOrigin) else None,
        }
    spare_inputs(folder, inputs, result.settings)
    check_writable(folder, overwrite=overwrite, owned=OWNED, beside=beside, lock=lock)
    check_free_space(folder, _expected_bytes(result))
    tell = progress or (lambda stage, share: None)
    with output_folder(folder, overwrite=overwrite, owned=OWNED, beside=beside, lock=lock) as place:
        _write(result, place, folder, tell, force=force, with_page=has_page(reports, result.verdict.decision))
        if stac:
            write_stac_item(result, place, folder)
    return folder


def spare_inputs(folder: Path, inputs: Mapping[str, str | Path | None], settings: Mapping[str, Any]) -> None:
    """Refuse an output folder where an output would overwrite an input.

    Args:
        folder: for the outputs.
        inputs: name for messages -> file, None for an image in memory.
        settings: whose texts may name files.

    Raises:
        OutputError: an input would be replaced or removed.
    """
    files = {f"file of {name}": value for name, value in settings.items() if isinstance(value, str)}
    keep_inputs((folder / name for name in OWNED), {**inputs, **files})


@guarded
def convert(result: Result, what: str, *, force: bool = False) -> Any:
    """An output as xarray.DataArray; see `Result.to_xarray`."""
    need_rioxarray()
    facts = verdict_attributes(result.verdict)
    like = result.reference.origin
    if what == "displacement":
        field = result.displacement
        bands = np.concatenate([field.array, field.certainty[None], field.sigma[None]])
        raster = Raster(bands, np.ones(field.grid.shape, bool), field.grid, descriptions=BANDS)
        convention = "moving_xy = reference_xy + (dx, dy), pixels, x right, y down"
        return to_dataarray(raster, like=like, name="displacement", convention=convention, **facts)
    if what != "aligned":
        raise ConfigError(f"unknown output '{what}'.{did_you_mean(what, ('aligned', 'displacement'))}")
    if result.verdict.decision == "no-go" and not force:
        raise EstimationError(
            f"the verdict is no-go ({result.verdict.reasons[0]}); use force=True to have the aligned image all the same"
        )
    aligned = apply(_pixels(result.moving), **_as_read(result), resampling=result.settings["resampling"])
    return to_dataarray(
        aligned, like=like, name="aligned", kept=without_verdict(kept_attributes(result.moving.origin)), **facts
    )


def _as_read(result: Result) -> dict[str, Any]:
    """Estimate and reading for warping the moving image itself, so that no checksum is needed to recognise it."""
    estimate = result.estimate
    reading = estimate.reading
    if isinstance(result.moving, Raster):  # its mask is already applied
        reading = replace(reading, mask=None, mask_values=None)
    return {"estimate": replace(estimate, reading=Reading()), "reading": reading}


def _write(result: Result, place: Path, folder: Path, tell: Progress, *, force: bool, with_page: bool) -> None:
    outputs: dict[str, Path] = {}
    grid, moving, field = result.estimate.reference, result.moving, result.displacement
    matrix = getattr(result.affine, "matrix", None)
    step = -(-grid.width // field.grid.width)
    outputs["displacement.tif"] = write_displacement(
        place / "displacement.tif", field, result.estimate, matrix, step=step
    )
    if result.verdict.decision != "no-go" or force:
        tell("warping", 0.0)
        outputs[ALIGNED] = apply_to_file(
            _pixels(moving),
            out_path=place / ALIGNED,
            **_as_read(result),
            resampling=result.settings["resampling"],
            progress=lambda stage, share: tell(stage, 0.9 * share),
        )
    tell("writing tie points", 0.92)
    outputs["tie_points.geojson"] = write_tie_points(
        place / "tie_points.geojson", result.tie_points, reference=grid, estimate=result.estimate
    )
    few = thin_out(result.tie_points, QGIS_POINTS)
    outputs["gcps.points"] = write_tie_points(place / "gcps.points", few, reference=grid, moving=moving.grid)
    outputs |= write_project(result, place, folder)
    tell("writing report", 0.95)
    page = replace(result, tie_points=thin_out(result.tie_points, PAGE_POINTS))
    write_report(result, place, outputs, final=folder, page=page, with_page=with_page)


def thin_out(ties: TiePoints, limit: int) -> TiePoints:
    """Take every n-th tie point, at most `limit`."""
    every = max(1, -(-len(ties) // limit))
    return ties if every == 1 else TiePoints(**{f.name: getattr(ties, f.name)[::every] for f in fields(ties)})


def _pixels(image: Raster | Header) -> Path | Raster:
    """The moving image to warp: its file, or the raster in memory."""
    return image if isinstance(image, Raster) else image.path or image.reader()


def _expected_bytes(result: Result) -> int:
    """A generous estimate of the bytes to be written."""
    grid, moving = result.reference.grid, result.moving
    nodes = result.displacement.grid
    pixels = grid.width * grid.height * moving.count * moving.dtype.itemsize
    return (pixels + 16 * nodes.width * nodes.height) // 2 + 4_000_000
