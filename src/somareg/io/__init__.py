"""The only room that touches raster files: reading, georeference, atomic writing, displacement and point files."""

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
from somareg.io.writer import check_writable, output_folder, write_geotiff, write_text

__all__ = [
    "assume_crs",
    "check_overlap",
    "check_writable",
    "from_array",
    "georeference",
    "ground_pixel_size",
    "lonlat_bounds",
    "metres_per_pixel",
    "output_folder",
    "read_estimate",
    "read_raster",
    "write_displacement",
    "write_geojson",
    "write_geotiff",
    "write_qgis_points",
    "write_text",
]
