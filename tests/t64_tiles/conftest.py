"""Scenes that are made within a second: parcels with sharp borders, each picture with brightnesses of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from somareg import SceneResult, register_scene, report
from somareg.register import api
from somareg.register.tiles.layout import SceneCfg

Array = NDArray[Any]
SIZES = SceneCfg(tile_px=256, overlap_px=32, overview_px=384)
SIDE = 1024
RIM = 40  # the truth is compared inside of it: windows cannot be centred on the edge
run = partial(register_scene, model="orientation", sizes=SIZES)


def bend(points: Array) -> Array:
    """The true displacement (N, 2): an affine and a smooth warp of some pixels."""
    x, y = points.T / 1024.0
    dx = 9.0 + 4.0 * (x - 0.5) - 3.0 * (y - 0.5) + 2.5 * np.sin(5 * y + 0.5) * np.cos(3 * x)
    dy = -6.0 + 3.0 * (x - 0.5) + 5.0 * (y - 0.5) + 2.0 * np.cos(4 * x + 1.0)
    return np.stack([dx, dy], axis=-1)


@dataclass(frozen=True)
class Pair:
    """Files of a scene whose truth is `bend`, or `shift` between georeferences."""

    moving: Path
    reference: Path
    side: int

    def errors(self, result: SceneResult, rim: int = RIM) -> Array:
        """Distances (N,) of the estimate from the truth, inside a rim, pixels."""
        axis = np.arange(rim, self.side - rim, 9.0)
        points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        return np.hypot(*(result.correction(points) - points - bend(points)).T)


def ground(side: int, seed: int, parcel: float = 36.0) -> Array:
    """(side, side) number of the parcel that each pixel lies in: Voronoi cells of random seeds."""
    rng = np.random.default_rng(seed)
    seeds = np.ones((side, side), np.uint8)
    rows, columns = rng.integers(0, side, (2, int((side / parcel) ** 2)))
    seeds[rows, columns] = 0
    labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    return np.asarray(labels)


def paint(labels: Array, seed: int) -> Array:
    """A brightness 0-1 for every parcel, borders softened by half a pixel."""
    value = np.random.default_rng(seed).uniform(0.1, 1.0, int(labels.max()) + 1).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(value[labels], (0, 0), 0.6))


def sample(image: Array, points: Array, shape: tuple[int, int]) -> Array:
    x, y = points.T.reshape(2, *shape).astype(np.float32)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def save(path: Path, data: Array, **more: Any) -> Path:
    profile = {"count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, blockxsize=256, blockysize=256, **profile, **more) as f:
        f.write(data)
    return path


def speckle(image: Array, seed: int) -> Array:
    power = image**2 * np.random.default_rng(seed).gamma(16, 1 / 16, image.shape)
    return np.clip(np.sqrt(power) * 3000, 1, 65535).astype(np.uint16)


def make_pair(folder: Path, side: int = SIDE, seed: int = 1) -> Pair:
    """Pixel mode: the moving image shows at `x + bend(x)` what the reference shows at x."""
    edge = 60
    labels = ground(side + 2 * edge, seed)
    reference = paint(labels, seed + 1)[edge:-edge, edge:-edge]
    axis = np.arange(float(side))
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    origin = points.copy()
    for _ in range(20):
        origin = points - bend(origin)
    moving = speckle(sample(paint(labels, seed + 2), origin + edge, (side, side)), seed)
    return Pair(
        save(folder / "sar.tif", moving[None], nodata=0),
        save(folder / "optical.tif", np.rint(reference * 200).astype(np.uint8)[None]),
        side,
    )


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Nine tiles."""
    return make_pair(tmp_path_factory.mktemp("small"), 640, seed=5)


@pytest.fixture(scope="session")
def result(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> SceneResult:
    return run(pair.moving, pair.reference, tmp_path_factory.mktemp("result") / "out")


@pytest.fixture(scope="session")
def small_result(small: Pair, tmp_path_factory: pytest.TempPathFactory) -> SceneResult:
    return run(small.moving, small.reference, tmp_path_factory.mktemp("result") / "out")


def make_geo_pair(folder: Path, side: int = 640, seed: int = 9) -> tuple[Path, Path]:
    """A georeferenced pair whose georeferences are (3.4, -5.2) reference pixels apart, pixels of 10 and 12 m."""
    labels = ground(side + 160, seed)
    reference = np.rint(paint(labels, seed + 1)[80:-80, 80:-80] * 200).astype(np.uint8)
    count = int((side + 100) / 1.2)
    axis = (np.arange(count) + 0.5) * 1.2 - 0.5 - 50  # reference pixels where the moving image claims to be
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) - (3.4, -5.2)
    image = sample(paint(labels, seed + 2), points + 80, (count, count))
    x, y = 500000.0, 4650000.0
    there, here = Affine(12.0, 0, x - 500, 0, -12.0, y + 500), Affine(10.0, 0, x, 0, -10.0, y)
    return (
        save(folder / "sar_geo.tif", speckle(image, seed)[None], crs="EPSG:32633", transform=there),
        save(folder / "optical_geo.tif", reference[None], crs="EPSG:32633", transform=here),
    )


@pytest.fixture(scope="session")
def geo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_geo_pair(tmp_path_factory.mktemp("geo"))


@pytest.fixture(scope="session")
def geo_result(geo: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> SceneResult:
    """With a STAC Item."""
    return run(*geo, tmp_path_factory.mktemp("result") / "out", stac=True)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out report.html, whose figures take longer than the tiles of a small scene."""
    monkeypatch.setattr(report, "render_report", lambda result, record: "")


warp = api.warp
