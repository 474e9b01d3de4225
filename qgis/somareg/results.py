"""What a run has written, brought into the project with its styles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProject

SHOWN = ("reference", "moving", "aligned", "error", "displacement", "points")
"""Layers of `aligned.qgz` by the keys in their ids, the lowest first."""

OUTPUTS = {"aligned": "ALIGNED", "error": "DISPLACEMENT", "displacement": "DISPLACEMENT", "points": "TIE_POINTS"}
OWN = tuple(OUTPUTS)
"""Those that the run has made; the inputs are there already."""


def load(folder: Path, context: Any, keys: Sequence[str] = OWN, title: str = "") -> list[str]:
    """Have the layers of a result loaded when the algorithm has ended; styles are those of its project.

    Args:
        folder: of the result.
        context: of the algorithm; called in the main thread.
        keys: which layers.
        title: put before their names.

    Returns:
        Their names.
    """
    project = QgsProject()
    if not project.read(str(folder / "aligned.qgz")):
        return []
    found = {_key(layer): layer for layer in project.mapLayers().values() if layer.isValid()}
    names = []
    for key in SHOWN:
        if key not in keys or key not in found:
            continue
        layer = found[key].clone()
        layer.setName(f"{title}: {layer.name()}" if title else layer.name())
        context.temporaryLayerStore().addMapLayer(layer)
        details = QgsProcessingContext.LayerDetails(layer.name(), context.project(), OUTPUTS.get(key, ""))
        context.addLayerToLoadOnCompletion(layer.id(), details)
        names.append(layer.name())
    return names


def _key(layer: Any) -> str:
    """`somareg_KEY_...` are the ids that somareg gives."""
    pieces = layer.id().split("_")
    return pieces[1] if len(pieces) > 1 else ""
