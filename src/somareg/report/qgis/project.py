"""`aligned.qgz` and `displacement.qml`: XML from templates, the same bytes for the same result in the same place."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from somareg.errors import OutputError
from somareg.io.crs import parse_crs
from somareg.report.names import PROJECT, STYLE
from somareg.report.plain import text
from somareg.report.qgis.layers import Layers, bounds_of, displacement_layer, layers_of
from somareg.report.qgis.points import Key
from somareg.types import Result

QGIS = "3.22.0"
"""The oldest QGIS version that reads these project files."""

_THEMES: Mapping[str, tuple[Key, tuple[Key, ...]]] = {
    "Before": ("moving", ("points", "moving", "reference")),
    "After": ("aligned", ("aligned", "reference")),
    "Expected error": ("error", ("error", "aligned", "reference")),
}
"""Map themes: the required layer of each, and the layers that it shows."""

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WRITTEN = (1980, 1, 1, 0, 0, 0)  # the earliest time stamp of a zip file


def write_project(result: Result, place: Path, folder: Path) -> dict[str, Path]:
    """Write the project and the style of the displacement into a private folder.

    Args:
        result: from `register`.
        place: an existing private folder with the other outputs; the caller renames it to `folder`.
        folder: final folder of the project, to which paths of layers are relative.

    Returns:
        Their names and files.

    Raises:
        OutputError: one cannot be written (read-only, disk full).
    """
    style = _templates().get_template("displacement.qml.j2").render(layer=displacement_layer(result), qgis=QGIS)
    project = _zipped(f"{PurePath(PROJECT).stem}.qgs", _project(result, layers_of(result, place, folder)))
    files = {}
    for name, content in ((PROJECT, project), (STYLE, style.encode())):
        try:
            (place / name).write_bytes(content)
        except OSError as error:
            raise OutputError(
                f"cannot write {place / name}: {error.strerror or error}; free space or choose another folder."
            ) from error
        files[name] = place / name
    return files


def _project(result: Result, layers: Layers) -> str:
    names = " on ".join(text(PurePath(image.name).name or image.name) for image in (result.moving, result.reference))
    token = _token(result)
    keys = {layer.key for layer in layers.shown}
    page: str = (
        _templates()
        .get_template("aligned.qgs.j2")
        .render(
            qgis=QGIS,
            title=names,
            abstract="\n".join([result.verdict.headline, *layers.missing]),
            crs=result.reference.grid.crs,
            extent=bounds_of(result.reference.grid),
            layers=layers.shown,
            ids={key: f"somareg_{key}_{token}" for key in keys},
            themes=_themes(keys),
        )
    )
    return page


def _themes(shown: Collection[Key]) -> dict[str, list[Key]]:
    return {name: [key for key in keys if key in shown] for name, (main, keys) in _THEMES.items() if main in shown}


def _token(result: Result) -> str:
    """A suffix for ids of layers, so that a project can include those of two results."""
    matrix = np.asarray(getattr(result.affine, "matrix", ()), float)
    parts = [result.moving.name, result.reference.name, result.moving.sha256, result.reference.sha256]
    parts += [result.verdict.headline, *(f"{value:.6f}" for value in matrix.ravel().tolist())]
    return hashlib.sha256("\n".join(text(part) for part in parts).encode()).hexdigest()[:12]


def _zipped(name: str, content: str) -> bytes:
    """A zip file with one text file, with reproducible bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        about = zipfile.ZipInfo(name, _WRITTEN)
        about.compress_type, about.create_system, about.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
        archive.writestr(about, content.encode())
    return stream.getvalue()


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("somareg.report", "templates/qgis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_xml,
    )
    environment.filters |= {"crs_code": _code, "crs_wkt": _wkt, "rgba": _rgba, "number": _number}
    return environment


def _xml(value: Any) -> Any:
    """Escape text for XML; characters that XML does not allow are replaced."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return Markup(str(escape(_NO_XML.sub("\ufffd", text(value)))).replace("\r", "&#13;"))  # noqa: S704 - escaped


def _code(crs: str | None) -> str:
    """Authority and code, such as "EPSG:32633"; "" for a CRS without."""
    authority = None if crs is None else parse_crs(crs).to_authority()
    return ":".join(authority) if authority else ""


def _wkt(crs: str | None) -> str:
    return "" if crs is None else parse_crs(crs).to_wkt(version="WKT2_2019")


def _rgba(colour: str, alpha: int = 255) -> str:
    """Convert a colour such as "#1f6fb2" to QGIS's notation."""
    return ",".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5)) + f",{alpha}"


def _number(value: float) -> str:
    return repr(float(value))
