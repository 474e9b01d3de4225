"""Small holes in the valid area, filled for matching, because each would invalidate every feature around it.

Dark pixels at the nodata value, dead detectors and line gaps are scattered over an image. Every
feature covers some pixels, so that holes in a twentieth of the pixels would leave no feature valid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.types import BoolArray, Raster

ENOUGH = 5  # least valid pixels among the 8 neighbours: a pixel at the straight edge of a larger hole has 3
ROUNDS = 4


def bridged(image: Raster, role: str) -> tuple[Raster, tuple[str, ...]]:
    """Fill small holes of an image for matching, with a note when there are many."""
    data, mask, count = bridge_holes(image.data, image.mask)
    if not count:
        return image, ()
    share = count / mask.size
    note = f"{role}: {share:.1%} of the pixels are small holes, bridged for matching only"
    return replace(image, data=data, mask=mask, band_masks=None), (note,) * (share > 0.001)


def bridge_holes(data: NDArray[Any], mask: BoolArray, rounds: int = ROUNDS) -> tuple[NDArray[Any], BoolArray, int]:
    """Fill invalid pixels among valid ones with the mean of their valid neighbours.

    Args:
        data: (C, H, W), of any dtype; of complex values the moduli are averaged.
        mask: (H, W) True where valid.
        rounds: repetitions; each narrows a narrow hole by a pixel on every side.

    Returns:
        Data and mask with the holes filled (the given ones when there are none), and the number of filled pixels.
    """
    count = 0
    for _ in range(rounds):
        if mask.all():
            break
        rows, columns = np.nonzero(~mask & (_neighbours(mask) >= ENOUGH))
        if not len(rows):
            break
        if not count:
            data, mask = data.copy(), mask.copy()
        count += len(rows)
        means = _means(data, mask, rows, columns)
        data[:, rows, columns] = np.rint(means) if data.dtype.kind in "iu" else means
        mask[rows, columns] = True
    return data, mask, count


def _neighbours(mask: BoolArray) -> NDArray[np.uint8]:
    """(H, W), number of valid pixels among the 8 neighbours."""
    padded = np.pad(mask, 1).astype(np.uint8)
    height, width = mask.shape
    lines = padded[:, :width] + padded[:, 1 : width + 1] + padded[:, 2:]
    return np.asarray(lines[:height] + lines[1 : height + 1] + lines[2:] - mask, np.uint8)


def _means(
    data: NDArray[Any], mask: BoolArray, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(C, N) means of the valid neighbours of some pixels."""
    height, width = mask.shape
    total = np.zeros((len(data), len(rows)))
    count = np.zeros(len(rows))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            # Clipping turns a neighbour beyond the edge into one at the edge, or into the pixel itself: invalid.
            y, x = np.clip(rows + dy, 0, height - 1), np.clip(columns + dx, 0, width - 1)
            values, valid = data[:, y, x], mask[y, x]
            total += np.where(valid, np.abs(values) if values.dtype.kind == "c" else values, 0)  # else it may be NaN
            count += valid
    return total / count
