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
from somareg.lab.evaluate.protocol import LEVELS, WARP_LENGTHS_PX, WARPED, WHOLE

Row = list[str]

_ABSENT = "–"
COLUMNS: tuple[str, ...] = (
    *("set", "level", "method", "preset", "parameters", "n"),
    *(f"CMR@{k:g}" for k in THRESHOLDS),
    *("median px", "AUC", "CE90 px", *(f"left@{length:g}" for length in WARP_LENGTHS_PX)),
    *("AUROC", "go", "false go", "s/pair", "MB"),
)
_WORDS = COLUMNS.index("parameters")  # columns with text come before those with figures
_FILES = list(METHODS).index("ours-fast") - 0.5  # files of weights come before the shipped weights


def load_results(out_dir: str | Path) -> list[dict[str, Any]]:
    """Summaries of all methods in a folder, each with its method's name, preset and parameters.

    Grouped by set, with levels and methods in order and modalities of whole pairs after their total; methods from a
    file or function come between the weight-free engine and ours.

    Raises:
        ReadError: no result in the folder.
        InputError: a JSON file is no result.
    """
    summaries = read_folder(out_dir)
    if not summaries:
        raise ReadError(f"{out_dir} holds no result; run the evaluation first")
    known = {name: i for i, name in enumerate(METHODS)}
    level = {name: i for i, name in enumerate((*LEVELS, WHOLE))}

    def order(s: dict[str, Any]) -> tuple[Any, ...]:
        place = s["set"], s["role"], level.get(s["level"], 99), s.get("part", "")
        return (*place, known.get(s["method"], _FILES), s["method"])

    return sorted(summaries, key=order)


def read_folder(folder: str | Path) -> list[dict[str, Any]]:
    """The same in the order of the files; none in a folder without results.

    Raises:
        InputError: a JSON file is no result.
    """
    summaries: list[dict[str, Any]] = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            method = {
                "method": content["method"],
                "preset": content.get("preset"),
                "parameters": content.get("parameters", 0),
            }
            for cell in content["cells"]:
                summaries.extend({**method, **each} for each in (cell["summary"], *cell.get("parts", ())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is not a result of an evaluation ({type(error).__name__}: {error}); give another folder"
            ) from error
    return summaries


def rows(summaries: Sequence[dict[str, Any]]) -> list[Row]:
    """One row of text per summary, in the order of `COLUMNS`; thresholds below a set's residual are left out."""
    return [_row(summary) for summary in summaries]


def _row(s: dict[str, Any]) -> Row:
    return [
        *(_label(s), s["level"], s["method"], s["preset"] or _ABSENT, _count(s["parameters"]), str(s["n"])),
        *_errors(s),
        *(_percent(s["go"]), _percent(s["false_go"]) if s["go"] else _ABSENT, _number(s["seconds_median"], 2)),
        _number(s.get("peak_memory_mb"), 0, _ABSENT),
    ]


def _errors(s: dict[str, Any]) -> Row:
    """The figures that need a truth, from CMR to AUROC."""
    floor = s["quoted_from"]
    if floor is None:
        return [_ABSENT] * (COLUMNS.index("go") - COLUMNS.index("n") - 1)
    return [
        *(_percent(s["cmr"][f"{k:g}"]) if k >= floor else _ABSENT for k in THRESHOLDS),
        *(_number(s["median_px"], 2), _number(s["auc"], 3), _number(s["ce90_px"], 2)),
        *_left(s),
        _number(s["auroc_2px" if floor <= 2 else "auroc_3px"], 2, _ABSENT),
    ]


def _left(s: dict[str, Any]) -> Row:
    """Remaining percentage of the warp for each correlation length, if the labels are more accurate than the warp."""
    left = s.get("left")
    if left is None or LEVELS[s["level"]].warp_px < s["quoted_from"]:
        return [_ABSENT] * len(WARP_LENGTHS_PX)
    keys = [f"{length:g}" for length in WARP_LENGTHS_PX]
    return [("∞" if left[key] is None else _percent(left[key])) if key in left else _ABSENT for key in keys]


def _label(s: dict[str, Any]) -> str:
    name = f"{s['set']}, {s['part']}" if s.get("part") else s["set"]
    return name if s["role"] == "test" else f"{name} ({s['role']})"


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.0f}"


def _number(value: float | None, digits: int, missing: str = "∞") -> str:
    return missing if value is None or value == float("inf") else f"{value:.{digits}f}"


def _count(parameters: int) -> str:
    """Format a number of weights: "522 k" or "1.31 M"; a dash without any."""
    if not parameters:
        return _ABSENT
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"


def legend(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Explanations below the table."""
    sets = {_label(s): s for s in summaries}
    labels = "; ".join(f"{name}: {_what(s)}" for name, s in sets.items() if not s.get("part"))
    return [
        "CMR@k: percent of pairs whose dense RMSE over the valid overlap is below k native pixels. AUC: area under"
        " the CMR curve, 0-5 px. CE90: radius that 90 % of all check points of all pairs keep. A missing estimate"
        " counts as an infinite error.",
        "AUROC: the method's own confidence against success, an RMSE below 2 px (3 px where the labels allow no less)."
        " go: percent of pairs that got 'go'; false go: percent of those that are no success.",
        f"left@L: level {WARPED}, median RMSE as percent of the RMS of the warp, at L px correlation length; an exact"
        " affine without local displacement leaves 100. Quoted where the warp is no smaller than the labels' error.",
        "parameters: numbers that were trained. s/pair: median, images in memory. MB: largest memory of the process"
        " until then, which methods measured in one run share.",
        f"Sets: {labels}; '{_ABSENT}' where nothing may be quoted or the method says nothing.",
    ]


def _what(s: dict[str, Any]) -> str:
    pixels = f"{s['crop']} px crops" if s["crop"] else "whole pairs, each modality quoted from its own labels' error"
    if s["quoted_from"] is None:
        return f"{pixels}, labels off by {s['residual']}, verdicts only"
    return f"{pixels}, labels off by {s['residual']}, CMR quoted from {s['quoted_from']:g} px"


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
    """The table for a terminal."""
    summaries = load_results(out_dir)
    result = Table(caption=" ".join(legend(summaries)), caption_justify="left")
    for i, column in enumerate(COLUMNS):
        result.add_column(column, justify="left" if i < _WORDS else "right", no_wrap=i < _WORDS)
    previous = None
    for summary, row in zip(summaries, rows(summaries), strict=True):
        place = (summary["set"], summary["role"], summary["level"], summary.get("part"))
        if previous not in (None, place):
            result.add_section()
        previous = place
        result.add_row(*row)
    return result
