"""The plugin's modules that need no QGIS, imported from the repository."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "qgis" / "somareg"


def module(name: str, folder: Path = PLUGIN) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"qgis_plugin_{name}", folder / f"{name}.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made
