"""The parts of the error map, worst first: what "next worst place" steps through."""

from __future__ import annotations

from typing import Any

from somareg.io.compass import cell_words
from somareg.report.error_map import ErrorMapRecord
from somareg.report.words import length
from somareg.types import Grid


def worst_places(error_map: ErrorMapRecord | None, reference: Grid) -> list[dict[str, Any]]:
    """Every part whose error is known, in words, worst first; the first is the one that the headline tells of.

    Args:
        error_map: of the report; none without one.
        reference: grid, which tells whether up is north.
    """
    cells = [] if error_map is None else [cell for cell in error_map.cells if cell.error.px is not None]
    cells.sort(key=lambda cell: -(cell.error.px or 0.0))
    return [
        {
            "x": cell.x,
            "y": cell.y,
            "words": f"{cell_words(cell.column, cell.row, reference)}, expected error {length(cell.error)}",
        }
        for cell in cells
    ]
