"""Tie points: those in view, thinned where there are too many to see, and the figures of one."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from somareg.io.metric import ground_metric
from somareg.tiepoints.formats import read_tie_points
from somareg.types import Estimate, TiePoints
from somareg.types.words import metres, pixels

MAX_SHOWN = 3000

Bounds = tuple[float, float, float, float]


class Points:
    """The tie points of a result, read when they are first asked for.

    Args:
        path: of `tie_points.geojson`.
        estimate: its grids place what the file does not, and its correction is what points are off.
    """

    def __init__(self, path: Path, estimate: Estimate) -> None:
        self._path, self._estimate = path, estimate
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.ties)

    @property
    def ties(self) -> TiePoints:
        """All of them.

        Raises:
            ReadError, InputError: the file is damaged.
        """
        with self._lock:
            return self._read

    @cached_property
    def _read(self) -> TiePoints:
        return read_tie_points(self._path, reference=self._estimate.reference, moving=self._estimate.moving)

    @cached_property
    def top_residual(self) -> float:
        """The residual that gets the last colour: the largest of kept points but for outliers, pixels."""
        ties = self.ties
        seen = ties.residual_px[ties.inlier & np.isfinite(ties.residual_px)]
        return max(float(np.percentile(seen, 98)), 0.2) if len(seen) else 1.0

    def in_view(self, bounds: Bounds, limit: int = MAX_SHOWN) -> dict[str, Any]:
        """Points between left, top, right and bottom (reference pixels), every n-th where there are more than `limit`.

        Returns:
            "points": [id, x, y, residual relative to the scale's end 0-1 (null when not known), kept]; "total": how
            many lie there.
        """
        ties = self.ties
        left, top, right, bottom = bounds
        x, y = ties.reference_xy.T
        ids = np.flatnonzero((x >= left) & (x <= right) & (y >= top) & (y <= bottom))
        total = len(ids)
        # By number and not by place in the list: a point that is shown stays when the map moves.
        every = 2 ** max(0, math.ceil(math.log2(max(total, 1) / limit)))
        ids = ids[ids % every == 0] if every > 1 else ids
        level = np.clip(ties.residual_px / self.top_residual, 0, 1)
        rows = [
            [int(i), round(float(x[i]), 2), round(float(y[i]), 2), _number(level[i]), bool(ties.inlier[i])] for i in ids
        ]
        return {"points": rows, "total": total}

    def figures(self, number: int) -> dict[str, Any]:
        """What is known about one point, in words.

        Raises:
            IndexError: there is no such point.
        """
        ties = self.ties
        if not 0 <= number < len(ties):
            raise IndexError(number)
        (x, y), (u, v) = ties.reference_xy[number], ties.moving_xy[number]
        here, moved = ties.reference_xy[number : number + 1], ties.displacement[number : number + 1]
        (dx, dy), off = moved[0], here + moved - self._estimate.correction(here)
        metric = ground_metric(self._estimate.reference, here)
        lengths = ties.residual_px[number], ties.sigma_px[number]
        if metric is None:
            right, down, away, error = (pixels(_number(px)) for px in (dx, dy, *lengths))
        else:
            edges = metric.pixel_m
            right, down = (_both(px, px * edge) for px, edge in zip((dx, dy), edges, strict=True))
            away = _both(lengths[0], float(metric.lengths(off)[0]))
            error = _both(lengths[1], lengths[1] * metric.per_pixel)
        rows = [
            ("Reference pixel", f"{x:.1f}, {y:.1f}"),
            ("Moving pixel", f"{u:.1f}, {v:.1f}"),
            ("Displacement, right", right),
            ("Displacement, down", down),
            ("Off the transform", away),
            ("Standard error", error),
            ("Confidence", "–" if math.isnan(ties.confidence[number]) else f"{ties.confidence[number]:.2f}"),
        ]
        kept = bool(ties.inlier[number])
        status = "Agrees with the transform" if kept else "Left out: it disagrees with the others"
        return {"id": number, "x": float(x), "y": float(y), "kept": kept, "status": status, "rows": rows}


def _both(px: float, m: float) -> str:
    """A length in both units."""
    value, ground = _number(px), _number(m)
    return pixels(value) + (f" ({metres(ground)})" if value is not None and ground is not None else "")


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
