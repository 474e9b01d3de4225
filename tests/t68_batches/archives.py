"""Archives of small scenes on one piece of ground, whose offsets are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from somareg.types import Grid
from tests.synthetic import Scene, pixel_points, speckled
from tests.t65_register.conftest import UTM, write

SIDE = 144
GRID = Grid(SIDE, SIDE, (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), UTM)
LIGHT = {"model": "orientation", "preset": "fast", "local": False}

_DAYS = ("20210104", "20210203", "20210305", "20210404", "20210504", "20220104", "20220203", "20220305", "20220404")
NAMES = tuple(
    f"S2A_MSIL1C_{day}T103000_N{'0214' if day < '2022' else '0400'}_R094_T32TQM_{day}T120000.tif" for day in _DAYS
)
"""Nine dates of one orbit; with the sixth the processing baseline changes."""
OFFSETS = (
    (0.3, 0.1),
    (0.2, -0.1),
    (7.3, -5.0),
    (0.1, 0.2),
    (0.3, 0.0),
    (2.3, 0.1),
    (2.2, 0.2),
    (2.4, -0.1),
    (2.2, 0.1),
)
"""The third date lies by itself, and from the sixth on all lie 2 px to the right."""


def write_reference(folder: Path) -> Path:
    """The optical image that all scenes show the ground of."""
    optical = 255 * np.clip(Scene(3).optical(pixel_points(GRID.shape), GRID.shape) / 0.8, 0, 1)
    return write(folder / "reference.tif", np.rint(optical).astype(np.uint8), GRID)


def write_archive(
    folder: Path, names: Sequence[str] = NAMES, offsets: Sequence[tuple[float, float]] = OFFSETS
) -> list[Path]:
    """A scene for every name, its ground `offset` pixels to the right and down of where the reference has it."""
    folder.mkdir(parents=True, exist_ok=True)
    ground, files = Scene(3), []
    for number, (name, offset) in enumerate(zip(names, offsets, strict=True)):
        power = ground.backscatter(pixel_points(GRID.shape) - offset, GRID.shape)
        speckle = speckled(power, 6.0, np.random.default_rng(number))
        files.append(write(folder / name, speckle[None].astype(np.float32), GRID))
    return files
