"""Next worst place: the parts of the error map, worst first, named as the report names them."""

from __future__ import annotations

from typing import Any

from somareg.report.record import load_report
from somareg.report.words import length
from somareg.types import Grid
from somareg.view import Scene
from somareg.view.worst import worst_places

from .conftest import Asked, Made


def test_places_come_in_the_order_of_the_error_map(opened: Scene, ask: Asked, georeferenced: Made) -> None:
    answer: Any = ask("scene.json")
    told = answer.json()["worst"]
    cells = [cell for cell in georeferenced.result.quality.cells if cell.is_seen]
    assert len(told) == len(cells) > 10
    expected = sorted(cells, key=lambda cell: -cell.error_px)
    assert [(one["x"], one["y"]) for one in told] == [(cell.x, cell.y) for cell in expected]
    record = load_report(georeferenced.folder / "report.json").error_map
    assert record is not None
    # The first is the one that the headline tells of, with both units.
    assert told[0]["words"].endswith(f"expected error {length(record.worst)}") and " m)" in told[0]["words"]
    where = told[0]["words"].partition(",")[0]
    if "At worst" in georeferenced.result.quality.worst_place:
        assert where in georeferenced.result.quality.worst_place


def test_parts_that_were_not_seen_are_none_of_them(georeferenced: Made) -> None:
    record = load_report(georeferenced.folder / "report.json").error_map
    assert record is not None
    unseen = record.cells[3].model_copy(update={"error": record.cells[3].error.model_copy(update={"px": None})})
    changed = record.model_copy(update={"cells": [*record.cells[:3], unseen, *record.cells[4:]]})
    grid = Grid(300, 300)
    assert len(worst_places(changed, grid)) == len(worst_places(record, grid)) - 1
    assert all("north" not in one["words"] for one in worst_places(record, grid))  # nothing tells where north is
    assert worst_places(None, grid) == []
