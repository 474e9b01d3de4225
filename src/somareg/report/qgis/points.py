"""Tie points as a QGIS layer: arrows of the displacement, coloured by residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from somareg.io.crs import LONLAT
from somareg.io.lonlat import has_lonlat
from somareg.report.names import PLAIN_POINTS, POINTS
from somareg.report.palette import colours
from somareg.report.samples import ARROWS_ACROSS, NOTHING_PX
from somareg.report.words import nice
from somareg.types import Result

Key = Literal["points", "displacement", "error", "aligned", "moving", "reference"]
"""Key of a layer, the same in every project."""

CLASSES_PX = (0.25, 0.5, 1.0, 2.0)
"""Residuals at which the colour of an arrow changes, the same in every project for comparison."""

_RAMP, _FIRST = "viridis", 40  # without the darkest colours, which are invisible on a SAR image


@dataclass(frozen=True, eq=False)
class PointLayer:
    """The tie points.

    Attributes:
        key: of the layer.
        title: as it is called in QGIS.
        crs: of the coordinates, None without one.
        checked: whether it is seen when the project opens.
        source, provider: QGIS's names of the file and its reader.
        kept, residual: QGIS expressions: whether a point is an inlier, and its residual in pixels.
        arrow: QGIS expressions for x and y of the point's place by the moving image's georeference; None when not
            known.
        factor: by which arrows are drawn longer.
        classes: label, lower and upper bound (px) and colour of each class of residuals.
    """

    key: Key
    title: str
    crs: str | None
    source: str
    provider: str
    kept: str
    residual: str
    arrow: tuple[str, str] | None
    factor: float
    classes: tuple[tuple[str, float, float | None, str], ...]
    checked: bool = True
    kind: str = "points"


def point_layer(result: Result, *, is_moving_placed: bool) -> PointLayer | str:
    """The layer of the tie points, or a sentence on why there is none.

    Args:
        result: from `register`.
        is_moving_placed: whether QGIS can show the original moving image on the outputs.
    """
    grid, moving = result.reference.grid, result.moving.grid
    if not len(result.tie_points):
        return "There are no tie points."
    on_earth = has_lonlat(grid)
    if not on_earth and not grid.is_georeferenced and grid.has_geotransform:
        return "The tie points are not shown: the reference has a geotransform, and the moving image has none to match."
    own: dict[str, Any]
    if on_earth:
        arrow = ('"mov_lon"', '"mov_lat"') if moving.is_georeferenced else None
        own = {"crs": LONLAT, "source": f"./{POINTS}", "provider": "ogr", "kept": '"inlier"'}
        own |= {"residual": '"residual_px"', "arrow": arrow}
    else:
        skipped = 1 if grid.crs else 0  # the line with the CRS
        query = f"type=csv&skipLines={skipped}&xField=mapX&yField=mapY&spatialIndex=no&subsetIndex=no&watchFile=no"
        arrow = ('"sourceX"', '"sourceY"') if is_moving_placed and moving.crs == grid.crs else None
        own = {"crs": grid.crs, "source": f"file:./{PLAIN_POINTS}?{query}", "provider": "delimitedtext"}
        own |= {"kept": '"enable" = 1', "residual": '"residual"', "arrow": arrow}
    factor = arrow_factor(result)
    scale = "to scale" if factor == 1 else f"{factor:g} times longer"
    title = "Tie points, by residual" if own["arrow"] is None else f"Tie points, by residual; arrows {scale}"
    return PointLayer(key="points", title=title, factor=factor, classes=_classes(), **own)


def arrow_factor(result: Result) -> float:
    """Round factor by which arrows are drawn longer, as in the report, from the tie points."""
    ties, grid = result.tie_points, result.reference.grid
    lengths = np.hypot(*ties.displacement[ties.inlier].T)
    long = float(np.percentile(lengths, 95)) if len(lengths) else 0.0
    if not long > NOTHING_PX:
        return 1.0
    return max(1.0, nice(1.1 * max(grid.width, grid.height) / ARROWS_ACROSS / long))


def _classes() -> tuple[tuple[str, float, float | None, str], ...]:
    bounds = (0.0, *CLASSES_PX)
    shades = colours(_RAMP)[np.linspace(_FIRST, 255, len(bounds)).astype(int)].tolist()
    ends: tuple[float | None, ...] = (*CLASSES_PX, None)
    return tuple(
        (
            f"{low:g} to {high:g} px" if high is not None else f"above {low:g} px",
            low,
            high,
            "#{:02x}{:02x}{:02x}".format(*shade),
        )
        for low, high, shade in zip(bounds, ends, shades, strict=True)
    )
