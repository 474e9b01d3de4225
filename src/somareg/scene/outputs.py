"""The files of a scene: the same names as those of a small pair, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from somareg.io import write_displacement
from somareg.io.atomic import output_folder
from somareg.report import ALIGNED, OWNED, build_record, render_report, write_pages
from somareg.report.stac import write_stac_item
from somareg.tiepoints.formats.points import write_geojson, write_qgis_points
from somareg.types import Progress, Result, TiePoints
from somareg.warp.engine import apply_to_file

QGIS_POINTS = 2000  # QGIS's georeferencer is slow with more


def write_outputs(
    result: Result,
    valid_shares: Mapping[str, float],
    folder: Path,
    step: int,
    progress: Progress,
    *,
    force: bool,
    stac: bool,
) -> None:
    """Write every file of a scene into `folder`, over earlier ones; the same names and formats as `Result.save`.

    Args:
        result: with the displacement at nodes `step` pixels apart.
        valid_shares: of the pixels of "moving" and "reference", 0-1.
        folder: for the outputs.
        step: reference pixels per node.
        progress: called with the stage and the share of this work done.
        force, stac: as in `Result.save`.
    """
    with output_folder(folder, overwrite=True, owned=OWNED) as place:
        outputs = _write_rasters(result, place, step, force=force, progress=progress)
        grid, moving = result.reference.grid, result.moving.grid
        progress("writing tie points", 0.92)
        outputs["tie_points.geojson"] = write_geojson(place / "tie_points.geojson", result.tie_points, grid)
        few = thin_out(result.tie_points, QGIS_POINTS)
        outputs["gcps.points"] = write_qgis_points(place / "gcps.points", few, grid, moving)
        progress("writing report", 0.95)
        _write_report(result, valid_shares, place, outputs)
        if stac:
            write_stac_item(result, place, folder)


def thin_out(ties: TiePoints, limit: int) -> TiePoints:
    """Every n-th tie point."""
    every = max(1, -(-len(ties) // limit))
    fields = ("reference_xy", "moving_xy", "displacement", "sigma_px", "confidence", "inlier", "residual_px")
    return TiePoints(**{name: getattr(ties, name)[::every] for name in fields})


def _write_rasters(result: Result, place: Path, step: int, *, force: bool, progress: Progress) -> dict[str, Path]:
    outputs: dict[str, Path] = {}
    tags = {"SOMAREG_VERDICT": result.verdict.decision}
    matrix = getattr(result.affine, "matrix", None)
    outputs["displacement.tif"] = write_displacement(
        place / "displacement.tif", result.displacement, result.estimate, matrix, tags, step=step
    )
    if result.verdict.decision != "no-go" or force:
        assert result.moving.path is not None  # scenes are files
        progress("warping", 0.0)
        outputs[ALIGNED] = apply_to_file(
            result.moving.path,
            result.estimate,
            place / ALIGNED,
            resampling=result.settings["resampling"],
            nodata=result.settings["moving_nodata"],
            progress=lambda stage, share: progress(stage, 0.9 * share),
        )
    return outputs


def _write_report(result: Result, shares: Mapping[str, float], place: Path, outputs: Mapping[str, Path]) -> None:
    record = build_record(result, outputs)
    inputs = {role: getattr(record, role).model_copy(update={"valid_share": s}) for role, s in shares.items()}
    record = record.model_copy(update=inputs)
    # The page reads coordinates by the thousand at most.
    page = render_report(replace(result, tie_points=thin_out(result.tie_points, 8000)), record)
    write_pages(place, record, page)
