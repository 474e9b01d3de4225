"""Small real pairs to break, and the command line to break them with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from somareg.cli.sample import sample_pair
from tests.t80_cli.conftest import cli  # noqa: F401  (a fixture)

SIDE = 256


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """`moving.tif` and `reference.tif`: a corner of the demo pair, georeferenced."""
    return make_pair(tmp_path)


def make_pair(folder: Path) -> tuple[Path, Path]:
    """The files of `pair`."""
    names = ("moving.tif", "reference.tif")
    for source, name in zip(sample_pair(), names, strict=True):
        with rasterio.open(source) as file:
            window = Window(200, 150, SIDE, SIDE)
            profile = {"crs": file.crs, "transform": file.window_transform(window)}
            write(folder / name, file.read(window=window), **profile)
    return folder / names[0], folder / names[1]


def write(path: Path, data: NDArray[Any], **profile: Any) -> Path:
    """Write (C, H, W) as a GeoTIFF."""
    bands, height, width = data.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": data.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        file.write(data)
    return path


def rewrite(path: Path, change: Any, **profile: Any) -> None:
    """Write a file anew with `change(data)`; `profile` overrides what it declares."""
    with rasterio.open(path) as file:
        data, kept = file.read(), {"crs": file.crs, "transform": file.transform}
    path.unlink()
    write(path, change(data), **(kept | profile))


def tree(folder: Path) -> dict[str, int]:
    """Every file and folder below, with sizes: what must be the same after a failure."""
    return {str(p.relative_to(folder)): p.stat().st_size if p.is_file() else -1 for p in folder.rglob("*")}


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (1, SIDE, SIDE), dtype=np.uint8)
