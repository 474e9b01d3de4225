"""The files of a result, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from somareg.errors import OutputError
from somareg.io.atomic import check_free_space
from somareg.io.displacement import write_displacement
from somareg.io.points import write_geojson, write_qgis_points
from somareg.io.writer import check_writable, output_folder
from somareg.report import write_report
from somareg.types import Result
from somareg.warp.engine import apply_to_file

ALIGNED = "aligned.tif"
OWNED = (ALIGNED, "displacement.tif", "tie_points.geojson", "gcps.points", "report.json", "report.html")


def save(result: Result, folder: Path, *, overwrite: bool = False, force: bool = False) -> Path:
    """Write every output into `folder`; see `Result.save`."""
    check_writable(folder, overwrite=overwrite, owned=OWNED)
    check_free_space(folder, _expected_bytes(result))
    with output_folder(folder, overwrite=overwrite, owned=OWNED) as place:
        try:
            _write(result, place, force=force)
        except OutputError as error:
            # The temporary name says nothing to the user.
            raise OutputError(str(error).replace(str(place), str(folder))) from error
    return folder


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
