"""Where an estimate is off, and by how much: figures of the error map, cell by cell, and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from somareg.errors import GeoreferenceError
from somareg.io.lonlat import has_lonlat, to_lonlat
from somareg.io.metric import ground_metric
from somareg.types import ACROSS, BoolArray, Cell, FloatArray, Grid

LEAST_SHOWN = 0.25  # of a cell: where both images show less of it, it is no cell
LEAST_SEEN = 0.5  # of what they show of it: a cell of which less was seen was not seen
ALIKE = 0.9  # of the largest error: cells with more are as bad
_NORTH = math.tan(math.radians(22.5))

_COMPASS = ("north", "south", "west", "east")
_SCREEN = ("top", "bottom", "left", "right")


@dataclass(frozen=True, eq=False)
class Places:
    """The error map on a lattice over the common ground.

    Attributes:
        points: (N, 2) reference pixels.
        shown: (N,) whether both images have pixels there.
        error_px: (N,) expected RMS error, reference pixels; NaN where nothing was seen.
        area: (left, top, width, height) of the common ground.
    """

    points: FloatArray
    shown: BoolArray
    error_px: FloatArray
    area: tuple[float, float, float, float]

    @property
    def shown_share(self) -> float:
        """Share of the area where both images have pixels, 0-1."""
        return float(self.shown.mean())

    @property
    def unseen_share(self) -> float:
        """Share of what both images show where no match nearby tells anything, 0-1; 1 where they show nothing."""
        return float(np.isnan(self.error_px[self.shown]).mean()) if self.shown.any() else 1.0

    def cells(self, reference: Grid) -> tuple[Cell, ...]:
        """The cells that both images show, row by row.

        Args:
            reference: grid whose pixels these are.
        """
        left, top, width, height = self.area
        place = (self.points - (left - 0.5, top - 0.5)) / (width, height) * ACROSS
        column, row = np.clip(place.astype(int), 0, ACROSS - 1).T
        number, known = row * ACROSS + column, np.isfinite(self.error_px)
        cells = []
        for index in range(ACROSS**2):
            own = number == index
            shown = own & self.shown
            if not shown.any() or shown.sum() < LEAST_SHOWN * own.sum():
                continue
            seen = shown & known
            share = float(seen.sum() / shown.sum())
            error = math.sqrt(float(np.square(self.error_px[seen]).mean())) if share >= LEAST_SEEN else math.nan
            x, y = self.points[shown].mean(axis=0)
            cells.append((index % ACROSS, index // ACROSS, float(x), float(y), share, error))
        metric = ground_metric(reference, np.array([cell[2:4] for cell in cells])) if cells else None
        even = [None] * len(cells) if metric is None else metric.even.tolist()
        return tuple(
            Cell(*cell, None if per_pixel is None else cell[5] * per_pixel)
            for cell, per_pixel in zip(cells, even, strict=True)
        )


def middles(area: tuple[float, float, float, float], across: int) -> FloatArray:
    """Reference pixels (across * across, 2) in the middles of equal parts of an area (left, top, width, height)."""
    left, top, width, height = area
    share = (np.arange(across) + 0.5) / across
    columns, rows = np.meshgrid(left - 0.5 + share * width, top - 0.5 + share * height)
    return np.stack([columns.ravel(), rows.ravel()], axis=-1)


def worst_cell(cells: Sequence[Cell]) -> Cell | None:
    """The cell of the largest expected error; None where none was seen."""
    return max((cell for cell in cells if cell.is_seen), key=lambda cell: cell.error_px, default=None)


def worst_place(cells: Sequence[Cell], reference: Grid) -> str:
    """Which part is off most, by how much, and how much was not seen, as one sentence.

    As in "At worst, the north-west corner is off by about 3 px (30 m); 4 of 36 cells were not seen."

    Args:
        cells: that both images show.
        reference: grid, which tells whether up is north.
    """
    worst = worst_cell(cells)
    if worst is None:
        return "No part of the images has enough matches nearby to state its error."
    size = f"{worst.error_px:.1f} px" if worst.error_px < 9.95 else f"{worst.error_px:.0f} px"
    if worst.error_m is not None and math.isfinite(worst.error_m):
        size += f" ({_metres(worst.error_m)})"
    words = _COMPASS if is_north_up(reference) else _SCREEN
    seen = [cell for cell in cells if cell.is_seen]
    alike = [cell for cell in seen if cell.error_px >= ALIKE * worst.error_px]
    if len(alike) > len(seen) / 2 and len(seen) > 2:
        told = f"All parts that were seen are off by about as much: {size}"
    else:
        told = f"At worst, {zone(worst.column, worst.row, words)} is off by about {size}"
    missing = [cell for cell in cells if not cell.is_seen]
    if not missing:
        return f"{told}; all {len(cells)} cells were seen."
    verb = "was" if len(missing) == 1 else "were"
    zones = dict.fromkeys(zone(cell.column, cell.row, words) for cell in missing)
    where = f", in {' and '.join(zones)}," if len(zones) <= 2 else ""
    return f"{told}; {len(missing)} of {len(cells)} cells{where} {verb} not seen."


def place_words(x: float, y: float, area: tuple[float, float, float, float], reference: Grid) -> str:
    """The part of an area (left, top, width, height) in which a reference pixel lies, as in "the south side"."""
    left, top, width, height = area
    place = (x - left + 0.5) / width, (y - top + 0.5) / height
    column, row = (min(max(int(ACROSS * share), 0), ACROSS - 1) for share in place)
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


def _metres(value: float) -> str:
    return f"{value:.1f} m" if value < 9.95 else f"{value:,.0f} m"
