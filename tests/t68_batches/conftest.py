"""Two pairs on disk, a table of them, and what these tests share with those of a single pair."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.t65_register.conftest import UTM, Files, moving_grid, package, write_pair

__all__ = ["package"]

LIGHT: dict[str, Any] = {"model": "orientation", "preset": "fast", "local": False}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Files]:
    """Two pairs of different shifts on the same ground: a time series has the first one's reference."""
    found = []
    for number, shift in enumerate([(6.3, -4.2), (-3.1, 2.4)]):
        folder = tmp_path_factory.mktemp(f"place{number}")
        found.append(write_pair(folder, moving_grid(UTM, 10.0), shift=shift, seed=0))
    return found


def fill(folder: Path, places: list[Files]) -> Path:
    """pairs.csv with two good rows and, between them, one without its moving image; paths are relative to it."""
    folder.mkdir(parents=True)
    for number in (0, 1):
        shutil.copy(places[number].moving, folder / f"sar{number}.tif")
    shutil.copy(places[0].reference, folder / "optical.tif")
    rows = ["name,moving,reference,resampling", "p0,sar0.tif,optical.tif,", "lost,nowhere.tif,optical.tif,"]
    (folder / "pairs.csv").write_text("\n".join([*rows, "p1,sar1.tif,optical.tif,nearest"]) + "\n")
    return folder / "pairs.csv"


@pytest.fixture
def table(places: list[Files], tmp_path: Path) -> Path:
    return fill(tmp_path / "in", places)
