"""Run by QGIS's Python: open a project, say what its layers are, and draw it. Prints one JSON document.

QT_QPA_PLATFORM=offscreen python3 look.py PROJECT PICTURE.png [THEME]
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

SIDE = 900


def layer_facts(layer: Any) -> dict[str, Any]:
    facts = {
        "name": layer.name(),
        "valid": layer.isValid(),
        "source": layer.source(),
        "crs": layer.crs().authid(),
        "has_crs": layer.crs().isValid(),
        "extent": box(layer.extent()),
    }
    if layer.isValid() and isinstance(layer, QgsRasterLayer):
        facts["renderer"] = layer.renderer().type()
        facts["bands"] = layer.renderer().usesBands()
    elif layer.isValid():
        facts["renderer"] = layer.renderer().type()
        facts["features"] = layer.featureCount()
        facts["fields"] = [field.name() for field in layer.fields()]
    return facts


def box(extent: Any) -> list[float]:
    return [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]


def draw(project: Any, picture: str, theme: str) -> list[str]:
    settings = QgsMapSettings()
    if theme:
        layers = project.mapThemeCollection().mapThemeVisibleLayers(theme)
    else:
        layers = project.layerTreeRoot().checkedLayers()
    settings.setLayers([layer for layer in layers if layer.isValid()])
    settings.setDestinationCrs(project.crs())
    settings.setExtent(project.viewSettings().defaultViewExtent())
    settings.setOutputSize(QSize(SIDE, SIDE))
    settings.setOutputDpi(96)
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    image.save(picture)
    return [error.message for error in job.errors()]


def main() -> None:
    app = QgsApplication([], False)
    app.initQgis()
    project = QgsProject.instance()
    opened = project.read(sys.argv[1])
    root = project.layerTreeRoot()
    document = {
        "opened": opened,
        "error": project.error(),
        "title": project.title(),
        "crs": project.crs().authid(),
        "view": box(project.viewSettings().defaultViewExtent()),
        "order": [layer.id() for layer in root.layerOrder()],
        "checked": [layer.name() for layer in root.checkedLayers()],
        "themes": project.mapThemeCollection().mapThemes(),
        "layers": {key.split("_")[1]: layer_facts(layer) for key, layer in project.mapLayers().items()},
        "abstract": project.metadata().abstract(),
    }
    document["errors"] = draw(project, sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
    print(json.dumps(document))
    sys.stdout.flush()
    os._exit(0)  # QGIS's own clearing up has been seen to crash without a display


main()
