"""The point files of a result: GeoJSON and QGIS's georeferencer."""

from __future__ import annotations

from pathlib import Path

from somareg.io.tie_points import geojson, qgis
from somareg.io.tie_points.images import Images
from somareg.io.tie_points.pairs import from_tie_points
from somareg.types import Grid, TiePoints


def write_geojson(path: str | Path, tie_points: TiePoints, reference_grid: Grid, *, overwrite: bool = False) -> Path:
    """Write tie points as a GeoJSON FeatureCollection (RFC 7946), one Point per pair at its place in the reference.

    Longitude and latitude when georeferenced. Without a CRS the coordinates are reference pixels, which the foreign
    member `coordinates` says. Points that have no longitude and latitude get a null geometry. Values that are not
    finite become null.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    geojson.write(Path(path), from_tie_points(tie_points), Images(reference_grid), overwrite=overwrite)
    return Path(path)


def write_qgis_points(
    path: str | Path,
    tie_points: TiePoints,
    reference_grid: Grid,
    moving_grid: Grid,
    *,
    overwrite: bool = False,
) -> Path:
    """Write tie points for QGIS's georeferencer: load the moving image there, then these points.

    Map coordinates are the reference's. Source coordinates are the moving layer's: its CRS when georeferenced,
    otherwise column and minus row, where the corner of the first pixel is (0, 0). Only inliers are enabled.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    qgis.write(Path(path), from_tie_points(tie_points), Images(reference_grid, moving_grid), overwrite=overwrite)
    return Path(path)
