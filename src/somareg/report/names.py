"""Names of the files of a result, and whether the page is one of them."""

from __future__ import annotations

from typing import get_args

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.types import Decision, Reports

ALIGNED = "aligned.tif"
DISPLACEMENT = "displacement.tif"
POINTS = "tie_points.geojson"
PLAIN_POINTS = "gcps.points"
PROJECT = "aligned.qgz"
STYLE = "displacement.qml"
ITEM_NAME = "item.json"
PAGE = "report.html"
OUTPUTS = (ALIGNED, DISPLACEMENT, POINTS, PLAIN_POINTS, PROJECT, STYLE, "report.json", PAGE)
STATISTICS = tuple(f"{name}.aux.xml" for name in (ALIGNED, DISPLACEMENT))
"""Statistics files that GDAL and QGIS write beside an image; they are wrong for a later one of the same name."""
OWNED = (*OUTPUTS, ITEM_NAME, *STATISTICS)
"""All files of somareg in an output folder, and those that belong to them; a later run replaces them."""


def has_page(reports: Reports, decision: Decision) -> bool:
    """Whether a pair with this verdict gets a `report.html`."""
    return reports == "all" or (reports == "problems" and decision != "go")


def check_reports(reports: str) -> None:
    """Refuse a value that is none of `Reports`.

    Raises:
        ConfigError: naming the nearest valid value.
    """
    if reports not in get_args(Reports):
        raise ConfigError(f"unknown reports '{reports}'.{did_you_mean(reports, get_args(Reports))}")
