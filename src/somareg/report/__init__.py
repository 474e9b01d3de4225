"""The report of a result: report.html (one file, for people) and report.json (versioned, for programs)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from somareg.errors import OutputError
from somareg.report.html import render_report
from somareg.report.names import ALIGNED, OUTPUTS, OWNED, PAGE, check_reports, has_page
from somareg.report.record import Report, build_record, load_report
from somareg.types import Result

__all__ = [
    "ALIGNED",
    "OUTPUTS",
    "OWNED",
    "PAGE",
    "Report",
    "build_record",
    "check_reports",
    "has_page",
    "load_report",
    "render_report",
    "write_report",
]


def write_report(
    result: Result,
    folder: Path,
    outputs: Mapping[str, Path],
    *,
    final: Path | None = None,
    page: Result | None = None,
    with_page: bool = True,
) -> None:
    """Write `report.json`, and `report.html` if wanted, into a private folder.

    Args:
        result: from `register`.
        folder: an existing private folder; the caller renames it, so these writes need not be atomic.
        outputs: name -> file, for every other file of the result, listed with size and hash.
        final: final path of the folder, to which paths of the inputs are relative.
        page: result for the page, when it shows fewer tie points.
        with_page: whether to write the page.

    Raises:
        OutputError: a report cannot be written (read-only, disk full).
        ReadError: an output cannot be read to hash it.
    """
    record = build_record(result, outputs, folder=final)
    texts = {"report.json": record.to_json()}
    if with_page:
        texts[PAGE] = render_report(page or result, record)
    for name, text in texts.items():
        try:
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {folder / name}: {error.strerror or error}; free space or choose another folder."
            ) from error
