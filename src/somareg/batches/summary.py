"""The result of a batch; its figures do not depend on where, when or in how many runs they were made."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from somareg.batches.manifest import Entry
from somareg.io.atomic import write_text
from somareg.report.names import PAGE
from somareg.report.plain import plain
from somareg.types.brief import brief, count

CSV_NAME, JSON_NAME = "summary.csv", "summary.json"
COLUMNS = (
    "name",
    "status",
    "verdict",
    "headline",
    "predicted_rmse_px",
    "predicted_rmse_m",
    "misregistration_px",
    "probability",
    "moving",
    "reference",
    "error_kind",
    "error",
    "report",
)
Worst = Literal["go", "review", "no-go", "failed"]
_BAD: tuple[Worst, ...] = ("go", "review", "no-go", "failed")


@dataclass(frozen=True)
class BatchResult:
    """What `batch` returns.

    Attributes:
        folder: of the outputs, with one folder per pair.
        entries: one per pair, in the order of the list.
        redone: names of the pairs done in this run; the others come from earlier runs.
        unmatched: images of two folders without a partner.
    """

    folder: Path
    entries: tuple[Entry, ...]
    redone: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        unmatched = f"{count(len(self.unmatched), 'image')} without a partner" if self.unmatched else ""
        return brief(f"BatchResult {count(len(self.entries), 'pair')}:", verdicts or "none", unmatched)

    @property
    def counts(self) -> dict[str, int]:
        """Number of pairs by verdict, and of "failed" and "pending" ones, without zeros."""
        states = Counter[str](entry.state for entry in self.entries)
        return {name: states[name] for name in (*_BAD, "pending") if states[name]}

    @property
    def worst(self) -> Worst:
        """The worst state; failed and pending pairs are worse than any verdict."""
        counts = self.counts
        if counts.get("pending"):
            return "failed"
        return max((name for name in _BAD if name in counts), key=_BAD.index)

    def rows(self) -> list[dict[str, Any]]:
        """One mapping of `COLUMNS` per pair, JSON-ready; `report` is the page below the folder, None without one."""
        own = COLUMNS[:-1]
        return [
            {**{column: plain(getattr(entry, column)) for column in own}, "report": self._page(entry)}
            for entry in self.entries
        ]

    def without_page(self) -> list[str]:
        """Names of the done pairs without a page."""
        return [entry.name for entry in self.entries if entry.status == "done" and self._page(entry) is None]

    def _page(self, entry: Entry) -> str | None:
        page = f"{entry.name}/{PAGE}"
        return page if entry.status == "done" and (self.folder / page).is_file() else None

    def document(self) -> Mapping[str, Any]:
        """The content of `summary.json`."""
        return {"worst": self.worst, "counts": self.counts, "pairs": self.rows(), "unmatched": list(self.unmatched)}

    def save(self) -> None:
        """Write `summary.csv` and `summary.json` into the folder."""
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        write_text(self.folder / CSV_NAME, table.getvalue(), overwrite=True)
        text = json.dumps(plain(self.document()), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        write_text(self.folder / JSON_NAME, text, overwrite=True)
