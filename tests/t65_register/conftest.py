"""Pairs in memory and on disk, with their truth, and a few results that many tests look at."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform as reproject_points

from somareg.geometry import AffineTransform
from somareg.geometry.ground_control import GroundControl, place_by_control
from somareg.io.ground_control import gdal_points
from somareg.register import api
from somareg.soma.weights import store
from somareg.types import Grid, Result
from tests.small_network import save_network, small_network
from tests.synthetic import Scene, SyntheticPair, make_pair, pixel_points, speckled

UTM = "EPSG:32633"
ORIGIN = 500000.0, 4650000.0
register = partial(api.register, model="orientation")
"""The weight-free engine: what these tests ask of it must not depend on which weights ship."""

SIDE = 192
REFERENCE = Grid(SIDE, SIDE, (10.0, 0.0, ORIGIN[0], 0.0, -10.0, ORIGIN[1]), UTM)


@dataclass(frozen=True)
class Files:
    """A georeferenced pair on disk.

    Attributes:
        moving, reference: paths.
        shift: true correction, reference pixels.
        reference_grid, moving_grid: where their pixels claim to be.
    """

    moving: Path
    reference: Path
    shift: tuple[float, float]
    reference_grid: Grid
    moving_grid: Grid

    def claimed(self, moving_xy: NDArray[Any]) -> NDArray[Any]:
        """Reference pixels (N, 2) where the georeference puts moving pixels (N, 2)."""
        there = self.moving_grid.to_map(moving_xy)
        if self.moving_grid.crs != self.reference_grid.crs:
            crs = self.moving_grid.crs, self.reference_grid.crs
            there = np.stack(reproject_points(*crs, *there.T), axis=-1)
        return self.reference_grid.to_pixel(there)

    def rmse(self, result: Result) -> float:
        """RMS error of the estimated correction over the reference, pixels."""
        return float(np.sqrt(((result.displacement.array.reshape(2, -1).T - self.shift) ** 2).sum(1).mean()))


def write(path: Path, data: NDArray[Any], grid: Grid, *, mask: NDArray[Any] | None = None, **more: Any) -> Path:
    """Write (C, H, W) as a GeoTIFF; `descriptions` and `tags` in `more` are set, the rest goes to the driver."""
    descriptions, tags = more.pop("descriptions", None), more.pop("tags", {})
    profile = {"count": len(data), "height": grid.height, "width": grid.width, "dtype": data.dtype.name}
    place = {"crs": grid.crs, "transform": Affine(*grid.transform)} if grid.crs else {}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **profile, **place, **more) as file,
    ):
        file.write(data)
        file.update_tags(**tags)
        if descriptions:
            file.descriptions = descriptions
        if mask is not None:
            file.write_mask(mask)
    return path


def moving_grid(crs: str, gsd_m: float, reference: Grid = REFERENCE, beyond: float = 25.3) -> Grid:
    """A north-up grid in `crs` around the reference, `beyond` reference pixels larger on each side."""
    low, high = -beyond, reference.width - 1 + beyond
    corners = reference.to_map(np.array([[low, low], [high, low], [low, high], [high, high]]))
    if crs != reference.crs:
        corners = np.stack(reproject_points(reference.crs, crs, *corners.T), axis=-1)
    (left, bottom), (right, top) = corners.min(0), corners.max(0)
    count = round((high - low) * 10.0 / gsd_m)
    step_x, step_y = (right - left) / count, (top - bottom) / count
    return Grid(count, count, (step_x, 0.0, left, 0.0, -step_y, top), crs)


def write_pair(
    folder: Path,
    moving: Grid,
    *,
    reference: Grid = REFERENCE,
    shift: tuple[float, float] = (6.3, -4.2),
    gsd_m: float = 10.0,
    seed: int = 0,
    convert: Callable[[NDArray[Any]], NDArray[Any]] = lambda power: power.astype(np.float32),
    **more: Any,
) -> Files:
    """A pair whose georeferences are `shift` reference pixels apart; pixels are seen where they claim to be plus it."""
    scene, rng = Scene(seed), np.random.default_rng(seed)
    files = Files(folder / "sar.tif", folder / "optical.tif", shift, reference, moving)
    optical = 255 * np.clip(scene.optical(pixel_points(reference.shape), reference.shape) / 0.8, 0, 1)
    write(files.reference, np.rint(optical).astype(np.uint8), reference)
    # The correction leads from the ground to where the georeference claims it to be, so the ground is one shift back.
    ground = files.claimed(pixel_points(moving.shape)) - shift
    power = scene.backscatter(ground, moving.shape, pixel=gsd_m / 10.0)
    write(files.moving, convert(speckled(power, 4.0, rng)[None]), moving, **more)
    return files


def swath(reference: Grid = REFERENCE, size: int = 280) -> Grid:
    """A grid in radar geometry around the reference: mirrored, turned, bent by six pixels."""
    x, y = np.meshgrid(np.linspace(0, size, 9) - 0.5, np.linspace(0, size, 8) - 0.5)
    xy = np.stack([x.ravel(), y.ravel()], -1)
    u, v = (xy / size - 0.5).T
    there = AffineTransform.from_parameters(rotation_deg=9, scale=(1.0, -1.0))(xy - size / 2) + reference.width / 2
    there += np.stack([24 * u * u + 3 * np.sin(5 * v), 16 * u * v], -1)
    control, _ = place_by_control(xy, reference.to_map(there), (-0.5, -0.5, size - 0.5, size - 0.5))
    return Grid(size, size, control.transform, reference.crs, control)


def place_by_points(path: Path, control: GroundControl) -> None:
    """Take the geotransform from a file and give it control points."""
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), rasterio.open(path, "r+") as file:
        file.gcps = (gdal_points(control.xy, control.map_xy), rasterio.CRS.from_string(UTM))


@pytest.fixture(scope="session")
def pair() -> SyntheticPair:
    """192 px, 3 degrees, 2 %, some pixels."""
    return make_pair(0, SIDE, rotation_deg=3, scale=1.02, shift=(7.4, -5.2))


@pytest.fixture(scope="session")
def result(pair: SyntheticPair) -> Result:
    return register(pair.moving, pair.reference)


@pytest.fixture(scope="session")
def unrelated() -> Result:
    """Two different places."""
    return register(make_pair(77, SIDE).moving, make_pair(0, SIDE).reference)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Two-band uint16 amplitude with a nodata corner, other origin, 10 m; float-free so that DN can be compared."""
    grid = moving_grid(UTM, 10.0)

    def convert(power: NDArray[Any]) -> NDArray[Any]:
        amplitude = np.clip(np.rint(np.sqrt(power) * 2000), 1, 65535)
        both = np.concatenate([amplitude, amplitude[:, ::-1]]).astype(np.uint16)
        both[:, :60, :70] = 0
        return both

    return write_pair(
        tmp_path_factory.mktemp("pair"),
        grid,
        convert=convert,
        nodata=0,
        descriptions=("VV", "VV upside down"),
        tags={"MISSION": "synthetic"},
    )


@pytest.fixture(scope="session")
def file_result(files: Files) -> Result:
    return register(files.moving, files.reference, moving_bands=(1,))


@pytest.fixture(scope="session")
def saved(file_result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_result.save(tmp_path_factory.mktemp("saved") / "out")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder of weights, empty, as a build without them has it."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(store, "files", lambda name: folder)
    return folder


@pytest.fixture
def shipped(package: Path) -> Path:
    """The file that an installation has as its default weights; they are small and random."""
    return save_network(small_network(), package / f"{store.DEFAULT_WEIGHTS}.safetensors", name="meadow-3")
