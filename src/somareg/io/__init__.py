"""The only room that touches raster files: reading, georeference, atomic writing, displacement files.

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
    )
    from somareg.io.lonlat import lonlat_bounds
    from somareg.io.metric import ground_metric
    from somareg.io.raster import from_array, read_raster
    from somareg.io.writer import write_geotiff

_HOME = {
    "atomic": ("check_writable", "output_folder", "write_text"),
    "displacement": ("read_estimate", "write_displacement"),
    "georef": (
        "assume_crs",
        "check_overlap",
        "georeference",
    ),
    "lonlat": ("lonlat_bounds",),
    "metric": ("ground_metric",),
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
    "from_array",
    "georeference",
    "ground_metric",
    "lonlat_bounds",
    "output_folder",
    "read_estimate",
    "read_raster",
    "write_displacement",
    "write_geotiff",
    "write_text",
]
