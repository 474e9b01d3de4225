"""The plugin's modules that need no QGIS, imported from the repository."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from tests.programs import program

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "qgis" / "somareg"


def module(name: str, folder: Path = PLUGIN) -> ModuleType:
    return program(folder / f"{name}.py")
