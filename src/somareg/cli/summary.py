"""The terminal output at the end of a run; words and figures are those of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from somareg.cli.failures import one_line
from somareg.report.plain import Length
from somareg.report.record import Report
from somareg.report.words import file_size, length, verdict_words
from somareg.types.words import metres, percent, pixels

if TYPE_CHECKING:
    from somareg.types import Assessment, Verdict

STYLES = {"go": "bold green", "review": "bold yellow", "no-go": "bold red"}
FILES = {
    "aligned.tif": "the moving image on the reference grid",
    "displacement.tif": "dx, dy in reference pixels, certainty, expected error",
    "tie_points.geojson": "the matched points",
    "gcps.points": "the same for the QGIS Georeferencer",
    "aligned.qgz": "all of it as a QGIS project",
    "displacement.qml": "the style of displacement.tif for QGIS",
    "report.json": "every figure, setting and checksum",
    "report.html": "before/after pictures and the verdict",
    "item.json": "a STAC Item that describes these files",
}
ASSESSMENTS = {
    "go": "The images lie on each other as they stand.",
    "review": "The images are off, or hard to judge. Look before you use them together.",
    "no-go": "The images do not lie on each other, or show no common ground.",
}


def print_result(console: Console, record: Report, folder: Path) -> None:
    """Verdict, reasons, figures, outputs and the path of the report."""
    words = verdict_words(record)
    verdict = record.verdict
    _print_verdict(console, verdict.decision, words.headline, words.advice, verdict.reasons)
    _print_figures(console, _result_figures(record))
    if verdict.decision == "no-go":
        _print_no_go(console, written="aligned.tif" in record.outputs)
    _print_notes(console, record.notes)
    _print_outputs(console, folder)


def print_assessment(console: Console, assessment: Assessment) -> None:
    """Verdict, reasons and the measured misalignment."""
    verdict: Verdict = assessment.verdict
    _print_verdict(console, verdict.decision, verdict.headline, ASSESSMENTS[verdict.decision], verdict.reasons)
    dx, dy = assessment.offset_px
    reliable = "" if verdict.decision != "no-go" else " (not reliable)"
    rows = [
        (f"misalignment, RMS{reliable}", _both(assessment.misalignment_rmse_px, assessment.misalignment_rmse_m)),
        (f"mean offset (dx, dy){reliable}", f"({dx:+.2f}, {dy:+.2f}) px"),
        ("error of this measurement", pixels(_finite(verdict.predicted_rmse_px))),
        ("chance that it is below 2 px", percent(verdict.probability)),
    ]
    _print_figures(console, rows)
    _print_notes(console, assessment.result.notes)


def print_plan(console: Console, steps: Mapping[str, Any]) -> None:
    """A dry run: every entry of the plan, nested ones indented."""
    console.print("Nothing was read beyond the headers, nothing was written.", style="dim")
    table = Table.grid(padding=(0, 3))
    for label, value in _flatten(steps):
        table.add_row(Text(label), Text(value))
    console.print(table)


def _result_figures(record: Report) -> list[tuple[str, str]]:
    figures, affine = record.figures, record.affine
    ce90 = f"   90 % within {length(figures.predicted_ce90)}" if figures.predicted_ce90.px is not None else ""
    shift = f"({_number(affine.shift_x.px, '+.2f')}, {_number(affine.shift_y.px, '+.2f')}) px"
    points = record.tie_points
    before = "misregistration before" if record.verdict.decision != "no-go" else "displacement found (not reliable)"
    return [
        (before, length(figures.misregistration_before)),
        ("predicted error after", length(figures.predicted_rmse) + ce90),
        ("shift (dx, dy)", shift + _ground(affine.shift_x, affine.shift_y)),
        ("rotation, scale", f"{_number(affine.rotation_deg, '+.3f')}°, {_number(affine.scale, '.5f')}"),
        ("local displacement, RMS", length(figures.local_rms)),
        *_axes(record),
        ("tie points", f"{points.inliers} of {points.total} agree"),
        ("chance that it is below 2 px", percent(record.verdict.probability)),
    ]


def _axes(record: Report) -> list[tuple[str, str]]:
    """Bias and standard deviation of the residuals, each along x and y."""
    bias, sigma = record.figures.bias, record.figures.sigma
    if bias is None or sigma is None or bias.x.px is None or sigma.x.px is None:
        return []
    texts = []
    for each, spec in ((bias, "+.2f"), (sigma, ".2f")):
        own = f"({_number(each.x.px, spec)}, {_number(each.y.px, spec)}) px"
        texts.append(own + _ground(each.x, each.y, spec.replace(".2f", ".1f")))
    return [("residual bias (x, y)", texts[0]), ("residual sigma (x, y)", texts[1])]


def _print_verdict(console: Console, decision: str, headline: str, advice: str, reasons: Iterable[str]) -> None:
    line = Text(one_line(headline), style="bold")
    line.stylize(STYLES[decision], 0, len(decision))
    console.print()
    console.print(line, soft_wrap=True)
    console.print(Text(advice))
    for reason in reasons:
        console.print(Text(f"  • {one_line(reason)}"))


def _print_figures(console: Console, rows: Iterable[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 3))
    for label, value in rows:
        table.add_row(Text(label), Text(value))
    console.print()
    console.print(table)


def _print_no_go(console: Console, *, written: bool) -> None:
    text = (
        "aligned.tif was written because of --force; do not measure in it."
        if written
        else "aligned.tif was not written. To write it all the same: --force (with --overwrite for this folder)."
    )
    console.print()
    console.print(Text(text, style="red"))


def _print_notes(console: Console, notes: Iterable[str]) -> None:
    lines = [one_line(note) for note in notes]
    if lines:
        console.print()
        console.print("decided for you", style="dim")
        for line in lines:
            console.print(Text(f"  {line}", style="dim"))


def _print_outputs(console: Console, folder: Path) -> None:
    console.print()
    console.print(Text(f"outputs in {one_line(str(folder.resolve()))}"), soft_wrap=True)
    table = Table.grid(padding=(0, 3))
    for name, about in FILES.items():
        path = folder / name
        if path.is_file():
            table.add_row(Text(f"  {name}"), Text(file_size(path.stat().st_size), justify="right"), Text(about))
    console.print(table)
    report = one_line(str((folder / "report.html").resolve()))
    console.print(Text.assemble("open ", (report, "bold")), soft_wrap=True)


def _ground(x: Length, y: Length, spec: str = "+.1f") -> str:
    return "" if x.m is None or y.m is None else f"   ({x.m:{spec}}, {y.m:{spec}}) m"


def _both(px: float, m: float | None) -> str:
    return pixels(px) + (f" ({metres(m)})" if m is not None else "")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def _flatten(steps: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in steps.items():
        label = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield label, ""
            yield from _flatten(value, prefix + "  ")
        elif isinstance(value, list | tuple):
            yield label, ", ".join(one_line(str(item)) for item in value)
        else:
            yield label, one_line(str(value))
