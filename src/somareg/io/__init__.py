"""The only room that touches raster files: reading, georeference, atomic writing, displacement and point files.

Names are imported on first use: `somareg.io.atomic` alone then needs no raster library, which a machine that only
trains may lack.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somareg.io.atomic import check_writable, output_folder, write_text
    from somareg.io.displacement import read_estimate, write_displacement
    from somareg.io.georef import (
        assume_crs,
        check_overlap,
        georeference,
        ground_pixel_size,
        lonlat_bounds,
        metres_per_pixel,
    )
    from somareg.io.points import write_geojson, write_qgis_points
    from somareg.io.raster import from_array, read_raster
    from somareg.io.tie_points import convert_tie_points, read_tie_points, write_tie_points
    from somareg.io.writer import write_geotiff

_HOME = {
    "atomic": ("check_writable", "output_folder", "write_text"),
    "displacement": ("read_estimate", "write_displacement"),
    "georef": (
        "assume_crs",
        "check_overlap",
        "georeference",
        "ground_pixel_size",
        "lonlat_bounds",
        "metres_per_pixel",
    ),
    "points": ("write_geojson", "write_qgis_points"),
    "tie_points": ("convert_tie_points", "read_tie_points", "write_tie_points"),
    "raster": ("from_array", "read_raster"),
    "writer": ("write_geotiff",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"somareg.io.{module}"), name)
    raise AttributeError(f"module 'somareg.io' has no attribute '{name}'")


__all__ = [
    "assume_crs",
    "check_overlap",
    "check_writable",
    "convert_tie_points",
    "from_array",
    "georeference",
    "ground_pixel_size",
    "lonlat_bounds",
    "metres_per_pixel",
    "output_folder",
    "read_estimate",
    "read_raster",
    "read_tie_points",
    "write_displacement",
    "write_geojson",
    "write_geotiff",
    "write_qgis_points",
    "write_text",
    "write_tie_points",
]
