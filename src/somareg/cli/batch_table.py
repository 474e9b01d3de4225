"""The terminal output at the end of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from somareg.cli.failures import one_line
from somareg.cli.summary import STYLES
from somareg.types import Verdict
from somareg.types.brief import count
from somareg.types.words import pixels

if TYPE_CHECKING:
    from somareg.batches.manifest import Entry
    from somareg.batches.summary import BatchResult

MOST_ROWS = 40
_STYLES = {**STYLES, "failed": "bold red", "pending": "dim"}
_ORDER = ("failed", "no-go", "review", "pending", "go")


def print_batch(console: Console, result: BatchResult) -> None:
    """A row per pair, failures and no-go first; counts; the path of the table with all figures."""
    entries = sorted(result.entries, key=lambda entry: _ORDER.index(entry.state))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("pair", "verdict", "off before", "seconds", ""):
        table.add_column(title)
    for entry in entries[:MOST_ROWS]:
        table.add_row(*_cells(entry))
    console.print(table)
    if len(entries) > MOST_ROWS:
        console.print(f"… and {len(entries) - MOST_ROWS} more", style="dim")
    console.print()
    words = [f"{number} {name}" for name, number in result.counts.items()]
    before = len(result.entries) - len(result.redone)
    kept = f" ({before} done before)" if before else ""
    console.print(Text(f"{len(result.entries)} pairs: {', '.join(words)}{kept}", style="bold"))
    if result.unmatched:
        console.print(Text(f"{len(result.unmatched)} images have no partner of the same name", style="yellow"))
    bare = result.without_page()
    if bare:
        console.print(f"no report.html for {count(len(bare), 'pair')}; the same command with --reports all makes it")
    console.print(Text(f"all figures in {one_line(str((result.folder / 'summary.csv').resolve()))}"), soft_wrap=True)


def print_planned(console: Console, entries: Iterable[Entry]) -> None:
    """What a dry run prints: each pair and whether it is done already."""
    console.print("Nothing was written.", style="dim")
    table = Table.grid(padding=(0, 3))
    for entry in entries:
        state = "done before" if entry.status == "done" else "to do"
        table.add_row(Text(one_line(entry.name)), Text(state), Text(one_line(f"{entry.moving} on {entry.reference}")))
    console.print(table)


def _cells(entry: Entry) -> tuple[Text, ...]:
    return (
        Text(one_line(entry.name)),
        _verdict(entry),
        Text("" if entry.misregistration_px is None else pixels(entry.misregistration_px)),
        Text("" if entry.seconds is None else f"{entry.seconds:.1f}"),
        Text(one_line(entry.error or "")),
    )


def _verdict(entry: Entry) -> Text:
    """The headline of a finished pair, without the worst place to keep the row short; the state of any other pair."""
    line: str = entry.state
    if entry.verdict is not None:
        probability, px, m = (
            math.nan if value is None else value
            for value in (entry.probability, entry.predicted_rmse_px, entry.predicted_rmse_m)
        )
        line = Verdict(entry.verdict, (), probability, px, m).headline
    words = Text(one_line(line))
    words.stylize(_STYLES[entry.state], 0, len(entry.state))
    return words
