"""The layers of a result's project, and reasons for missing ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from somareg.errors import SomaregError
from somareg.io.lonlat import outline
from somareg.report.names import ALIGNED, DISPLACEMENT
from somareg.report.palette import ramp
from somareg.report.plain import Length
from somareg.report.qgis.files import Shown, shown_file
from somareg.report.qgis.points import Key, PointLayer, point_layer
from somareg.report.samples import scale_top
from somareg.report.words import length, nice
from somareg.types import Grid, Header, Modality, Raster, Result

_ERROR_RAMP, _STOPS = "plasma", 9


@dataclass(frozen=True, eq=False)
class PictureLayer:
    """A layer of an image.

    Attributes:
        key: of the layer.
        title: its name in QGIS.
        crs: WKT, None without a georeference.
        shown: its file and stretch.
        checked: whether it is visible when the project opens.
    """

    key: Key
    title: str
    crs: str | None
    shown: Shown
    checked: bool = True
    kind: str = "picture"


@dataclass(frozen=True, eq=False)
class ColourLayer:
    """A layer of one band of `displacement.tif` in colours.

    Attributes:
        key, title, crs, checked: as of a `PictureLayer`.
        source: of the file.
        band: its number.
        low, high: values of the first and the last colour.
        stops: value, label and colour of each step of the ramp.
        unit: of the values.
    """

    key: Key
    title: str
    crs: str | None
    source: str
    band: int
    low: float
    high: float
    stops: tuple[tuple[float, str, str], ...]
    unit: str = "px"
    opacity: float = 0.75
    checked: bool = False
    kind: str = "colour"


Layer = PictureLayer | ColourLayer | PointLayer


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of a project, the topmost first, and sentences about missing ones."""

    shown: list[Layer] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def layers_of(result: Result, place: Path, folder: Path) -> Layers:
    """The layers of a result.

    Args:
        result: from `register`.
        place: current folder of its outputs.
        folder: their final folder.
    """
    layers = Layers()
    points = point_layer(result, is_moving_placed=_lies_on_outputs(result, result.moving))
    if isinstance(points, str):
        layers.missing.append(points)
    else:
        layers.shown.append(points)
    style = displacement_layer(result)
    layers.shown.append(style)
    if style.key != "error":
        layers.missing.append("There is no error map: a no-go states no error.")
    _add_images(layers, result, place, folder)
    return layers


def displacement_layer(result: Result) -> ColourLayer:
    """The layer of `displacement.tif`: the expected error, or dx on no-go."""
    field_of, crs = result.displacement, result.reference.grid.crs
    step = max(1, max(field_of.grid.shape) // 1024)
    sigma, source = field_of.sigma[::step, ::step], f"./{DISPLACEMENT}"
    if np.isfinite(sigma).any():
        top = nice(scale_top(sigma), up=True)
        return _coloured("error", "Expected error (px)", crs, source, 4, (0.0, top), result)
    dx = np.percentile(field_of.array[0, ::step, ::step], (2, 98)).tolist()
    low, high = dx if dx[1] > dx[0] else (dx[0] - 0.5, dx[0] + 0.5)
    return _coloured("displacement", "Displacement dx (px)", crs, source, 1, (low, high), result)


def _coloured(
    key: Key, title: str, crs: str | None, source: str, band: int, ends: tuple[float, float], result: Result
) -> ColourLayer:
    per_pixel = result.quality.metres_per_pixel
    values = np.linspace(*ends, _STOPS).tolist()
    stops = tuple(
        (value, length(Length(px=value, m=None if per_pixel is None else value * per_pixel)), colour)
        for value, colour in zip(values, ramp(_ERROR_RAMP, _STOPS), strict=True)
    )
    return ColourLayer(key, title, crs, source, band, *ends, stops)


def _add_images(layers: Layers, result: Result, place: Path, folder: Path) -> None:
    """Add the images: aligned over before over the reference; before and aligned with the same stretch."""
    moving, reference = result.moving, result.reference
    after = None
    if (place / ALIGNED).is_file():
        modality = _modality(result, "moving")
        after = shown_file(folder / ALIGNED, folder, modality, place=place / ALIGNED, wanted=_wanted(result, "moving"))
        layers.shown.append(PictureLayer("aligned", f"Aligned: {_name(moving)}", reference.grid.crs, after))
    else:
        layers.missing.append("There is no aligned image: the verdict is no-go.")
    before = _input(layers, result, "moving", folder)
    if before is not None:
        if after is not None and not (before.colours or after.colours) and len(before.bands) == len(after.bands):
            before = replace(before, limits=after.limits)
        title, crs = f"Before: {_name(moving)}", moving.grid.crs
        layers.shown.append(PictureLayer("moving", title, crs, before, checked=after is None))
    file = _input(layers, result, "reference", folder)
    if file is not None:
        layers.shown.append(PictureLayer("reference", f"Reference: {_name(reference)}", reference.grid.crs, file))


def _input(layers: Layers, result: Result, role: Literal["moving", "reference"], folder: Path) -> Shown | None:
    """The layer file of one of the two images, if it is a file that QGIS can place on the outputs."""
    image = getattr(result, role)
    what = f"The {role} image {_name(image)} is not shown"
    if image.path is None:
        layers.missing.append(f"{what}: it was given in memory.")
        return None
    if not _lies_on_outputs(result, image):
        layers.missing.append(f"{what}: without a georeference it has no place beside the outputs.")
        return None
    try:
        file = shown_file(image.path, folder, _modality(result, role), wanted=_wanted(result, role))
    except SomaregError as error:
        layers.missing.append(f"{what}: {error}.")
        return None
    nodata = result.settings.get(f"{role}_nodata")
    return file if nodata is None or not np.isfinite(nodata) else replace(file, nodata=float(nodata))


def _lies_on_outputs(result: Result, image: Raster | Header) -> bool:
    """Whether QGIS draws an image in the right place: by georeferences, or by pixels for images without."""
    moving, reference = result.moving.grid, result.reference.grid
    if image is result.reference and reference.is_georeferenced:
        return True
    if moving.is_georeferenced and reference.is_georeferenced:
        return True
    is_plain = not (moving.is_georeferenced or reference.is_georeferenced)
    # Pixels of a part of the reference count from its own corner, those of the files from theirs.
    return is_plain and not image.grid.has_geotransform and "frame" not in result.settings


def _modality(result: Result, role: str) -> Modality:
    modality: Modality = result.settings.get(f"{role}_modality", "other")
    return modality


def _wanted(result: Result, role: str) -> tuple[int, ...] | None:
    bands = result.settings.get(f"{role}_bands")
    return None if bands is None else tuple(int(band) for band in bands)


def _name(image: Raster | Header) -> str:
    return PurePath(image.name).name or image.name


def bounds_of(grid: Grid) -> tuple[float, float, float, float]:
    """Extent of a map of a whole grid: left, bottom, right, top in its CRS, or in columns and minus rows."""
    edge = outline(grid, 9)
    places = grid.to_map(edge) if grid.is_georeferenced or grid.has_geotransform else (edge + 0.5) * (1.0, -1.0)
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        return 0.0, -1.0, 1.0, 0.0
    (left, bottom), (right, top) = places.min(axis=0).tolist(), places.max(axis=0).tolist()
    return left, bottom, right, top
