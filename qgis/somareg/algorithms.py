"""register, warp, assess and batch as algorithms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingOutputNumber,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputString,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
)
from qgis.PyQt.QtGui import QIcon

from . import command, options, process, results

ICON = Path(__file__).with_name("icon.svg")


class Algorithm(QgsProcessingAlgorithm):
    """What all of them share: the command is found and run, told of a cancel, and its progress shown."""

    COMMAND = ""
    TITLE = ""
    WORDS = ""

    def __init__(self) -> None:
        super().__init__()
        self.table = options.table(self.COMMAND)

    def name(self) -> str:
        return self.COMMAND

    def displayName(self) -> str:
        return self.TITLE

    def group(self) -> str:
        return ""

    def groupId(self) -> str:
        return ""

    def icon(self) -> QIcon:
        return QIcon(str(ICON))

    def tags(self) -> list[str]:
        return ["registration", "coregistration", "align", "georeference", "sar", "optical", "somareg"]

    def shortHelpString(self) -> str:
        return f"<p>{self.table['summary']}</p>{self.WORDS}"

    def createInstance(self) -> Algorithm:
        return type(self)()

    def canExecute(self) -> tuple[bool, str]:
        try:
            command.find(_named())
        except command.NotFoundError as error:
            return False, str(error)
        return True, ""

    def add_options(self) -> None:
        """The parameters of the command's own options."""
        for option in self.table["options"]:
            self.addParameter(options.parameter(option))

    def run_command(self, flags: list[str], files: list[str], parameters: Any, context: Any, feedback: Any) -> Any:
        """Run the command with what was chosen; its JSON document, None where it was cancelled.

        Args:
            flags: besides the options of the table.
            files: the positional arguments.
            parameters, context, feedback: of the algorithm.
        """
        chosen = list(options.arguments(self, self.table["options"], parameters, context))
        try:
            program = command.find(_named())
            # What comes after "--" is a file, also where it begins with a dash.
            arguments = [self.COMMAND, *process.TOLD, *flags, *chosen, "--", *files]
            feedback.pushInfo(" ".join([*program, *arguments]))
            return process.run(program, arguments, _listener(feedback))
        except process.CancelledError:
            feedback.pushWarning("cancelled; nothing half-written was left")
            return None
        except (process.FailedError, command.NotFoundError) as error:
            raise QgsProcessingException(str(error)) from error

    def raster(self, parameters: Any, name: str, context: Any) -> str:
        """The file of a raster parameter, as somareg names files."""
        given = parameters.get(name)
        if isinstance(given, str) and Path(given).exists():
            return str(Path(given).absolute())  # also a product that QGIS itself cannot open
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        if layer.providerType() != "gdal":
            raise QgsProcessingException(
                f"{layer.name()} is no raster file on this machine; export it as GeoTIFF first"
            )
        source = str(layer.source())
        file = source.partition("|")[0]
        return source if Path(source).exists() or not Path(file).exists() else file


class Register(Algorithm):
    COMMAND, TITLE = "register", "Register (align a raster to a reference)"
    WORDS = (
        "<p>The moving raster is aligned to the reference, whatever sensors they are of. The verdict says whether the "
        "result can be used: <b>go</b>, <b>review</b> (look at the report first), <b>no-go</b> (no aligned raster).</p>"
    )

    def initAlgorithm(self, config: Any = None) -> None:
        self.addParameter(QgsProcessingParameterRasterLayer("MOVING", "Moving raster (is aligned)"))
        self.addParameter(QgsProcessingParameterRasterLayer("REFERENCE", "Reference raster"))
        self.add_options()
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder for the results"))
        self.addParameter(QgsProcessingParameterBoolean("OVERWRITE", "Replace earlier results of somareg", False))
        self.addParameter(QgsProcessingParameterBoolean("LOAD", "Load the results with their styles", True))
        for kind, name, words in (
            (QgsProcessingOutputRasterLayer, "ALIGNED", "Aligned raster"),
            (QgsProcessingOutputRasterLayer, "DISPLACEMENT", "Displacement, certainty, expected error"),
            (QgsProcessingOutputVectorLayer, "TIE_POINTS", "Tie points"),
            (QgsProcessingOutputFile, "PROJECT", "QGIS project of the result"),
            (QgsProcessingOutputHtml, "REPORT", "Report"),
            *_JUDGED,
        ):
            self.addOutput(kind(name, words))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        self.folder = Path(self.parameterAsString(parameters, "OUTPUT", context))
        self.loads = False
        files = [self.raster(parameters, name, context) for name in ("MOVING", "REFERENCE")]
        flags = [f"--out={self.folder}"]
        if self.parameterAsBool(parameters, "OVERWRITE", context):
            flags.append("--overwrite")
        document = self.run_command(flags, files, parameters, context, feedback)
        if document is None:
            return {}
        self.loads = self.parameterAsBool(parameters, "LOAD", context)
        figures = document["figures"]["predicted_rmse"]
        written = {
            "ALIGNED": "aligned.tif",
            "DISPLACEMENT": "displacement.tif",
            "TIE_POINTS": "tie_points.geojson",
            "PROJECT": "aligned.qgz",
            "REPORT": "report.html",
        }
        files_there = {key: str(self.folder / name) for key, name in written.items() if (self.folder / name).is_file()}
        return {"OUTPUT": str(self.folder), **files_there, **_judged(document["verdict"], figures["px"], feedback)}

    def postProcessAlgorithm(self, context: Any, feedback: Any) -> dict[str, Any]:
        if self.loads:
            for name in results.load(self.folder, context):
                feedback.pushInfo(f"loaded: {name}")
        return {}


class Warp(Algorithm):
    COMMAND, TITLE = "warp", "Warp (apply an estimate to another raster)"
    WORDS = "<p>Other bands, other dates, masks (resampling: nearest): whatever lies where the moving raster lay.</p>"

    def initAlgorithm(self, config: Any = None) -> None:
        self.addParameter(QgsProcessingParameterRasterLayer("RASTER", "Raster"))
        self.addParameter(
            QgsProcessingParameterFile("ESTIMATE", "displacement.tif or report.json of a result, or tie points")
        )
        self.add_options()
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Warped raster"))
        self.addOutput(QgsProcessingOutputString("VERDICT", "Verdict on the estimate"))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        target = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        estimate = self.parameterAsString(parameters, "ESTIMATE", context)
        files = [self.raster(parameters, "RASTER", context)]
        # QGIS has asked before it lets a file be replaced.
        flags = [f"--out={target}", "--overwrite", f"--estimate={estimate}"]
        document = self.run_command(flags, files, parameters, context, feedback)
        if document is None:
            return {}
        verdict = document.get("verdict") or {}
        if verdict.get("headline"):
            feedback.pushInfo(verdict["headline"])
        return {"OUTPUT": target, "VERDICT": verdict.get("decision", "")}


class Assess(Algorithm):
    COMMAND, TITLE = "assess", "Assess (how well two rasters lie on each other)"
    WORDS = "<p>Nothing is written: the misalignment is measured and judged.</p>"

    def initAlgorithm(self, config: Any = None) -> None:
        self.addParameter(QgsProcessingParameterRasterLayer("MOVING", "Raster to judge"))
        self.addParameter(QgsProcessingParameterRasterLayer("REFERENCE", "Reference raster"))
        self.add_options()
        for kind, name, words in (
            (QgsProcessingOutputNumber, "MISALIGNMENT_PX", "Misalignment, RMS, reference pixels"),
            (QgsProcessingOutputNumber, "MISALIGNMENT_M", "Misalignment, RMS, metres"),
            (QgsProcessingOutputNumber, "DX_PX", "Mean offset to the right, reference pixels"),
            (QgsProcessingOutputNumber, "DY_PX", "Mean offset down, reference pixels"),
            *_JUDGED[:-1],
        ):
            self.addOutput(kind(name, words))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        files = [self.raster(parameters, name, context) for name in ("MOVING", "REFERENCE")]
        document = self.run_command([], files, parameters, context, feedback)
        if document is None:
            return {}
        dx, dy = document["offset_px"]
        figures = {
            "MISALIGNMENT_PX": document["misalignment_rmse_px"],
            "MISALIGNMENT_M": document["misalignment_rmse_m"],
            "DX_PX": dx,
            "DY_PX": dy,
        }
        judged = _judged(document["verdict"], None, feedback)
        feedback.pushInfo(f"misalignment {figures['MISALIGNMENT_PX']} px, mean offset ({dx}, {dy}) px")
        return {**{key: value for key, value in figures.items() if value is not None}, **judged}


class Batch(Algorithm):
    COMMAND, TITLE = "batch", "Batch (register many pairs)"
    WORDS = (
        "<p>Pairs come from a CSV table (columns moving, reference, name and any option), or from two folders whose "
        "files are matched by name. A second run into the same folder continues the first.</p>"
    )

    def initAlgorithm(self, config: Any = None) -> None:
        folder = QgsProcessingParameterFile.Folder
        self.addParameter(QgsProcessingParameterFile("PAIRS", "Table of pairs (CSV)", optional=True, extension="csv"))
        self.addParameter(QgsProcessingParameterFile("MOVING", "or: folder of moving rasters", folder, optional=True))
        self.addParameter(QgsProcessingParameterFile("REFERENCE", "with: folder of references", folder, optional=True))
        self.add_options()
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder for the results"))
        self.addParameter(QgsProcessingParameterBoolean("OVERWRITE", "Do every pair anew", False))
        self.addParameter(QgsProcessingParameterBoolean("LOAD", "Load the aligned rasters", True))
        self.addOutput(QgsProcessingOutputFile("SUMMARY", "Summary (CSV)"))
        self.addOutput(QgsProcessingOutputString("WORST", "Worst verdict"))
        for state in ("go", "review", "no-go", "failed"):
            self.addOutput(QgsProcessingOutputNumber(state.upper().replace("-", "_"), f"Pairs: {state}"))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        self.folder, self.done = Path(self.parameterAsString(parameters, "OUTPUT", context)), []
        pairs, moving, reference = (
            self.parameterAsString(parameters, name, context) for name in ("PAIRS", "MOVING", "REFERENCE")
        )
        if bool(pairs) == bool(moving or reference) or bool(moving) != bool(reference):
            raise QgsProcessingException("give a table of pairs, or a folder of moving rasters and one of references")
        flags = [f"--out={self.folder}"]
        if self.parameterAsBool(parameters, "OVERWRITE", context):
            flags.append("--overwrite")
        files = [pairs] if pairs else [moving, reference]
        document = self.run_command(flags, files, parameters, context, feedback)
        if document is None:
            return {}
        for row in document["pairs"]:
            say = feedback.pushInfo if row["verdict"] == "go" else feedback.pushWarning
            say(f"{row['name']}: {row['headline'] or row['error'] or row['status']}")
        if self.parameterAsBool(parameters, "LOAD", context):
            self.done = [row["name"] for row in document["pairs"] if row["status"] == "done"]
        counts = document["counts"]
        numbers = {s.upper().replace("-", "_"): counts.get(s, 0) for s in ("go", "review", "no-go", "failed")}
        summary = str(self.folder / "summary.csv")
        return {"OUTPUT": str(self.folder), "SUMMARY": summary, "WORST": document["worst"], **numbers}

    def postProcessAlgorithm(self, context: Any, feedback: Any) -> dict[str, Any]:
        for name in self.done:
            results.load(self.folder / name, context, ("aligned",), name)
        return {}


_JUDGED = (
    (QgsProcessingOutputString, "VERDICT", "Verdict: go, review or no-go"),
    (QgsProcessingOutputString, "HEADLINE", "Verdict in one line"),
    (QgsProcessingOutputNumber, "PROBABILITY", "Chance of an error below 2 px"),
    (QgsProcessingOutputNumber, "PREDICTED_RMSE_PX", "Expected error, reference pixels"),
)


def _judged(verdict: Any, predicted: Any, feedback: Any) -> dict[str, Any]:
    """The verdict as outputs; it is told in the log, too."""
    say = feedback.pushInfo if verdict["decision"] == "go" else feedback.pushWarning
    say(verdict["headline"])
    for reason in verdict["reasons"]:
        feedback.pushInfo(f"  {reason}")
    known = {
        "VERDICT": verdict["decision"],
        "HEADLINE": verdict["headline"],
        "PROBABILITY": verdict["probability"],
        "PREDICTED_RMSE_PX": predicted,
    }
    return {name: value for name, value in known.items() if value is not None}


def _named() -> str:
    """What the user named as the command."""
    from processing.core.ProcessingConfig import ProcessingConfig

    return str(ProcessingConfig.getSetting(command.SETTING) or "")


def _listener(feedback: Any) -> process.Listener:
    """Who passes on to the dialog what the command tells."""

    def progress(share: float, stage: str) -> None:
        feedback.setProgress(100 * share)
        feedback.setProgressText(stage)

    return process.Listener(progress=progress, message=feedback.pushInfo, is_cancelled=feedback.isCanceled)


ALGORITHMS = (Register, Warp, Assess, Batch)
