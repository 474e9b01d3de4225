"""The places that a person should look at first."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from somareg.io.compass import place_words
from somareg.types import Cell, FloatArray, Grid, Place, TiePoints

PLACES = 10
PER_KIND = PLACES // 2


def worst_places(
    cells: tuple[Cell, ...],
    ties: TiePoints,
    errors_at: Callable[[FloatArray], FloatArray],
    area: tuple[float, float, float, float],
    reference: Grid,
    apart_px: float,
) -> tuple[Place, ...]:
    """The cells with the largest expected error and the inliers with the largest residual; worst first.

    Half of the places are cells and half tie points; when one kind has fewer, the other fills up. Each place
    ranks by the larger of its two errors.

    Args:
        cells: of the error map.
        ties: tie points.
        errors_at: expected error (N,) at reference pixels (N, 2), NaN where unknown.
        area: (left, top, width, height) of the common ground, for words.
        reference: grid of these pixels.
        apart_px: least distance between two places.
    """
    ranked = sorted((cell for cell in cells if cell.is_seen), key=lambda cell: -cell.error_px)
    by_cell = [(cell.x, cell.y, cell.error_px, None) for cell in ranked]
    inliers = np.flatnonzero(ties.inlier & np.isfinite(ties.residual_px))
    inliers = inliers[np.argsort(-ties.residual_px[inliers], kind="stable")][: 50 * PLACES]
    errors = errors_at(ties.reference_xy[inliers])
    by_tie = [
        (float(x), float(y), float(error), float(residual))
        for (x, y), error, residual in zip(ties.reference_xy[inliers], errors, ties.residual_px[inliers], strict=True)
    ]
    places: list[tuple[float, float, float, float | None]] = []
    for queue, limit in ((by_cell, PER_KIND), (by_tie, PLACES), (by_cell, PLACES)):
        for place in queue:
            far = all(math.hypot(place[0] - other[0], place[1] - other[1]) >= apart_px for other in places)
            if far and len(places) < limit:
                places.append(place)
    places.sort(key=lambda place: -max(place[2] if math.isfinite(place[2]) else 0.0, place[3] or 0.0))
    return tuple(Place(x, y, place_words(x, y, area, reference), error, off) for x, y, error, off in places)
