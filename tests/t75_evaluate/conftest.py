"""A miniature data folder made of analytic scenes, so that every pixel of a sample has a known true value."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.evaluate.protocol import SetInfo
from tests.t75_evaluate.meadow import stack

WIDTH, HEIGHT = 300, 260
OFFSET = (1.25, -0.75)
MINI = SetInfo("mini", 96, "exact", 0.5, {"test": "test", "val": "val"}, {"test": 6, "val": 4})


def scene(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    """Smooth grey values between 40 and 220 at optical positions."""
    waves = np.sin(x / 9 + phase) + np.cos(y / 7 - phase) + np.sin((x + 2 * y) / 23 + 2 * phase)
    return 130 + 30 * waves


def write_pair(folder: Path, name: str, phase: float, nodata: bool) -> None:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    optical = np.rint(scene(cols, rows, phase)).astype(np.uint8)
    # aligned_sar(x, y) = sar(x - dx, y - dy), so SAR position p shows optical position p + (dx, dy)
    sar = np.rint(scene(cols + OFFSET[0], rows + OFFSET[1], phase)).astype(np.uint8)
    if nodata:
        corner = cols + rows < 60
        optical[corner], sar[corner] = 0, 255
    for kind, image in (("sar", sar), ("optical", cv2.merge([optical, optical // 2, optical]))):
        (folder / "mini" / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "mini" / kind / name), image)


@pytest.fixture
def info() -> SetInfo:
    return MINI


@pytest.fixture
def truth() -> Callable[[np.ndarray, np.ndarray, float], np.ndarray]:
    return scene


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    rows = [["set", "name", "role", "group", "width", "height", "dx", "dy", "note"]]
    for i, role in enumerate(["test", "test", "test", "val"]):
        write_pair(folder, f"p{i}.png", float(i), nodata=i == 1)
        rows.append(["mini", f"p{i}.png", role, f"g{i}", str(WIDTH), str(HEIGHT), *map(str, OFFSET), ""])
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of validation samples: three moderate shifts along x, two of level H."""
    made = ProtocolSamples((stack("m", [2.0, 3.0, 0.0]), stack("H", [9.0, 4.0])))
    return made.save(tmp_path_factory.mktemp("samples") / "val.safetensors")
