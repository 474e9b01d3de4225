"""The page of an ablation: tables and significant differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from somareg.errors import InputError, ReadError
from somareg.io.atomic import write_text
from somareg.io.folders import make_folder
from somareg.lab.evaluate.ablation_compare import CLEAR, LOST_PX, TIE_PX, Comparison, compare, standard_error
from somareg.lab.evaluate.ablation_config import ANOTHER_SEED, FULL, PUBLISHED
from somareg.lab.evaluate.ablation_rows import Errors, Measured, Row, Training, numbers
from somareg.lab.evaluate.metrics import cmr

LABELS = {
    FULL: "full",
    ANOTHER_SEED: "full, another seed",
    "fge-attention_glam-full": "FGE: attention only",
    "fge-filters_glam-full": "FGE: filters only",
    "fge-off_glam-full": "FGE: off",
    "fge-full_glam-affine": "GLAM: affine only",
    "fge-full_glam-flow": "GLAM: flow only",
    "orientation-off": "no orientation channels",
    "orientation-off_fge-off": "neither orientation channels nor FGE",
    PUBLISHED: "published configuration, small",
    "weight-free": "weight-free engine",
    "identity": "identity",
}
ALSO_COMPARED = (("orientation-off_fge-off", "orientation-off"),)  # the effect of FGE without orientation channels
BEGIN = "<!-- written by python -m somareg.lab.evaluate.ablate: what is changed here is lost -->"
END = "<!-- end of what the command writes -->"

THRESHOLDS = (1.0, 2.0, 3.0, 5.0)

_ABSENT = "–"
_LEGEND = (
    "@k: percent of the samples with an RMSE over the overlap below k px. Better : worse: samples on which the row is "
    f"better and worse than the full row by more than {TIE_PX:g} px (errors beyond {LOST_PX:g} px count as {LOST_PX:g}"
    f"); z: in standard errors, bold beyond {CLEAR:g}."
)
Part = Callable[[Measured], Errors]
PARTS: dict[str, Part] = {
    "The network alone": lambda measured: measured.network,
    "The network from the identity": lambda measured: measured.stages,
    "Registration": lambda measured: measured.registration,
}


@dataclass(frozen=True)
class Setting:
    """Facts about the call on the page.

    Attributes:
        minutes: of training per row.
        command: of the call.
    """

    minutes: float
    command: str


# --- the page ---------------------------------------------------------------------------------------------------------


def update_page(page: Path | None, rows: Sequence[Row], setting: Setting) -> str:
    """Write the tables between the marks of a page; the rest of the page is kept.

    Args:
        page: created when missing; None writes nothing.
        rows: at least one.
        setting: of the call.

    Returns:
        The text between the marks.

    Raises:
        InputError: the page has no marks, or not one of each in order.
        ReadError, OutputError: it cannot be read or written.
    """
    text = written(rows, setting)
    if page is not None:
        before, after = around(page)
        make_folder(page.parent)
        write_text(page, f"{before}{BEGIN}\n\n{text}\n{END}{after}", overwrite=True)
    return text


def around(page: Path) -> tuple[str, str]:
    """The text before and after the marks of a page; a heading for a new page.

    Raises:
        InputError, ReadError: see `update_page`.
    """
    if not page.exists():
        return "# Ablations\n\n", "\n"
    try:
        old = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{page} cannot be read ({error}); give another --page") from error
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page} does not say where the table goes; put '{BEGIN}' and '{END}' there, a line each")
    return before, after


def written(rows: Sequence[Row], setting: Setting) -> str:
    """Command, circumstances, tables and clear differences as Markdown."""
    parts = [
        f"```console\n$ {setting.command}\n```",
        _circumstances(rows, setting),
        _LEGEND,
        *(text for title, part in PARTS.items() for text in (f"## {title}", _errors_table(rows, part))),
        "## Differences that are clear",
        _differences(rows),
        "## Likeness of features",
        _similarity_table([row for row in rows if row.measured.similarity]),
        "## Training",
        _training_table([(row, row.training) for row in rows if row.training]),
    ]
    return "\n\n".join(parts) + "\n"


def _circumstances(rows: Sequence[Row], setting: Setting) -> str:
    errors_of = rows[0].measured.registration
    samples = ", ".join(f"{len(errors)} of {name}" for name, errors in errors_of.items())
    fewest = min(map(len, errors_of.values()))
    half, tenth = (100 * standard_error(share, fewest) for share in (0.5, 0.1))
    trained = next((row.training for row in rows if row.training), None)
    return "\n".join(
        [
            *([_training_line(trained, setting)] if trained else []),
            f"Samples: {samples}. At n = {fewest} the standard error of a share is {half:.0f} points at 50 %, and "
            f"{tenth:.0f} at 10 % and 90 %.",
        ]
    )


def _training_line(training: Training, setting: Setting) -> str:
    sets = ", ".join(f"{name} ({count} pairs)" for name, count in training.drawn_from.items())
    synthetic = training.synthetic_share
    data = " and ".join([*([sets] if sets else []), *([f"{synthetic:.0%} synthetic"] if synthetic else [])])
    return (
        f"{setting.minutes:g} minutes of training per row on {training.device}, from {data}; seed {training.seed}, "
        f"somareg {training.version}."
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines))


def _label(row: Row) -> str:
    return LABELS.get(row.name, row.name)


def _errors_table(rows: Sequence[Row], part: Part) -> str:
    """CMR in percent and the median per set and level, and the comparison with the full row."""
    rows_with = [row for row in rows if part(row.measured)]
    names = list(part(rows_with[0].measured)) if rows_with else []
    one_set = len({name.rpartition(" ")[0] for name in names}) == 1
    titles = [name.rpartition(" ")[2] if one_set else name for name in names]
    heads = [f"{title} {what}" for title in titles for what in (*(f"@{k:g}" for k in THRESHOLDS), "median px")]
    full = _full(rows)
    lines = (
        [
            _label(row),
            *(cell for name in names for cell in _figures(row.measured, part, name)),
            _verdict(row, full, part),
        ]
        for row in rows_with
    )
    return _table(["row", *heads, "better : worse (z)"], lines)


def _figures(measured: Measured, part: Part, name: str) -> list[str]:
    errors, quoted_from = numbers(part(measured)[name]), measured.quoted_from[name]
    shares = [f"{100 * cmr(errors, k):.0f}" if k >= quoted_from else _ABSENT for k in THRESHOLDS]
    median = float(np.median(errors))
    return [*shares, f"{median:.2f}" if math.isfinite(median) else "∞"]


def _full(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.name == FULL), None)


def _verdict(row: Row, full: Row | None, part: Part) -> str:
    if full is None or row is full:
        return _ABSENT
    comparison = _compared(row, full, part)
    text = f"{comparison.better} : {comparison.worse} ({comparison.z or 0.0:+.1f})"  # no "-0.0"
    return f"**{text}**" if comparison.is_clear else text


def _compared(row: Row, full: Row, part: Part) -> Comparison:
    """Compare two rows over all sets and levels together."""
    mine, its = part(row.measured), part(full.measured)
    return compare(*(np.concatenate([numbers(errors[name]) for name in its]) for errors in (mine, its)))


def _differences(rows: Sequence[Row]) -> str:
    """Rows that are clearly better or worse than the full one, one line per part."""
    full = _full(rows)
    if full is None:
        return "There is no full row to compare with."
    lines = []
    for title, part in PARTS.items():
        others = [row for row in rows if row is not full and part(row.measured)]
        clear = {_label(row): comparison for row in others if (comparison := _compared(row, full, part)).is_clear}
        for word, sign in (("better", 1), ("worse", -1)):
            names = [label for label, comparison in clear.items() if comparison.z * sign > 0]
            phrase = f"{word} than the full row by more than {CLEAR:g} standard errors"
            lines.append(f"- {title}, {phrase}: {_listed(names)}")
        if LABELS[ANOTHER_SEED] in clear:
            lines.append(f"- {title}: another seed alone makes a clear difference, so these may be chance in training.")
    return "\n".join([*lines, *_other_differences({row.name: row for row in rows})])


def _other_differences(rows: dict[str, Row]) -> list[str]:
    """Comparisons of rows that differ from each other by one setting, but from the full row by more."""
    return [
        f"- {title}, {_label(rows[less])} against {_label(rows[more])}, better : worse (z): "
        f"{_verdict(rows[less], rows[more], part)}."
        for less, more in ALSO_COMPARED
        if less in rows and more in rows
        for title, part in PARTS.items()
    ]


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names) + "." if names else "none."


def _similarity_table(rows: Sequence[Row]) -> str:
    """Mean cosine of features of the same ground / of other ground."""
    # A network without FGE has no features before and after it.
    names = list(dict.fromkeys(each.name for row in rows for each in row.measured.similarity))
    lines = []
    for row in rows:
        each_of = {each.name: each for each in row.measured.similarity if each.points}
        cells = [
            f"{each_of[n].corresponding:.2f} / {each_of[n].control:.2f}" if n in each_of else _ABSENT for n in names
        ]
        lines.append([_label(row), *cells])
    return _table(["row", *names], lines)


def _training_table(rows: Sequence[tuple[Row, Training]]) -> str:
    heads = ("row", "parameters", "crop px", "batch", "seed", "minutes", "steps", "skipped", "pairs", "pairs/s")
    lines = (
        [
            _label(row),
            *(
                f"{run.parameters:,}",
                str(run.crop),
                str(run.batch),
                str(run.seed),
                f"{run.minutes:.2f}",
            ),
            *(f"{run.steps:,}", str(run.skipped), f"{run.pairs:,}", f"{run.pairs_per_second:.1f}"),
        ]
        for row, run in rows
    )
    return _table(heads, lines)
