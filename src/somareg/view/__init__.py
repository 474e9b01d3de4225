"""A local page that shows a result at full resolution: images to compare, displacement, error map, tie points, verdict.

The map is the pixel grid of the reference. All that is shown is brought to it, so images in other CRSs, placed by
control points or not placed at all need nothing special. Names are imported on first use: the extra `view` may be
missing.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from somareg.errors import UnsupportedError

if TYPE_CHECKING:
    from somareg.view.app import make_app
    from somareg.view.folder import Folder, find_folder
    from somareg.view.scene import Scene
    from somareg.view.server import Server

INSTALL = "install it with: pip install 'somareg[view]'"

_HOME = {"Folder": "folder", "find_folder": "folder", "Scene": "scene", "Server": "server", "make_app": "app"}


def need_view() -> None:
    """Make sure that the packages of the extra `view` are there.

    Raises:
        UnsupportedError: one is not installed.
    """
    for module in ("starlette", "uvicorn"):
        if find_spec(module) is None:
            raise UnsupportedError(f"the viewer needs {module}, which is not installed; {INSTALL}")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"somareg.view.{_HOME[name]}"), name)
    raise AttributeError(f"module 'somareg.view' has no attribute '{name}'")


__all__ = ["INSTALL", "Folder", "Scene", "Server", "find_folder", "make_app", "need_view"]
