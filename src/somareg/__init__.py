"""somareg: align a SAR image and an optical image of the same ground, pixel by pixel."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somareg.api import assess, register, warp
    from somareg.types import Assessment, Result

__version__ = "0.1.0"
__all__ = ["Assessment", "Result", "__version__", "assess", "register", "warp"]

_HOME = {"assess": "somareg.api", "register": "somareg.api", "warp": "somareg.api"}
_HOME |= {"Assessment": "somareg.types", "Result": "somareg.types"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import somareg` and `somareg --help` load neither torch nor rasterio."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'somareg' has no attribute '{name}'")
