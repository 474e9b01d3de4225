"""Parts of the common ground in words: by the compass where north is up, else as they lie on the screen."""

from __future__ import annotations

import math

import numpy as np

from somareg.errors import GeoreferenceError
from somareg.io.lonlat import has_lonlat, to_lonlat
from somareg.types import ACROSS, FloatArray, Grid

_NORTH = math.tan(math.radians(22.5))

_COMPASS = ("north", "south", "west", "east")
_SCREEN = ("top", "bottom", "left", "right")


def place_words(x: float, y: float, area: tuple[float, float, float, float], reference: Grid) -> str:
    """The part of an area (left, top, width, height) in which a reference pixel lies, as in "the south side"."""
    left, top, width, height = area
    place = (x - left + 0.5) / width, (y - top + 0.5) / height
    column, row = (min(max(int(ACROSS * share), 0), ACROSS - 1) for share in place)
    return cell_words(column, row, reference)


def cell_words(column: int, row: int, reference: Grid) -> str:
    """The part in which a cell lies, as in "the north-west corner" or, where north is not up, "the top-left corner".

    Args:
        column, row: 0-5, from the left and from the top.
        reference: grid whose pixels these are.
    """
    return zone(column, row, _COMPASS if is_north_up(reference) else _SCREEN)


def zone(column: int, row: int, words: tuple[str, str, str, str]) -> str:
    """A cell's third of both sides in words.

    Args:
        column, row: 0-5.
        words: of the upper, lower, left and right side.
    """
    third = ACROSS // 3
    down = (words[0], "", words[1])[row // third]
    across = (words[2], "", words[3])[column // third]
    if down and across:
        return f"the {down}-{across} corner"
    return f"the {down or across} side" if down or across else "the centre"


def is_north_up(grid: Grid) -> bool:
    """Whether north is up, by less than 22.5 degrees, in the middle of a grid; False where it has no place on earth."""
    if not has_lonlat(grid):
        return False
    x, y, step = (grid.width - 1) / 2, (grid.height - 1) / 2, max(grid.height, grid.width) / 8
    try:
        middle, above, right = to_lonlat(grid, np.array([[x, y], [x, y - step], [x + step, y]]))
    except GeoreferenceError:
        return False
    narrow = math.cos(math.radians(float(middle[1])))

    def step_to(place: FloatArray) -> tuple[float, float]:
        east = (float(place[0] - middle[0]) + 180.0) % 360.0 - 180.0
        return east * narrow, float(place[1] - middle[1])

    (aside, north), (east, askew) = step_to(above), step_to(right)
    return north > 0 and east > 0 and abs(aside) <= _NORTH * north and abs(askew) <= _NORTH * east
