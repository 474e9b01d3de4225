"""GDAL's ground control points: in a GeoTIFF (a copy of the moving image) or a VRT (a small file that names it).

They join pixels of the moving image, counted from the corner of its first pixel, to the reference's map. Both files
open in any GDAL program as the moving image placed by the points, for example for `gdalwarp -tps`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from somareg.errors import InputError, OutputError
from somareg.io.atomic import atomic_path
from somareg.io.crs import parse_crs
from somareg.io.gdal_errors import RASTERIO_ERRORS, gdal_cause
from somareg.io.ground_control import gdal_arrays, gdal_points
from somareg.io.source import open_source
from somareg.runtime.quiet import without
from somareg.tiepoints.formats.point_pairs import Images, Places, PointPairs, make_pairs
from somareg.tiepoints.formats.rows import MAX_POINTS, number, optional_number, read_rows, text_of
from somareg.types import FloatArray

_KNOWN = ("sigma_px", "confidence", "residual_px")


def read_geotiff(path: Path, images: Images, *, skip_bad: bool) -> PointPairs:
    """Read the control points of a GeoTIFF.

    Raises:
        InputError: it has none, or they have no CRS.
    """
    with open_source(path, role="tie point") as source:
        gcps, crs = source.dataset.gcps
    if not gcps or not crs:
        raise InputError(f"{path} has no ground control points with a CRS")
    xy, map_xy, _ = gdal_arrays(gcps)
    return make_pairs(Places(map_xy, "map", crs.to_wkt()), Places(xy))


def read_vrt(path: Path, images: Images, *, skip_bad: bool) -> PointPairs:
    """Read the control points of a VRT; nothing that it names is opened.

    Raises:
        InputError: it is no VRT, has no control points or no CRS for them, or a point is bad.
    """
    text = text_of(path)
    if text.count("<") > 2 * MAX_POINTS:
        raise InputError(f"{path} holds more than {MAX_POINTS // 10**6} million control points; thin them out")
    if "<!" in text.replace("<!--", ""):
        raise InputError(f"{path} declares a document type or entities, which no VRT needs; it is not read")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  (no declarations, so nothing expands)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not a VRT: {error}") from error
    listed = root.find("GCPList")
    projection = "" if listed is None else listed.get("Projection", "")
    if listed is None or not projection:
        raise InputError(f"{path} has no ground control points with a CRS (GCPList with a Projection)")
    crs = parse_crs(projection, f"the CRS of {path}")
    points, width = enumerate(listed.findall("GCP"), 1), 4 + len(_KNOWN)
    values = read_rows(points, _values, path, "point", width, skip_bad=skip_bad)
    map_xy = values[:, 2:4]
    if _swapped(crs, listed.get("dataAxisToSRSAxisMapping")):
        map_xy = map_xy[:, ::-1]
    figures = dict(zip(_KNOWN, values[:, 4:].T, strict=True))
    return make_pairs(Places(map_xy, "map", crs.to_wkt()), Places(values[:, :2] - 0.5), **figures)


def write_geotiff(path: Path, pairs: PointPairs, images: Images, *, overwrite: bool) -> int:
    """Copy the moving image into a GeoTIFF that the inliers place; its own geotransform is dropped.

    Raises:
        InputError: the moving image is not known as a file.
        OutputError: the file exists, is the moving image itself, or cannot be written.
    """
    moving = _moving_file(path, images)
    xy, map_xy, crs, _ = _placed(pairs, images, path)
    options = {"TILED": "YES", "COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER"}
    with (
        _copied(moving, path, overwrite, driver="GTiff", **options) as temporary,
        rasterio.open(temporary, "r+", driver="GTiff") as dataset,
    ):
        dataset.gcps = (gdal_points(xy, map_xy), parse_crs(crs))
    return len(xy)


def write_vrt(path: Path, pairs: PointPairs, images: Images, *, overwrite: bool) -> int:
    """Write a VRT of the moving image with the inliers as its control points; their sigma and confidence are in `Info`.

    Raises:
        InputError: the moving image is not known as a file.
        OutputError: the file exists, is the moving image itself, or cannot be written.
    """
    moving = _moving_file(path, images)
    xy, map_xy, crs, good = _placed(pairs, images, path)
    with _copied(moving, path, overwrite, driver="VRT") as temporary:
        tree = ElementTree.fromstring(temporary.read_text(encoding="utf-8"))  # noqa: S314  (GDAL just wrote it)
        for name in ("SRS", "GeoTransform", "GCPList"):
            for element in tree.findall(name):
                tree.remove(element)
        listed = ElementTree.Element("GCPList", Projection=parse_crs(crs).to_wkt())
        for i, point in enumerate(gdal_points(xy, map_xy)):
            numbers = {"Pixel": point.col, "Line": point.row, "X": point.x, "Y": point.y}
            info = " ".join(f"{name}={v!r}" for name in _KNOWN if math.isfinite(v := float(getattr(good, name)[i])))
            texts = {name: repr(float(value)) for name, value in numbers.items()}
            ElementTree.SubElement(listed, "GCP", {"Id": str(i + 1), "Info": info, **texts})
        tree.insert(0, listed)
        for element in tree.iter("SourceFilename"):
            element.text, relative = _from_folder(moving, path.absolute().parent)
            element.set("relativeToVRT", str(int(relative)))
        ElementTree.indent(tree)
        temporary.write_text(ElementTree.tostring(tree, encoding="unicode") + "\n", encoding="utf-8")
    return len(xy)


def _moving_file(path: Path, images: Images) -> Path:
    moving = images.moving_file
    if moving is None:
        raise InputError(f"{path} shows the moving image; give it as a file with --moving")
    return moving


def _placed(pairs: PointPairs, images: Images, path: Path) -> tuple[FloatArray, FloatArray, str, PointPairs]:
    """Moving pixels, map coordinates, their CRS, and the points: inliers that have a place in both."""
    xy = pairs.moving.pixels(images.moving, "moving", str(path))
    map_xy, crs = pairs.reference.on_map(images.reference, "reference", str(path))
    usable = pairs.inlier & np.isfinite(xy).all(1) & np.isfinite(map_xy).all(1)
    if not usable.any():
        raise InputError(f"no point has a place in both images; {path} would be empty")
    return xy[usable], map_xy[usable], crs, pairs.kept(usable)


def _values(element: ElementTree.Element) -> list[float]:
    place = [number(element.get(name), name) for name in ("Pixel", "Line", "X", "Y")]
    words = dict(word.split("=", 1) for word in element.get("Info", "").split() if "=" in word)
    return [*place, *(optional_number(words.get(name), name) for name in _KNOWN)]


def _swapped(crs: CRS, mapping: str | None) -> bool:
    """Whether X in the file is the northing and Y the easting.

    A VRT may map coordinates to axes of the CRS. Without such a mapping X is the easting or longitude.
    """
    if mapping is None:
        return False
    wkt = str(crs.to_wkt(version="WKT2_2019")).upper()
    axis = wkt.find("AXIS[")
    north_first = axis >= 0 and wkt[axis : axis + 120].split(",")[1:2] == ["NORTH"]
    return mapping.replace(" ", "").startswith("1,2") == north_first


def _from_folder(file: Path, folder: Path) -> tuple[str, bool]:
    """The path by which a VRT in `folder` names a file, and whether it is relative to the folder."""
    try:
        return Path(os.path.relpath(file.absolute(), folder)).as_posix(), True
    except ValueError:  # another drive
        return str(file.absolute()), False


@contextmanager
def _copied(moving: Path, path: Path, overwrite: bool, **creation: str) -> Iterator[Path]:
    """A copy of the moving image under a temporary name, renamed to `path` in the end.

    GDAL's write errors become `OutputError`; its warning that a copy has no geotransform is silenced.
    """
    with atomic_path(path, overwrite=overwrite) as temporary:
        try:
            with without(NotGeoreferencedWarning):
                with open_source(moving, role="moving") as source:
                    rasterio.shutil.copy(source.dataset, temporary, **creation)
                yield temporary
        except RASTERIO_ERRORS as error:
            raise OutputError(f"writing {path} failed: {gdal_cause(error)}; make room and retry") from error
