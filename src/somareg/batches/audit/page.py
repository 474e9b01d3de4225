"""`audit.html`: one self-contained page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from somareg.batches.audit.findings import ALL, SceneRecord, Unit
from somareg.batches.audit.plot import drawings, series_colours
from somareg.batches.audit.result import CSV_NAME, JSON_NAME, AuditResult
from somareg.report.html import asset, content_policy, page_environment
from somareg.report.plain import text
from somareg.runtime.version import __version__
from somareg.types.brief import name_of
from somareg.types.words import metres, percent, pixels

MOST_ROWS = 2000
"""Most scenes in the table of the page; `audit.csv` has all."""

_TITLES = {
    "reference": "Scenes against one reference",
    "consecutive": "Each date against the one before it",
    "pairs": "Pairs that are said to be aligned",
}
_ORDER = ("failed", "off", "suspect", "unmeasured", "pending", "unsure", "fine")


def render_page(result: AuditResult) -> str:
    """Render the page as one string of HTML that makes no requests; its content policy forbids them."""
    package = "somareg.batches.audit"
    style = asset("base.css") + files(package).joinpath("templates", "audit.css").read_text(encoding="utf-8")
    colours = series_colours(result)
    rows = _ranked(result)
    page: str = (
        page_environment(package)
        .get_template("audit.html.j2")
        .render(
            policy=content_policy(style, ""),
            style=Markup(style),  # noqa: S704, our own file, byte for byte as the policy has its hash
            version=__version__,
            title=_TITLES[result.mode],
            result=result,
            summary=summary(result),
            drawings=drawings(result),
            series=[(one, colours.get(one.name, "")) for one in result.series],
            steps=[(one, _length(one.step.size, result.unit)) for one in result.steps],
            rows=[_row(scene, colours) for scene in rows[:MOST_ROWS]],
            hidden=max(0, len(rows) - MOST_ROWS),
            signed=lambda value: _signed(value, result.unit),
            length=lambda value: _length(value, result.unit),
            all_name=ALL,
            files=(CSV_NAME, JSON_NAME),
        )
    )
    return text(page)


def summary(result: AuditResult) -> str:
    """Summarise an audit in a sentence or two."""
    thing = "pairs" if result.mode == "pairs" else "scenes"
    parts = [f"{number} {name}" for name, number in result.counts.items()]
    line = f"{len(result.scenes)} {thing}: {', '.join(parts)}."
    steps = [one for one in result.steps if one.series == ALL]
    if steps:
        largest = max(steps, key=lambda one: one.step.size)
        many = "One step" if len(steps) == 1 else f"{len(steps)} steps, the largest"
        line += f" {many} of {_length(largest.step.size, result.unit)} at {name_of(largest.first)}."
    if result.outliers:
        line += f" {len(result.outliers)} outlier{'s' if len(result.outliers) > 1 else ''}."
    return line


def _ranked(result: AuditResult) -> Sequence[SceneRecord]:
    """Scenes in the order of time; pairs with the largest offsets first."""
    if result.mode != "pairs":
        return result.scenes

    def rank(scene: SceneRecord) -> tuple[int, float]:
        return _ORDER.index(scene.finding), -(scene.offset.rms_px if scene.offset else 0.0)

    return sorted(result.scenes, key=rank)


def _row(scene: SceneRecord, colours: dict[str, int]) -> dict[str, Any]:
    offset = scene.offset
    return {
        "scene": scene,
        "colour": colours.get(scene.series, ""),
        "date": scene.facts.date.strftime("%Y-%m-%d") if scene.facts.date else "",
        "moving": name_of(scene.moving),
        "reference": name_of(scene.reference),
        "px": f"{_plain(offset.dx_px)}, {_plain(offset.dy_px)} ± {offset.sigma_px:.2f}" if offset else "–",
        "m": f"{_plain(offset.dx_m)}, {_plain(offset.dy_m or 0.0)} ± {offset.sigma_m or 0.0:.2f}"
        if offset and offset.dx_m is not None
        else "",
        "rms": pixels(offset.rms_px) if offset else "–",
        "turn": f"{_plain(offset.rotation_deg)}°, {offset.scale:.4f}" if offset else "",
        "z": "" if scene.z is None else f"{scene.z:.1f}",
        "chance": percent(scene.probability),
    }


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _signed(value: float, unit: Unit) -> str:
    return f"{value:+.2f} {unit}".replace("-", "\N{MINUS SIGN}")


def _length(value: float, unit: Unit) -> str:
    return (metres(value) if unit == "m" else pixels(value)) if math.isfinite(value) else "–"
