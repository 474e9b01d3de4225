"""Where an estimate is off: cells, the radius of 90 %, and the worst of them in words."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from somareg.quality.places import Places, middles, worst_cell, worst_place
from somareg.types import Grid

AREA = (100.0, 40.0, 600.0, 300.0)
UTM = "EPSG:32633"
NORTH_UP = Grid(900, 500, (10.0, 0.0, 5e5, 0.0, -10.0, 5e6), UTM)
PLAIN = Grid(900, 500)


def even(error_px: float = 1.0) -> Places:
    points = middles(AREA, 48)
    return Places(points, np.ones(len(points), bool), np.full(len(points), error_px), AREA)


def bad(where: str, error_px: float, places: Places) -> Places:
    """Another error in a quarter: "nw", "se" ..."""
    x, y = ((places.points - AREA[:2]) / AREA[2:]).T
    inside = ((y < 0.3) if "n" in where else (y > 0.7)) & ((x < 0.3) if "w" in where else (x > 0.7))
    return replace(places, error_px=np.where(inside, error_px, places.error_px))


def test_thirty_six_cells_know_their_place_their_error_and_their_metres() -> None:
    cells = bad("se", 3.0, even()).cells(NORTH_UP)
    assert [(cell.column, cell.row) for cell in cells] == [(n % 6, n // 6) for n in range(36)]
    assert (cells[0].x, cells[0].y) == pytest.approx((149.5, 64.5), abs=1e-6)
    assert cells[0].error_px == pytest.approx(1.0) and cells[35].error_px == pytest.approx(3.0)
    assert cells[35].error_m == pytest.approx(30.0, rel=0.01)
    assert cells[35].seen == 1
    assert all(cell.error_m is None for cell in even().cells(PLAIN))
    worst = worst_cell(cells)
    assert worst is not None and (worst.column, worst.row) in {(4, 4), (5, 5), (4, 5), (5, 4)}


def test_cells_that_one_image_does_not_show_are_no_cells_and_those_without_matches_are_not_seen() -> None:
    places = bad("nw", math.nan, even())
    places = replace(places, shown=places.points[:, 0] > AREA[0] + AREA[2] / 2)
    cells = places.cells(NORTH_UP)
    assert len(cells) == 18 and {cell.column for cell in cells} == {3, 4, 5}
    cells = bad("ne", math.nan, places).cells(NORTH_UP)
    unseen = [cell for cell in cells if not cell.is_seen]
    assert {(cell.column, cell.row) for cell in unseen} == {(4, 0), (5, 0), (4, 1), (5, 1)}
    assert 0 < bad("ne", math.nan, places).unseen_share < 0.3
    assert places.unseen_share == 0


@pytest.mark.parametrize(
    ("where", "named"),
    [("nw", "the north-west corner"), ("se", "the south-east corner"), ("ne", "the north-east corner")],
)
def test_the_worst_place_is_named_with_its_size(where: str, named: str) -> None:
    cells = bad(where, 3.0, even()).cells(NORTH_UP)
    assert worst_place(cells, NORTH_UP) == f"At worst, {named} is off by about 3.0 px (30 m); all 36 cells were seen."


def test_what_was_not_seen_is_counted_and_placed() -> None:
    cells = bad("sw", math.nan, bad("ne", 12.4, even())).cells(NORTH_UP)
    told = worst_place(cells, NORTH_UP)
    assert told.startswith("At worst, the north-east corner is off by about 12 px (124 m); ")
    unseen = sum(not cell.is_seen for cell in cells)
    assert unseen and f"{unseen} of 36 cells, in the south-west corner, w" in told


def test_no_place_stands_out_and_none_was_seen() -> None:
    assert worst_place(even().cells(PLAIN), PLAIN).startswith(
        "All parts that were seen are off by about as much: 1.0 px;"
    )
    assert worst_place(even(math.nan).cells(PLAIN), PLAIN).startswith("No part of the images has enough matches")
    assert worst_place((), PLAIN).startswith("No part of the images has enough matches")


def test_without_north_up_places_are_those_of_the_screen() -> None:
    cells = bad("nw", 3.0, even()).cells(PLAIN)
    assert "the top-left corner is off by about 3.0 px;" in worst_place(cells, PLAIN)
