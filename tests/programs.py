"""Programs of the repository outside the package (benchmarks, tools, the QGIS plugin), imported as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def program(path: str | Path) -> ModuleType:
    """The module in a file, given relative to the repository; each call runs it anew."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location("_".join(("program", *file.parts[-2:-1], file.stem)), file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
