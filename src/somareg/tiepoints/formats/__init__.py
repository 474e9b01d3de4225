"""Tie points of other programs, read and written; the format follows from the file's name.

| suffix | what | holds |
|---|---|---|
| `.geojson`, `.json` | GeoJSON | pixels of both images and all attributes, four decimals |
| `.gpkg` | GeoPackage | the same with every digit |
| `.csv`, `.tsv` | table | the same with every digit |
| `.points` | QGIS Georeferencer | map and layer coordinates, enabled or not, residual |
| `.pts` | ENVI | pixels of both images, or map and pixels |
| `.tif`, `.tiff` | GDAL control points in a copy of the moving image | pixels and map |
| `.vrt` | GDAL control points beside the moving image | pixels, map, precision |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from somareg.errors import ConfigError, InputError, guarded
from somareg.io.folders import keep_inputs
from somareg.io.paths import check_local_file
from somareg.io.reading import reading_of, reading_record
from somareg.tiepoints.formats.point_pairs import (
    ImageLike,
    Images,
    from_tie_points,
    known_images,
    to_tie_points,
)
from somareg.types import Estimate, Reading, TiePoints

__all__ = ["SUFFIXES", "Conversion", "ImageLike", "convert_tie_points", "read_tie_points", "write_tie_points"]

SUFFIXES = {
    ".geojson": ("geojson", "read", "write"),
    ".json": ("geojson", "read", "write"),
    ".gpkg": ("geopackage", "read", "write"),
    ".csv": ("csv_table", "read", "write"),
    ".tsv": ("csv_table", "read", "write"),
    ".points": ("qgis", "read", "write"),
    ".pts": ("envi", "read", "write"),
    ".tif": ("gdal_gcps", "read_geotiff", "write_geotiff"),
    ".tiff": ("gdal_gcps", "read_geotiff", "write_geotiff"),
    ".vrt": ("gdal_gcps", "read_vrt", "write_vrt"),
}
"""Module of each format and the names of its reader and writer."""


@dataclass(frozen=True)
class Conversion:
    """The outcome of a conversion.

    Attributes:
        path: the file written.
        read, written: number of points. A format that cannot mark outliers takes inliers only.
    """

    path: Path
    read: int
    written: int


@guarded
def read_tie_points(
    path: str | Path,
    *,
    reference: ImageLike | None = None,
    moving: ImageLike | None = None,
    skip_bad_rows: bool = False,
) -> TiePoints:
    """Read tie points as pixel centres of both images.

    Args:
        path: a file of one of the formats above.
        reference, moving: the two images (paths, rasters or grids). Formats that hold map coordinates need the
            reference, QGIS points the moving image, and the displacement both.
        skip_bad_rows: leave rows that cannot be read out with a warning that names each, instead of refusing the file.

    Returns:
        The points; sigma_px, confidence, residual_px and displacement are NaN when neither file nor images give them.

    Raises:
        ConfigError: the suffix is none of the above.
        ReadError: missing or not of its format.
        InputError: a row is bad (file and line are named), or an image is needed and not given.
        GeoreferenceError: a CRS is missing, unknown, or does not join with the image's.
    """
    file = check_local_file(path, "tie point")
    images = known_images(reference, moving)
    pairs = _function(file, 1)(file, images, skip_bad=skip_bad_rows)
    return to_tie_points(pairs, images, file)


@guarded
def write_tie_points(
    path: str | Path,
    points: TiePoints,
    *,
    reference: ImageLike | None = None,
    moving: ImageLike | None = None,
    estimate: Estimate | None = None,
    overwrite: bool = False,
) -> Path:
    """Write tie points; the file appears whole or not at all.

    Args:
        path: the suffix selects the format.
        points: for example `Result.tie_points`.
        reference, moving: the two images. Map coordinates need the reference, QGIS points both, and control points in
            a GeoTIFF or VRT the moving image as a file.
        estimate: of which they are. It gives residuals the direction that their length in metres depends on; without
            it that length is the RMS over all directions. GeoJSON holds how its moving image was read, too, and
            `estimate_from_points` takes it from there.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        ConfigError: unknown suffix.
        InputError, GeoreferenceError: an image is needed and not given, or has no CRS.
        OutputError: the file exists or cannot be written.
    """
    file = Path(path)
    write = _function(file, 2)
    images = known_images(reference, moving)
    keep_inputs((file,), _files_of(images))
    if estimate is not None:
        images = replace(
            images,
            moving_reading=reading_record(estimate),
            correction=estimate.correction,
            both_placed=estimate.reference.is_georeferenced and estimate.moving.is_georeferenced,
        )
    write(file, from_tie_points(points), images, overwrite=overwrite)
    return file


def moving_reading(path: str | Path) -> tuple[Reading, str]:
    """How the moving image of a file of tie points was read, and its checksum, as our GeoJSON records them.

    Returns:
        An empty `Reading` and "" for every other format and for GeoJSON of other programs.

    Raises:
        ReadError, UnsupportedError: no local file.
        InputError: malformed.
    """
    file = check_local_file(path, "tie point")
    if SUFFIXES.get(file.suffix.lower(), ("",))[0] != "geojson":
        return Reading(), ""
    reading = import_module(f"{__name__}.geojson").reading(file)
    try:
        return (Reading(), "") if reading is None else reading_of(reading)
    except ValueError as error:
        raise InputError(f"{file}: its record of how the moving image was read is malformed ({error})") from error


@guarded
def convert_tie_points(
    source: str | Path,
    target: str | Path,
    *,
    reference: ImageLike | None = None,
    moving: ImageLike | None = None,
    skip_bad_rows: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Convert tie points; images are needed only where one format holds coordinates that the other lacks.

    Args and errors as of `read_tie_points` and `write_tie_points`.

    Raises:
        OutputError: the target is the source.
    """
    source_file, target_file = check_local_file(source, "tie point"), Path(target)
    read, write = _function(source_file, 1), _function(target_file, 2)
    images = known_images(reference, moving)
    keep_inputs((target_file,), {"input": source_file, **_files_of(images)})
    pairs = read(source_file, images, skip_bad=skip_bad_rows)
    return Conversion(target_file, len(pairs), write(target_file, pairs, images, overwrite=overwrite))


def _files_of(images: Images) -> dict[str, Path | None]:
    return {"reference image": images.reference_file, "moving image": images.moving_file}


def _function(path: Path, which: int) -> Any:
    """Reader (1) or writer (2) of a file's format."""
    names = SUFFIXES.get(path.suffix.lower())
    if names is None:
        raise ConfigError(f"tie points {path}: unknown suffix '{path.suffix}'; use {', '.join(SUFFIXES)}")
    return getattr(import_module(f"{__name__}.{names[0]}"), names[which])
