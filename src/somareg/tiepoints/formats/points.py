"""The point files of a result: GeoJSON and QGIS's georeferencer."""

from __future__ import annotations

from pathlib import Path

from somareg.tiepoints.formats import write_tie_points
from somareg.types import Grid, TiePoints


def write_geojson(path: Path, points: TiePoints, reference: Grid) -> Path:
    """As `write_tie_points`; without a CRS the coordinates are reference pixels."""
    return write_tie_points(path, points, reference=reference)


def write_qgis_points(path: Path, points: TiePoints, reference: Grid, moving: Grid) -> Path:
    """As `write_tie_points`: load the moving image in the georeferencer, then these points."""
    return write_tie_points(path, points, reference=reference, moving=moving)
