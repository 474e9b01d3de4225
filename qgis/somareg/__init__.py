"""somareg in QGIS: register, warp, assess and batch as algorithms of Processing.

The algorithms run the installed command `somareg` in a process of its own; nothing of it is imported here, and QGIS's
Python needs no package.
"""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """The plugin; `iface` is None where there is no window, as under qgis_process."""
    from .plugin import Plugin

    return Plugin(iface)
