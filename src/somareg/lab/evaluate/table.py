"""The table of an evaluation, from the JSON files of its methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from somareg.errors import InputError, ReadError
from somareg.lab.evaluate.metrics import THRESHOLDS
from somareg.lab.evaluate.peers import METHODS
from somareg.lab.evaluate.protocol import LEVELS

Row = list[str]

_ABSENT = "–"
COLUMNS: tuple[str, ...] = (
    *("set", "level", "method", "preset", "parameters", "n"),
    *(f"CMR@{k:g}" for k in THRESHOLDS),
    *("median px", "AUC", "CE90 px", "AUROC", "go", "false go", "s/pair", "MB"),
)
_WORDS = COLUMNS.index("parameters")  # columns of words stand before those of figures
_FILES = list(METHODS).index("ours-fast") - 0.5  # files of weights stand before the weights that ship


def load_results(out_dir: str | Path) -> list[dict[str, Any]]:
    """Summaries of all methods in a folder, each with its method's name, preset and parameters.

    Sets stand together, levels and methods in order; files of weights between the weight-free engine and ours.

    Raises:
        ReadError: no result in the folder.
        InputError: a JSON file is no result.
    """
    folder = Path(out_dir)
    summaries: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            method = {
                "method": content["method"],
                "preset": content.get("preset"),
                "parameters": content.get("parameters", 0),
            }
            summaries.extend({**method, **cell["summary"]} for cell in content["cells"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a result of an evaluation ({type(error).__name__}: {error})") from error
    if not summaries:
        raise ReadError(f"{folder} holds no result; run the evaluation first")
    known = {name: i for i, name in enumerate(METHODS)}
    level = {name: i for i, name in enumerate(LEVELS)}
    return sorted(
        summaries,
        key=lambda s: (s["set"], s["role"], level.get(s["level"], 99), known.get(s["method"], _FILES), s["method"]),
    )


def rows(summaries: Sequence[dict[str, Any]]) -> list[Row]:
    """One row of text per summary, in the order of `COLUMNS`; thresholds below a set's residual are left out."""
    return [_row(summary) for summary in summaries]


def _row(s: dict[str, Any]) -> Row:
    rates = [_percent(s["cmr"][f"{k:g}"]) if k >= s["quoted_from"] else _ABSENT for k in THRESHOLDS]
    return [
        *(_label(s), s["level"], s["method"], s["preset"] or _ABSENT, _count(s["parameters"]), str(s["n"])),
        *rates,
        *(_number(s["median_px"], 2), _number(s["auc"], 3), _number(s["ce90_px"], 2)),
        *(_number(s["auroc_2px" if s["quoted_from"] <= 2 else "auroc_3px"], 2, _ABSENT),),
        *(_percent(s["go"]), _percent(s["false_go"]) if s["go"] else _ABSENT, _number(s["seconds_median"], 2)),
        _number(s.get("peak_memory_mb"), 0, _ABSENT),
    ]


def _label(s: dict[str, Any]) -> str:
    return s["set"] if s["role"] == "test" else f"{s['set']} ({s['role']})"


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.0f}"


def _number(value: float | None, digits: int, missing: str = "∞") -> str:
    return missing if value is None or value == float("inf") else f"{value:.{digits}f}"


def _count(parameters: int) -> str:
    """A number of weights as in "522 k" or "1.31 M"; a dash for none."""
    if not parameters:
        return _ABSENT
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"


def legend(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences that a reader of the table needs."""
    sets = {_label(s): s for s in summaries}
    labels = "; ".join(
        f"{name}: {s['crop']} px crops, labels off by {s['residual']}, CMR quoted from {s['quoted_from']:g} px"
        for name, s in sets.items()
    )
    return [
        "CMR@k: percent of pairs whose dense RMSE over the valid overlap is below k native pixels. AUC: area under"
        " the CMR curve, 0-5 px. CE90: radius that 90 % of all check points of all pairs keep. A missing estimate"
        " counts as an infinite error.",
        "AUROC: the method's own confidence against success, an RMSE below 2 px (3 px where the labels allow no less)."
        " go: percent of pairs that got 'go'; false go: percent of those that are no success.",
        "parameters: numbers that were trained. s/pair: median, images in memory. MB: largest memory of the process"
        " until then, which methods measured in one run share.",
        f"Sets: {labels}; '{_ABSENT}' where nothing may be quoted or the method says nothing.",
    ]


def table(out_dir: str | Path) -> str:
    """Markdown: one row per method, set and level, and the legend below.

    Raises:
        ReadError, InputError: see `load_results`.
    """
    summaries = load_results(out_dir)
    lines = [COLUMNS, ["---"] * _WORDS + ["---:"] * (len(COLUMNS) - _WORDS), *rows(summaries)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return body + "\n\n" + "\n\n".join(legend(summaries)) + "\n"


def rich_table(out_dir: str | Path) -> Table:
    """The same for a terminal."""
    summaries = load_results(out_dir)
    made = Table(caption=" ".join(legend(summaries)), caption_justify="left")
    for i, column in enumerate(COLUMNS):
        made.add_column(column, justify="left" if i < _WORDS else "right", no_wrap=i < _WORDS)
    previous = None
    for summary, row in zip(summaries, rows(summaries), strict=True):
        place = (summary["set"], summary["role"], summary["level"])
        if previous not in (None, place):
            made.add_section()
        previous = place
        made.add_row(*row)
    return made
