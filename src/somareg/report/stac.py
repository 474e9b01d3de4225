"""A result as a STAC Item: aligned image, other files, expected error and sources.

pystac is the extra `stac`; importing this module does not need it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from somareg.errors import OutputError, UnsupportedError
from somareg.io.crs import parse_crs
from somareg.report.footprint import footprint
from somareg.report.names import ITEM_NAME
from somareg.runtime.version import __version__
from somareg.types import Grid, Header, Raster, Result, StacOrigin

if TYPE_CHECKING:
    import pystac

INSTALL = "pip install 'somareg[stac]'"

ACCURACY = "https://stac-extensions.github.io/accuracy/v1.0.0-beta.1/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_ASSETS: Mapping[str, tuple[str, str, str, list[str]]] = {
    "aligned.tif": ("aligned", "the moving image on the reference grid", _COG, ["data"]),
    "displacement.tif": (
        "displacement",
        "dx, dy (reference pixels), certainty and expected error (sigma)",
        _COG,
        ["displacement"],
    ),
    "tie_points.geojson": ("tie_points", "the matched points", "application/geo+json", ["tie-points"]),
    "gcps.points": ("gcps", "the matched points for the QGIS Georeferencer", "text/csv", ["tie-points"]),
    "aligned.qgz": ("qgis_project", "all of it as a QGIS project", "application/x-qgis-project", ["overview"]),
    "displacement.qml": (
        "displacement_style",
        "the style of the displacement for QGIS",
        "application/xml",
        ["metadata"],
    ),
    "report.json": ("report", "every figure, setting and checksum", "application/json", ["metadata"]),
    "report.html": ("report_html", "before/after pictures and the verdict", "text/html", ["overview"]),
}
_PREDICTED = (
    "predicted by somareg's calibration: the expected error of the alignment relative to the reference image; it was "
    "not measured against ground truth, and the reference's own error comes on top"
)


def need_pystac() -> None:
    """Make sure that pystac can be imported.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import pystac  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(f"a STAC Item needs {error.name}, which is not installed; {INSTALL}") from error


def to_stac_item(result: Result, folder: str | Path, *, acquired: datetime | None = None) -> pystac.Item:
    """A STAC Item about a result that was saved in `folder`, with an asset for every file of it that is there.

    Extensions: projection (as pystac knows it) with code, shape and transform of the reference grid; accuracy with
    `accuracy:geometric_rmse` in metres, which is the **predicted** RMSE, as `somareg:accuracy_basis` says; processing.
    Accuracy is left out when no aligned image was saved or there are no metres. Without a CRS, geometry is null.

    Args:
        result: from `register`.
        folder: where `Result.save` wrote it.
        acquired: when the moving image was taken. Otherwise the moving image's STAC Item tells; without one `datetime`
            is the time of processing, as `somareg:datetime_basis` says.

    Returns:
        The Item with `folder`/item.json as its own address, relative hrefs and a `derived_from` link per input that
        is a file or a STAC Item.

    Raises:
        UnsupportedError: pystac is not installed.
    """
    place = Path(folder)
    return _build(result, _present(place), place, acquired)


def write_stac_item(result: Result, place: Path, folder: Path) -> Path:
    """Write `item.json` into `place`, a private folder that the caller renames to `folder`.

    Args:
        result: from `register`.
        place: current folder of the files that the Item describes.
        folder: their final folder, from which links to the inputs start.

    Raises:
        UnsupportedError: pystac is not installed.
        OutputError: it cannot be written.
    """
    item = _build(result, _present(place), folder, None)
    text = json.dumps(item.to_dict(include_self_link=False), indent=2, allow_nan=False, ensure_ascii=False)
    try:
        (place / ITEM_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"cannot write {place / ITEM_NAME}: {error.strerror or error}; free space") from error
    return place / ITEM_NAME


def _present(place: Path) -> list[str]:
    return [name for name in _ASSETS if (place / name).is_file()]


def _build(result: Result, present: list[str], folder: Path, acquired: datetime | None) -> pystac.Item:
    need_pystac()
    import pystac

    geometry, bbox = footprint(result.reference.grid)
    when, span, properties = _dates(result.moving, acquired)
    item = pystac.Item(
        id=_identifier(result),
        geometry=geometry,
        bbox=bbox,
        datetime=when,
        properties={**properties, **_figures(result, aligned="aligned.tif" in present), **_processing(result)},
        href=str(folder.absolute() / ITEM_NAME),
        **span,
    )
    _project(item, result.reference.grid)
    item.stac_extensions.append(PROCESSING)
    if "accuracy:geometric_rmse" in item.properties:
        item.stac_extensions.append(ACCURACY)
    for name in present:
        key, title, kind, roles = _ASSETS[name]
        item.add_asset(key, pystac.Asset(f"./{name}", title, None, kind, roles, _own_fields(result, name)))
    for role in ("moving", "reference"):
        link = _source(getattr(result, role), folder)
        if link is not None:
            item.add_link(pystac.Link("derived_from", link[0], link[1], f"{role} image"))
    return item


def _identifier(result: Result) -> str:
    """`MOVING-on-REFERENCE` from ids of Items or file names, in characters that every catalogue accepts."""
    names = []
    for raster in (result.moving, result.reference):
        origin = raster.origin
        name = f"{origin.item}-{origin.asset}" if isinstance(origin, StacOrigin) else Path(raster.name).stem
        names.append(re.sub(r"[^\w.\-]+", "-", name).strip("-")[:80] or "image")
    return "-on-".join(names)


def _dates(
    moving: Raster | Header, acquired: datetime | None
) -> tuple[datetime | None, dict[str, Any], dict[str, Any]]:
    """`datetime`, or the span in its place, and the properties that name their source."""
    from pystac.utils import str_to_datetime

    now = datetime.now(UTC).replace(microsecond=0)
    properties = {"created": now.isoformat().replace("+00:00", "Z")}
    if acquired is not None:
        return acquired, {}, {**properties, "somareg:datetime_basis": "acquisition of the moving image, as given"}
    try:
        dates = {k: str_to_datetime(v) for k, v in getattr(moving.origin, "dates", {}).items()}
    except ValueError:
        dates = {}
    span = {k: v for k, v in dates.items() if k != "datetime"}
    if "datetime" in dates or len(span) == 2:
        properties["somareg:datetime_basis"] = "acquisition of the moving image, from its STAC Item"
        return dates.get("datetime"), span if len(span) == 2 else {}, properties
    properties["somareg:datetime_basis"] = "time of processing; when the moving image was acquired is not known"
    return now, {}, properties


def _figures(result: Result, *, aligned: bool) -> dict[str, Any]:
    """Verdict, and the predicted error in pixels and metres, which a no-go lacks."""
    verdict = result.verdict
    figures: dict[str, Any] = {
        "somareg:verdict": verdict.decision,
        "somareg:headline": _text(verdict.headline),
        "somareg:probability_below_2px": _number(verdict.probability),
        "somareg:predicted_rmse_px": _number(verdict.predicted_rmse_px),
        "somareg:predicted_rmse_m": _number(verdict.predicted_rmse_m),
    }
    if aligned and math.isfinite(verdict.predicted_rmse_m):
        figures["accuracy:geometric_rmse"] = round(verdict.predicted_rmse_m, 4)
        figures["somareg:accuracy_basis"] = _PREDICTED
    return figures


def _processing(result: Result) -> dict[str, Any]:
    settings = result.settings
    model = " ".join(str(v) for v in (settings.get("model_used"), settings.get("model_version")) if v)
    lineage = (
        f"{Path(result.moving.name).name} ({settings.get('moving_modality')}) aligned to "
        f"{Path(result.reference.name).name} ({settings.get('reference_modality')}) by somareg {__version__}, model "
        f"{model}; resampled once ({settings.get('resampling')}) from the original pixels"
    )
    return {"processing:software": {"somareg": __version__}, "processing:lineage": _text(lineage)}


def _project(item: pystac.Item, grid: Grid) -> None:
    from pystac.extensions.projection import ProjectionExtension

    code = wkt2 = None
    if grid.crs is not None:
        crs = parse_crs(grid.crs)
        authority = crs.to_authority()
        code = None if authority is None else ":".join(authority)
        wkt2 = crs.to_wkt(version="WKT2_2019") if code is None else None
    transform = None if grid.control is not None else list(grid.transform)  # ground control points are no transform
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.apply(code=code, wkt2=wkt2, shape=[grid.height, grid.width], transform=transform)


def _own_fields(result: Result, name: str) -> dict[str, Any]:
    """Fields of an asset: `bands`, and its grid if that is not the reference's."""
    if name == "displacement.tif":
        units = {"dx": "px", "dy": "px", "certainty": "1", "sigma": "px"}
        bands = [{"name": k, "data_type": "float32", "unit": unit} for k, unit in units.items()]
        return {"bands": bands, **_nodes(result.displacement.grid, result.reference.grid)}
    if name != "aligned.tif":
        return {}
    moving = result.moving
    data_type = {"bool": "uint8", "complex64": "cfloat32", "complex128": "cfloat64"}.get(
        str(moving.dtype), str(moving.dtype)
    )
    described = moving.descriptions or ("",) * moving.count
    return {
        "bands": [
            {"name": _text(text) or f"band {number}", "data_type": data_type}
            for number, text in enumerate(described, 1)
        ]
    }


def _nodes(grid: Grid, reference: Grid) -> dict[str, Any]:
    """Shape and transform of a scene's displacement, whose pixels cover many of the reference."""
    if grid.shape == reference.shape:
        return {}
    shape = {"proj:shape": [grid.height, grid.width]}
    return shape if grid.control is not None else {**shape, "proj:transform": list(grid.transform)}


def _source(raster: Raster | Header, folder: Path) -> tuple[str, str | None] | None:
    """Address and media type of an image's source; files are relative to the folder."""
    origin = raster.origin
    if isinstance(origin, StacOrigin) and origin.href:
        remote = origin.href.startswith(("http://", "https://"))
        return origin.href if remote else _relative(Path(origin.href), folder), "application/geo+json"
    if raster.path is None:
        return None
    kinds = {".tif": "image/tiff; application=geotiff", ".tiff": "image/tiff; application=geotiff", ".jp2": "image/jp2"}
    return _relative(raster.path, folder), kinds.get(raster.path.suffix.lower())


def _relative(path: Path, folder: Path) -> str:
    try:
        relative = os.path.relpath(path.absolute(), folder.absolute())
    except ValueError:  # another drive
        return path.absolute().as_uri()
    return quote(_text(Path(relative).as_posix()))


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _text(value: str) -> str:
    """Text that UTF-8 can encode, for any bytes of a file name."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
