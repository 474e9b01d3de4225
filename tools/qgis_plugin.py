"""The QGIS plugin: its table of options, made from the commands themselves, and the zip file that QGIS installs.

    python tools/qgis_plugin.py options     write qgis/somareg/options.json (`make options`)
    python tools/qgis_plugin.py zip         write build/somareg-qgis.zip (`make qgis`)

QGIS's Python needs no somareg, so what the commands can do must lie beside the plugin as a file. A test fails while
that is not what this writes.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "qgis" / "somareg"
OPTIONS, ARCHIVE = PLUGIN / "options.json", ROOT / "build" / "somareg-qgis.zip"

COMMANDS = ("register", "warp", "assess", "batch")
OWN = {
    "help",
    "out",
    "overwrite",
    "as_json",
    "progress",
    "verbose",
    "quiet",
    "dry_run",
    "resume",
    "estimate",
    "nearest",
}
"""Options that the plugin has parameters of its own for, or says itself."""

_WRITTEN = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file holds
_SUFFIXES = {".py", ".json", ".txt", ".svg"}


def options() -> str:
    """The text of `options.json`: of each command its summary and its options."""
    from somareg.cli.main import COMMANDS as entries

    table = {}
    for name in COMMANDS:
        command = entries[name].load(name)
        known = [_option(each) for each in command.params if each.param_type_name == "option" and each.name not in OWN]
        table[name] = {"summary": entries[name].summary, "options": known}
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def _option(parameter: Any) -> dict[str, Any]:
    """One option: how it is written, what it takes, what it means."""
    from somareg.cli.flags import values
    from somareg.config import RegisterConfig
    from somareg.types import Reports

    own: Mapping[str, tuple[str, ...]] = {"resolution": ("reference", "native"), "reports": get_args(Reports)}
    is_listed = parameter.name in RegisterConfig.model_fields
    choices = own.get(parameter.name) or (values(parameter.name) if is_listed else ())
    metavar = parameter.metavar or ""
    return {
        "name": parameter.name,
        "flag": next(flag for flag in parameter.opts if flag.startswith("--")),
        "off": parameter.secondary_opts[0] if parameter.secondary_opts else None,
        "kind": _kind(parameter, metavar, choices),
        "choices": list(choices),
        "default": parameter.default,
        "help": parameter.help,
        "group": getattr(parameter, "rich_help_panel", None) or "Options",
    }


def _kind(parameter: Any, metavar: str, choices: tuple[str, ...]) -> str:
    if parameter.is_flag:
        return "switch"
    if choices:
        return "choice"
    if metavar == "FILE":
        return "file"
    if parameter.name.endswith("nodata"):
        return "text"  # a number, or nan
    described = getattr(parameter, "type_descriptor", None)  # of newer versions of Typer; others have what Click has
    name = described.annotation.__name__ if described else parameter.type.name
    return {"int": "whole", "integer": "whole", "float": "number"}.get(name, "text")


def archive() -> bytes:
    """The plugin as QGIS installs it; the same bytes whenever it is made of the same files."""
    stream = io.BytesIO()
    files = {f"somareg/{path.relative_to(PLUGIN).as_posix()}": path for path in PLUGIN.rglob("*") if _belongs(path)}
    files["somareg/LICENSE"] = ROOT / "LICENSE"
    with zipfile.ZipFile(stream, "w") as made:
        for name in sorted(files):
            about = zipfile.ZipInfo(name, _WRITTEN)
            about.compress_type, about.create_system, about.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            made.writestr(about, files[name].read_bytes())
    return stream.getvalue()


def _belongs(path: Path) -> bool:
    return path.is_file() and path.suffix in _SUFFIXES


if __name__ == "__main__":
    if sys.argv[1:] == ["options"]:
        OPTIONS.write_text(options(), encoding="utf-8")
    elif sys.argv[1:] == ["zip"]:
        ARCHIVE.parent.mkdir(exist_ok=True)
        ARCHIVE.write_bytes(archive())
        print(ARCHIVE.relative_to(ROOT))
    else:
        sys.exit("say 'options' or 'zip'")
