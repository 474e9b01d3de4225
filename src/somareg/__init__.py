"""somareg: align a SAR image and an optical image of the same ground, pixel by pixel."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from somareg.runtime.version import __version__

if TYPE_CHECKING:
    from somareg.batches.audit.run import audit
    from somareg.batches.run import batch
    from somareg.batches.warps import warp_many
    from somareg.register.api import SceneResult, assess, load_model, register, register_into, register_scene, warp
    from somareg.register.many import register_many
    from somareg.tiepoints.estimate import estimate_from_points
    from somareg.tiepoints.formats import read_tie_points, write_tie_points
    from somareg.types import Assessment, Result, TiePoints

__all__ = [
    "Assessment",
    "Result",
    "SceneResult",
    "TiePoints",
    "__version__",
    "assess",
    "audit",
    "batch",
    "estimate_from_points",
    "load_model",
    "read_tie_points",
    "register",
    "register_into",
    "register_many",
    "register_scene",
    "warp",
    "warp_many",
    "write_tie_points",
]

_HOME = dict.fromkeys(
    ("SceneResult", "assess", "load_model", "register", "register_into", "register_scene", "warp"),
    "somareg.register.api",
)
_HOME |= {
    "register_many": "somareg.register.many",
    "audit": "somareg.batches.audit.run",
    "batch": "somareg.batches.run",
    "estimate_from_points": "somareg.tiepoints.estimate",
    "warp_many": "somareg.batches.warps",
}
_HOME |= dict.fromkeys(("read_tie_points", "write_tie_points"), "somareg.tiepoints.formats")
_HOME |= dict.fromkeys(("Assessment", "Result", "TiePoints"), "somareg.types")


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import somareg` and `somareg --help` load neither torch nor rasterio."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'somareg' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What completion offers: the public names, of which none is imported for that."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


class _Package(ModuleType):
    """Keeps `somareg.register` and `somareg.warp` the functions, although rooms of these names exist: importing a room
    would hide its function. The import system offers the room here; `from somareg.warp import ...` finds it without.
    """

    @property
    def register(self) -> Any:
        return __getattr__("register")

    @register.setter
    def register(self, room: ModuleType) -> None:
        """Nothing is kept."""

    @property
    def warp(self) -> Any:
        return __getattr__("warp")

    @warp.setter
    def warp(self, room: ModuleType) -> None:
        """Nothing is kept."""


sys.modules[__name__].__class__ = _Package
