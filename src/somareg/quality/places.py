"""The error map, cell by cell and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from somareg.io.compass import cell_words
from somareg.io.metric import ground_metric
from somareg.types import ACROSS, BoolArray, Cell, FloatArray, Grid

LEAST_SHOWN = 0.25  # least share of a cell that both images must show
LEAST_SEEN = 0.5  # least share of a cell's common pixels with a known error
ALIKE = 0.9  # share of the largest error from which a cell counts as equally bad


@dataclass(frozen=True, eq=False)
class Places:
    """The error map on a lattice over the common ground.

    Attributes:
        points: (N, 2) reference pixels.
        shown: (N,) whether both images have pixels there.
        error_px: (N,) expected RMS error, reference pixels; NaN where unknown.
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
        """Share of the common pixels without a known error, 0-1; 1 when there are no common pixels."""
        return float(np.isnan(self.error_px[self.shown]).mean()) if self.shown.any() else 1.0

    def cells(self, reference: Grid) -> tuple[Cell, ...]:
        """The cells of the common ground, row by row.

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
    """The cell with the largest expected error; None when no cell has a known error."""
    return max((cell for cell in cells if cell.is_seen), key=lambda cell: cell.error_px, default=None)


def worst_place(cells: Sequence[Cell], reference: Grid) -> str:
    """One sentence on the part with the largest expected error and on the parts without a known error.

    As in "At worst, the north-west corner is off by about 3 px (30 m); 4 of 36 cells were not seen."

    Args:
        cells: of the common ground.
        reference: grid, which tells whether up is north.
    """
    worst = worst_cell(cells)
    if worst is None:
        return "No part of the images has enough matches nearby to state its error."
    size = f"{worst.error_px:.1f} px" if worst.error_px < 9.95 else f"{worst.error_px:.0f} px"
    if worst.error_m is not None and math.isfinite(worst.error_m):
        size += f" ({_metres(worst.error_m)})"
    known_cells = [cell for cell in cells if cell.is_seen]
    alike = [cell for cell in known_cells if cell.error_px >= ALIKE * worst.error_px]
    if len(alike) > len(known_cells) / 2 and len(known_cells) > 2:
        sentence = f"All parts that were seen are off by about as much: {size}"
    else:
        sentence = f"At worst, {cell_words(worst.column, worst.row, reference)} is off by about {size}"
    missing = [cell for cell in cells if not cell.is_seen]
    if not missing:
        return f"{sentence}; all {len(cells)} cells were seen."
    verb = "was" if len(missing) == 1 else "were"
    zones = dict.fromkeys(cell_words(cell.column, cell.row, reference) for cell in missing)
    where = f", in {' and '.join(zones)}," if len(zones) <= 2 else ""
    return f"{sentence}; {len(missing)} of {len(cells)} cells{where} {verb} not seen."


def _metres(value: float) -> str:
    return f"{value:.1f} m" if value < 9.95 else f"{value:,.0f} m"
