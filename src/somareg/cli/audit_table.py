"""The terminal output at the end of an audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from somareg.cli.failures import one_line
from somareg.types.brief import count
from somareg.types.words import pixels

if TYPE_CHECKING:
    from somareg.batches.audit.findings import SceneRecord
    from somareg.batches.audit.result import AuditResult

MOST_ROWS = 40
_STYLES = {"fine": "green", "unsure": "yellow", "suspect": "yellow", "unmeasured": "yellow", "pending": "dim"}
_ORDER = ("failed", "off", "suspect", "unmeasured", "pending", "unsure", "fine")


def print_audit(console: Console, result: AuditResult) -> None:
    """A row per scene, what is worst first; the steps; counts; the paths of page and table."""
    scenes = sorted(result.scenes, key=_rank)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("pair" if result.mode == "pairs" else "scene", "finding", "offset (px)", "off by", "verdict", ""):
        table.add_column(title)
    for scene in scenes[:MOST_ROWS]:
        table.add_row(*_cells(scene))
    console.print(table)
    if len(scenes) > MOST_ROWS:
        console.print(f"… and {len(scenes) - MOST_ROWS} more", style="dim")
    console.print()
    for record in result.steps:
        step, unit = record.step, result.unit
        words = f"step of {step.size:.2f} {unit} ({step.jump[0]:+.2f}, {step.jump[1]:+.2f}; sigma {step.sigma:.2f})"
        changed = f": {', '.join(record.changes)}" if record.changes else ""
        where = f"between {record.last} and {record.first}, series {record.series}{changed}"
        console.print(Text(one_line(f"{words} {where}"), style="bold yellow"), soft_wrap=True)
    for note in result.notes:
        console.print(Text(one_line(note), style="dim"), soft_wrap=True)
    counts = [f"{number} {name}" for name, number in result.counts.items()]
    steps, outliers = count(len(result.steps), "step"), count(len(result.outliers), "outlier")
    number = count(len(scenes), "pair" if result.mode == "pairs" else "scene")
    console.print(Text(f"{number}: {', '.join([*counts, steps, outliers])}", style="bold"))
    page = one_line(str((result.folder / "audit.html").resolve()))
    console.print(Text(f"the course of all in {page}; figures in audit.csv beside it"), soft_wrap=True)


def _rank(scene: SceneRecord) -> tuple[int, bool, float]:
    return _ORDER.index(scene.finding), not scene.is_outlier, -(scene.offset.rms_px if scene.offset else 0.0)


def _cells(scene: SceneRecord) -> tuple[Text, ...]:
    offset = scene.offset
    finding = f"{scene.finding}, outlier" if scene.is_outlier else scene.finding
    return (
        Text(one_line(scene.name)),
        Text(finding, style=_STYLES.get(scene.finding, "bold red")),
        Text(f"{offset.dx_px:+.2f}, {offset.dy_px:+.2f} ± {offset.sigma_px:.2f}" if offset else ""),
        Text(pixels(offset.rms_px) if offset else ""),
        Text(scene.verdict or ""),
        Text(one_line(scene.error)),
    )
