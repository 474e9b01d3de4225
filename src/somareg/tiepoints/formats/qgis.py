"""QGIS Georeferencer `.points`: map coordinates of the reference, layer coordinates of the moving image.

The source of a point is in the layer's coordinates: those of the CRS for a georeferenced image, and column and
**minus** row for a plain one, where the corner of the first pixel is (0, 0). The file does not say which, so the moving
image is needed to read it.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np

from somareg.errors import InputError
from somareg.io.atomic import write_text
from somareg.io.crs import parse_crs
from somareg.tiepoints.formats.point_pairs import Images, Places, PointPairs, make_pairs, on_layer
from somareg.tiepoints.formats.rows import flag, lines_of, number, optional_number, read_rows
from somareg.types import BoolArray, FloatArray, Grid

log = logging.getLogger("somareg.io")

_HEADER = "mapX,mapY,sourceX,sourceY,enable,dX,dY,residual"


def read(path: Path, images: Images, *, skip_bad: bool) -> PointPairs:
    """Read a points file, also of older QGIS (header `pixelX,pixelY`, tabs) and with rows counted downwards.

    Raises:
        InputError: the moving image is not known, the header is another, or a line is bad.
    """
    if images.moving is None:
        raise InputError(f"{path} holds coordinates of the moving layer; reading them needs the moving image: --moving")
    lines = lines_of(path)
    crs, (_, first) = None, next(lines, (0, ""))
    if first.startswith("#CRS:"):
        crs = parse_crs(first.removeprefix("#CRS:").strip(), f"the CRS of {path}").to_wkt()
        _, first = next(lines, (0, ""))
    if not first.lower().startswith("mapx"):
        raise InputError(f"{path} is no QGIS points file: a line 'mapX,mapY,sourceX,sourceY,...' is missing")
    rows = ((i, line) for i, line in lines if line.strip())
    values = read_rows(rows, _row, path, "line", 6, skip_bad=skip_bad)
    reference = images.reference
    target = Places(values[:, :2], "map", crs)
    if crs is None and (reference is None or not reference.is_georeferenced):
        target = Places(values[:, :2] * (1.0, -1.0) - 0.5)
    return make_pairs(
        target,
        Places(_source_pixels(values[:, 2:4], images.moving, path)),
        inlier=values[:, 4] > 0,
        residual_px=values[:, 5],
    )


def write(path: Path, pairs: PointPairs, images: Images, *, overwrite: bool) -> int:
    """Write the points that have a place in both layers; only inliers are enabled.

    Points of an unknown image, or of one without a CRS, are written in pixels.
    """
    target, crs = _target(pairs, images, path)
    source = on_layer(images.moving, pairs.moving.pixels(images.moving, "moving", str(path)))
    lines = [f"#CRS: {' '.join(crs.split())}"] if crs else []
    lines.append(_HEADER)
    usable = np.flatnonzero(np.isfinite(target).all(axis=1) & np.isfinite(source).all(axis=1))
    for i in usable:
        residual = float(np.nan_to_num(pairs.residual_px[i]))
        numbers = ",".join(f"{v:.12g}" if abs(v) < 360 else f"{v:.5f}" for v in (*target[i], *source[i]))
        lines.append(f"{numbers},{int(pairs.inlier[i])},0,0,{residual:.4f}")
    write_text(path, "\n".join(lines) + "\n", overwrite=overwrite)
    if len(usable) < len(pairs):
        log.warning("%s: %d points have no place in a layer and are left out", path, len(pairs) - len(usable))
    return len(usable)


def _row(line: str) -> list[float]:
    """mapX, mapY, sourceX, sourceY, enabled, residual."""
    cells = next(csv.reader([line], delimiter="," if "," in line else "\t"))
    if len(cells) < 4:
        raise ValueError(f"{len(cells)} values where at least 4 are needed")
    names = _HEADER.split(",")
    places = [number(cell, name) for cell, name in zip(cells[:4], names, strict=False)]
    enabled = flag(cells[4], "enable") if len(cells) > 4 else True
    residual = optional_number(cells[7], "residual") if len(cells) > 7 else float("nan")
    return [*places, float(enabled), residual]


def _target(pairs: PointPairs, images: Images, path: Path) -> tuple[FloatArray, str]:
    """Where the points lie in the reference's layer, and its CRS ("" for a plain image)."""
    if pairs.reference.space == "map" and pairs.reference.crs is not None:
        return pairs.reference.xy, pairs.reference.crs
    grid = images.reference
    here = pairs.reference.pixels(grid, "reference", str(path))
    return on_layer(grid, here), (grid.crs if grid else None) or ""


def _source_pixels(source: FloatArray, moving: Grid, path: Path) -> FloatArray:
    """Pixel centres of the moving image.

    Scripts and older versions wrote columns and rows for georeferenced images, and rows counted downwards. The rule of
    QGIS applies if it puts any point on the image, since degrees are valid columns and rows of nearly every image. Else
    the first other reading that puts at least half of the points there is used.
    """
    down = source - 0.5
    up = source * (1.0, -1.0) - 0.5
    readings = {"columns and minus rows": up, "columns and rows": down}
    if moving.is_georeferenced:
        readings = {"map coordinates": moving.to_pixel(source), **readings}
    rule = next(iter(readings))
    for name, xy in readings.items():
        usable = _on_image(xy, moving)
        if len(xy) and (usable.any() if name == rule else usable.mean() >= 0.5):
            if name != rule:
                log.warning("%s: source coordinates were read as %s, since as %s they miss the image", path, name, rule)
            return xy
    return readings[rule]


def _on_image(xy: FloatArray, grid: Grid) -> BoolArray:
    size = np.array([grid.width, grid.height])
    return np.asarray(((xy >= -1.0) & (xy <= size)).all(axis=1))
