"""Run by QGIS's Python: the plugin's algorithms on a pair, in one process. Prints one JSON document.

QT_QPA_PLATFORM=offscreen python3 run_algorithms.py PLUGINS MOVING REFERENCE FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
)


class Feedback(QgsProcessingFeedback):
    """Keeps what it is told; cancels at a stage, if asked to."""

    def __init__(self, cancel: bool = False) -> None:
        super().__init__()
        self.cancels, self.shares, self.said = cancel, [], []
        self.progressChanged.connect(self.shares.append)

    def setProgressText(self, text: str) -> None:
        if self.cancels:
            self.cancel()

    def pushInfo(self, info: str) -> None:
        self.said.append(info)

    def pushWarning(self, warning: str) -> None:
        self.said.append(f"warning: {warning}")


def run(name: str, parameters: dict[str, Any], cancel: bool = False) -> dict[str, Any]:
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"somareg:{name}")
    context, feedback = QgsProcessingContext(), Feedback(cancel)
    context.setProject(QgsProject.instance())
    told: dict[str, Any] = {"executable": list(algorithm.canExecute())}
    told["parameters"] = list(algorithm.checkParameterValues(parameters, context))
    try:
        # As the toolbox does: a copy of it is prepared, run and finished.
        results, done = algorithm.run(parameters, context, feedback, {}, False)
        told |= {"results": results, "done": done}
    except Exception as error:
        told["error"] = str(error)
    told |= {"said": feedback.said, "shares": feedback.shares}
    told["loaded"] = {}
    for key, details in context.layersToLoadOnCompletion().items():
        layer = context.temporaryLayerStore().mapLayer(key)
        told["loaded"][details.name] = [layer.isValid(), layer.renderer().type(), layer.source()]
    return told


def main() -> None:
    plugins, moving, reference, folder = sys.argv[1:]
    app = QgsApplication([], False)
    app.initQgis()
    sys.path[:0] = [plugins, str(Path(QgsApplication.pkgDataPath()) / "python" / "plugins")]
    from processing.core.Processing import Processing

    Processing.initialize()
    import somareg

    plugin = somareg.classFactory(None)
    plugin.initProcessing()
    pair = {"MOVING": moving, "REFERENCE": reference, "MODEL": "orientation", "PRESET": "fast"}
    out = str(Path(folder) / "out put")
    warped = str(Path(folder) / "warped.tif")
    document = {
        "algorithms": sorted(each.id() for each in plugin.provider.algorithms()),
        "cancelled": run("register", {**pair, "OUTPUT": str(Path(folder) / "cancelled")}, cancel=True),
        "register": run("register", {**pair, "OUTPUT": out, "LOAD": True}),
        "again": run("register", {**pair, "OUTPUT": out}),
        "wrong": run("register", {**pair, "OUTPUT": out, "OVERWRITE": True, "MOVING_BANDS": "9"}),
        "warp": run(
            "warp", {"RASTER": moving, "ESTIMATE": f"{out}/displacement.tif", "OUTPUT": warped, "RESAMPLING": "nearest"}
        ),
        "assess": run("assess", pair),
        "both": run("batch", {"PAIRS": moving, "MOVING": folder, "OUTPUT": out}),
    }
    os.environ["SOMAREG_COMMAND"] = "/nowhere/somareg"
    document["missing"] = run("assess", pair)
    Path(folder, "document.json").write_text(json.dumps(document, default=str))
    os._exit(0)


main()
