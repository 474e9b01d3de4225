"""Curves of a run as one picture, from its tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from somareg.io.atomic import atomic_path
from somareg.lab.train.logs import TABLES

Columns = Mapping[str, Sequence[float]]

# (title, table, columns, logarithmic); a column that a run does not have is left out
_PANELS: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
    ("losses", TABLES[0], ("loss", "window", "matching", "nll", "affine", "flow", "reconstruction"), True),
    ("error in training, px", TABLES[0], ("px_coarse", "px_1_8", "px_1_4", "px_1_2"), True),
    ("validation, share", TABLES[1], ("cmr_1", "cmr_3", "windows"), False),
    ("validation by level, CMR at 3 px", TABLES[1], (), False),
    ("pairs per second", TABLES[0], ("pairs_per_second",), False),
    ("learning rate", TABLES[0], ("lr",), True),
)


def draw_curves(folder: str | Path, out: str | Path) -> Path | None:
    """Draw the tables of a run over its minutes; None when they are still empty.

    Args:
        folder: of the run, with `train.csv` and maybe `validation.csv`.
        out: PNG to write or replace.

    Raises:
        OutputError: the picture cannot be written.
    """
    tables = {name: _columns(Path(folder) / name) for name in TABLES}
    if not tables[TABLES[0]].get("minutes"):
        return None
    figure = Figure(figsize=(11, 9), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, table, names, logarithmic) in zip(figure.subplots(3, 2).flat, _PANELS, strict=True):
        rows = tables[table]
        for name in names or sorted(key for key in rows if key.endswith("/cmr_3")):
            points = [(x, y) for x, y in zip(rows.get("minutes", ()), rows.get(name, ()), strict=False) if y == y]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "", label=name, linewidth=1.2)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("minutes")
        if logarithmic:
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    final = Path(out)
    with atomic_path(final, overwrite=True) as part:
        figure.savefig(part, format="png")
    return final


def _columns(path: Path) -> Columns:
    """The numbers of a table by column; NaN where a row has none."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [_number(row.get(name)) for row in rows] for name in (rows[0] if rows else ())}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
