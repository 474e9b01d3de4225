"""ENVI `.pts`: image to image (base and warp pixels) or image to map; the corner of the first pixel is (1, 1)."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from somareg.errors import InputError, UnsupportedError
from somareg.io.atomic import write_text
from somareg.io.crs import parse_crs
from somareg.tiepoints.formats.point_pairs import Images, Places, PointPairs, make_pairs
from somareg.tiepoints.formats.rows import lines_of, number, read_rows

log = logging.getLogger("somareg.io")

_TO_CENTRE = 1.5  # pixel centre 0 lies half a pixel from the corner, which is 1
_PROJECTION = re.compile(r"projection\s+info\s*=\s*\{(.*?)\}", re.IGNORECASE | re.DOTALL)


def read(path: Path, images: Images, *, skip_bad: bool) -> PointPairs:
    """Read a points file; its comments say whether it is image to image or image to map.

    Raises:
        InputError: the comments do not describe the columns, or a line is bad.
        UnsupportedError: map coordinates in a projection that is neither geographic nor UTM on WGS-84, and no
            georeferenced reference gives the CRS.
    """
    header = "\n".join(line.lstrip("; ") for _, line in lines_of(path) if line.lstrip().startswith(";"))
    words = header.lower()
    rows = ((i, line) for i, line in lines_of(path) if line.strip() and not line.lstrip().startswith(";"))
    to_map = "map (x,y" in words or "image to map" in words
    if not to_map and "base image" not in words and "image to image" not in words:
        raise InputError(
            f"{path} does not say what its columns are; add '; Base Image (x,y), Warp Image (x,y)' or "
            "'; Map (x,y), Image (x,y)' as its first line"
        )
    count = 5 if to_map and "elev" in words else 4

    def parse(line: str) -> list[float]:
        cells = line.split()
        if len(cells) != count:
            raise ValueError(f"{len(cells)} values where {count} are needed")
        values = [number(cell, f"column {i}") for i, cell in enumerate(cells, 1)]
        return [*values[:2], *values[-2:]]

    values = read_rows(rows, parse, path, "line", 4, skip_bad=skip_bad)
    here = Places(values[:, :2] - _TO_CENTRE)
    if to_map:
        here = Places(values[:, :2], "map", _crs_of(header, images, path))
    return make_pairs(here, Places(values[:, 2:] - _TO_CENTRE))


def write(path: Path, pairs: PointPairs, images: Images, *, overwrite: bool) -> int:
    """Write the inliers: image to image when the reference's pixels are known, else image to map.

    The format can neither mark outliers nor hold precisions.
    """
    good = pairs.kept(pairs.inlier)
    there = good.moving.pixels(images.moving, "moving", str(path)) + _TO_CENTRE
    names = [" ".join(str(file).split()) if file else "unknown" for file in (images.reference_file, images.moving_file)]
    if good.reference.space == "pixel" or images.reference is not None:
        here = good.reference.pixels(images.reference, "reference", str(path)) + _TO_CENTRE
        lines = ["; ENVI Image to Image GCP File", f"; base file: {names[0]}", f"; warp file: {names[1]}"]
        lines += ["; Base Image (x,y), Warp Image (x,y)", ";"]
        digits = 8
    else:
        here, crs = good.reference.on_map(None, "reference", str(path))
        lines = ["; ENVI Image to Map GCP File", f"; projection info = {{{_projection_info(crs, path)}}}"]
        lines += [f"; warp file: {names[1]}", "; Map (x,y), Image (x,y)", ";"]
        digits = 11
    usable = np.flatnonzero(np.isfinite(here).all(1) & np.isfinite(there).all(1))
    for i in usable:
        lines.append("".join(f"{v:{digits + 12}.{digits}f}" for v in (*here[i], *there[i])))
    write_text(path, "\n".join(lines) + "\n", overwrite=overwrite)
    return len(usable)


def _projection_info(crs: str, path: Path) -> str:
    """A CRS as ENVI describes it."""
    code = parse_crs(crs).to_epsg()
    if code == 4326:
        return "Geographic Lat/Lon, WGS-84, units=Degrees"
    if code is not None and (32601 <= code <= 32660 or 32701 <= code <= 32760):
        return f"UTM, {code % 100}, {'North' if code < 32700 else 'South'}, WGS-84, units=Meters"
    raise UnsupportedError(
        f"{path}: ENVI has no known name for the CRS of these map coordinates; give the reference image, so that its "
        "pixels are written instead"
    )


def _crs_of(header: str, images: Images, path: Path) -> str | None:
    """WKT of the CRS that the comments name; None for that of the reference image."""
    match = _PROJECTION.search(header)
    parts = [part.strip().lower() for part in match[1].split(",")] if match else []
    on_wgs84 = any(part.replace(" ", "").replace("_", "-") in ("wgs-84", "wgs84") for part in parts)
    if parts and parts[0].startswith("geographic") and on_wgs84:
        return str(parse_crs("EPSG:4326").to_wkt())
    if len(parts) >= 3 and parts[0] == "utm" and parts[1].isdigit() and 1 <= int(parts[1]) <= 60 and on_wgs84:
        base = 32600 if parts[2].startswith("n") else 32700
        return str(parse_crs(f"EPSG:{base + int(parts[1])}").to_wkt())
    if images.reference is not None and images.reference.is_georeferenced:
        log.warning("%s: its projection is taken to be that of the reference image", path)
        return None
    raise UnsupportedError(
        f"{path}: projection {match[1].strip() if match else '(not named)'} is neither geographic nor UTM on WGS-84; "
        "give the reference image whose CRS it is"
    )
