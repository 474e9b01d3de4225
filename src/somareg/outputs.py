"""The files of a result, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from somareg.config import did_you_mean
from somareg.errors import ConfigError, EstimationError
from somareg.io.atomic import check_free_space
from somareg.io.dataarray import need_rioxarray, to_dataarray
from somareg.io.displacement import write_displacement
from somareg.io.writer import check_writable, output_folder
from somareg.report import ALIGNED, OWNED, write_report
from somareg.report.stac import need_pystac, write_stac_item
from somareg.tiepoints.formats.points import write_geojson, write_qgis_points
from somareg.types import Raster, Result
from somareg.warp.engine import apply, apply_to_file


def save(result: Result, folder: Path, *, overwrite: bool = False, force: bool = False, stac: bool = False) -> Path:
    """Write every output into `folder`; see `Result.save`."""
    if stac:
        need_pystac()
    check_writable(folder, overwrite=overwrite, owned=OWNED)
    check_free_space(folder, _expected_bytes(result))
    with output_folder(folder, overwrite=overwrite, owned=OWNED) as place:
        _write(result, place, force=force)
        if stac:
            write_stac_item(result, place, folder)
    return folder


def convert(result: Result, what: str, *, force: bool = False) -> Any:
    """An output as xarray.DataArray; see `Result.to_xarray`."""
    need_rioxarray()
    facts = {"somareg_verdict": result.verdict.decision, "somareg_predicted_rmse_px": result.predicted_rmse_px}
    like = result.reference.origin
    if what == "displacement":
        field = result.displacement
        bands = np.concatenate([field.array, field.certainty[None]])
        raster = Raster(bands, np.ones(field.grid.shape, bool), field.grid, descriptions=("dx", "dy", "certainty"))
        convention = "moving_xy = reference_xy + (dx, dy), pixels, x right, y down"
        return to_dataarray(raster, like=like, name="displacement", convention=convention, **facts)
    if what != "aligned":
        raise ConfigError(f"unknown output '{what}'.{did_you_mean(what, ('aligned', 'displacement'))}")
    if result.verdict.decision == "no-go" and not force:
        raise EstimationError(
            f"the verdict is no-go ({result.verdict.reasons[0]}); use force=True to have the aligned image all the same"
        )
    settings = result.settings
    aligned = apply(result.moving, result.estimate, resampling=settings["resampling"], nodata=settings["moving_nodata"])
    return to_dataarray(aligned, like=like, name="aligned", **facts)


def _write(result: Result, place: Path, *, force: bool) -> None:
    outputs: dict[str, Path] = {}
    if result.verdict.decision != "no-go" or force:
        source = result.moving.path or result.moving
        outputs[ALIGNED] = apply_to_file(
            source,
            result.estimate,
            place / ALIGNED,
            resampling=result.settings["resampling"],
            nodata=result.settings["moving_nodata"],
        )
    matrix = getattr(result.affine, "matrix", None)
    tags = {"SOMAREG_VERDICT": result.verdict.decision}
    outputs["displacement.tif"] = write_displacement(
        place / "displacement.tif", result.displacement, result.estimate, matrix, tags
    )
    grid, moving = result.reference.grid, result.moving.grid
    outputs["tie_points.geojson"] = write_geojson(place / "tie_points.geojson", result.tie_points, grid)
    outputs["gcps.points"] = write_qgis_points(place / "gcps.points", result.tie_points, grid, moving)
    write_report(result, place, outputs)


def _expected_bytes(result: Result) -> int:
    """A generous guess of what will be written."""
    pixels = result.reference.grid.width * result.reference.grid.height
    return pixels * (len(result.moving.data) * result.moving.data.dtype.itemsize + 12) // 2 + 4_000_000
