"""The places that a person should look at first."""

from __future__ import annotations

import math

import numpy as np
import pytest

from somareg.quality import worst_places
from somareg.types import Cell, FloatArray, Grid, TiePoints

AREA = (0.0, 0.0, 600.0, 600.0)
GRID = Grid(600, 600)


def cells(errors: dict[tuple[int, int], float]) -> tuple[Cell, ...]:
    return tuple(
        Cell(column, row, 100.0 * column + 50, 100.0 * row + 50, 1.0, errors.get((column, row), 0.5))
        for row in range(6)
        for column in range(6)
    )


def ties(*residuals: float) -> TiePoints:
    """On a diagonal, 60 px apart; one that is left out is worse than all."""
    n = len(residuals) + 1
    xy = np.stack([20.0 + 60.0 * np.arange(n)] * 2, axis=-1)
    off, kept = np.array([*residuals, 99.0]), np.arange(n) < n - 1
    return TiePoints(xy, xy, xy * 0, np.ones(n), np.ones(n), kept, off)


def half(points: FloatArray) -> FloatArray:
    return np.full(len(points), 0.5)


def test_half_are_cells_and_half_tie_points_and_the_worst_comes_first() -> None:
    bad = {(0, 5): 4.0, (5, 0): 3.0}
    places = worst_places(cells(bad), ties(*np.linspace(1, 2, 9)), half, AREA, GRID, 40.0)
    assert len(places) == 10
    assert [place.where for place in places[:2]] == ["the bottom-left corner", "the top-right corner"]
    assert [place.residual_px for place in places[:2]] == [None, None]
    by_tie = [place.residual_px for place in places if place.residual_px is not None]
    assert len(by_tie) == 5 and by_tie == sorted(by_tie, reverse=True) and max(by_tie) == pytest.approx(2.0)
    worst = [max(place.error_px, place.residual_px or 0.0) for place in places]
    assert worst == sorted(worst, reverse=True)


def test_places_are_apart_and_points_that_were_left_out_are_none() -> None:
    places = worst_places(cells({}), ties(*np.linspace(1, 2, 9)), half, AREA, GRID, 150.0)
    xy = np.array([(place.x, place.y) for place in places])
    distance = np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1)) + 1e9 * np.eye(len(xy))
    assert distance.min() >= 150.0
    assert all(place.residual_px != 99.0 for place in places)


def test_one_kind_makes_up_for_the_other() -> None:
    assert len(worst_places(cells({}), ties(), half, AREA, GRID, 40.0)) == 10
    alone = worst_places((), ties(*np.linspace(1, 2, 9)), lambda xy: np.full(len(xy), math.nan), AREA, GRID, 40.0)
    assert len(alone) == 9 and all(math.isnan(place.error_px) for place in alone)
    assert worst_places((), ties(), half, AREA, GRID, 40.0) == ()
