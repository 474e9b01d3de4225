"""One estimate for many rasters: Sentinel-2's 10, 20 and 60 m bands, masks, a time series; from every kind of file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import somareg
from somareg.batches import warps
from somareg.errors import InputError, OutputError, ReadError
from somareg.io.raster import read_raster
from somareg.io.source import open_source
from somareg.types import Grid
from tests.synthetic import Scene, pixel_points
from tests.t45_tiepoints.test_estimate import SHIFT, exact_points
from tests.t65_register.conftest import ORIGIN, UTM, Files, moving_grid, register, write, write_pair

BANDS = {"B02": 10.0, "B05": 20.0, "B01": 60.0}


def places_of(grid: Grid) -> NDArray[np.float64]:
    """(2, H, W) metres east and south of ORIGIN where each pixel claims to be: a raster that says where it was read."""
    east, north = grid.to_map(pixel_points(grid.shape)).T
    return np.stack([east - ORIGIN[0], ORIGIN[1] - north]).reshape(2, *grid.shape)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Two optical dates at 10 m, bands of 10, 20 and 60 m that say where they are, a 20 m mask of a class per pixel."""
    folder = tmp_path_factory.mktemp("scene")
    files = write_pair(folder, grid := moving_grid(UTM, 10.0), shift=SHIFT)
    seen = Scene(0).optical(files.claimed(pixel_points(grid.shape)) - SHIFT, grid.shape)
    noise = np.random.default_rng(3).normal(0, 20, seen.shape)
    write(files.moving, np.clip(10000 * seen + noise, 1, 65535).astype(np.uint16), grid)
    for name, gsd in BANDS.items():
        grid = moving_grid(UTM, gsd)
        write(folder / f"{name}.tif", places_of(grid).astype(np.float32), grid)
    grid = moving_grid(UTM, 20.0)
    write(folder / "SCL.tif", np.arange(1, 1 + grid.width * grid.height, dtype=np.uint16).reshape(1, *grid.shape), grid)
    return files


@pytest.fixture(scope="module")
def out(scene: Files) -> Path:
    result = register(scene.moving, scene.reference, moving_modality="optical")
    return result.save(scene.moving.parent / "out")


def error_m(path: Path, shift: tuple[float, float] = SHIFT) -> NDArray[np.float64]:
    """(2, N) metres between where the pixels of a warped raster of places were read and where they should have been."""
    with open_source(path, role="warped") as source:
        data, mask = source.read()
        due = places_of(source.grid) + 10.0 * np.array(shift).reshape(2, 1, 1)
    return np.asarray((data - due)[:, mask.all(0)], float)


def own_pixels(warped: warps.Warped) -> float:
    return BANDS.get(Path(warped.raster).stem, 20.0)


# --- bands of several pixel sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", ["reference", "native"])
def test_one_estimate_warps_10_20_and_60_m_bands(
    scene: Files, out: Path, tmp_path: Path, resolution: warps.Resolution
) -> None:
    bands = [scene.moving.parent / f"{name}.tif" for name in BANDS]
    done = somareg.warp_many(bands, out, tmp_path / "bands", resolution=resolution)
    assert [warped.output.name for warped in done] == ["B02.tif", "B05.tif", "B01.tif"]
    for warped in done:
        assert warped.failure is None
        gsd = own_pixels(warped)
        error = error_m(warped.output) / gsd
        assert np.sqrt((error**2).sum(0).mean()) < 0.1
        assert np.abs(error).max() < 0.2
        with rasterio.open(warped.output) as file:
            assert file.dtypes == ("float32", "float32")
            assert file.res[0] == pytest.approx(10.0 if resolution == "reference" else gsd, rel=0.01)
            inside = file.read_masks(1) > 0
            assert inside.mean() > 0.95


def test_a_mask_keeps_its_classes_and_its_place(scene: Files, out: Path, tmp_path: Path) -> None:
    band, mask = scene.moving.parent / "B05.tif", scene.moving.parent / "SCL.tif"
    done = somareg.warp_many([band], out, tmp_path / "both", nearest=[mask], resolution="native")
    assert [warped.output.stem for warped in done] == ["B05", "SCL"]
    warped = read_raster(done[1].output, role="warped")
    assert warped.data.dtype == np.uint16
    # A class is the number of a pixel: it says which pixel was taken, and a mixture of two would name a far one.
    source = moving_grid(UTM, 20.0)
    number = warped.data[0][warped.mask].astype(int) - 1
    taken = places_of(source).reshape(2, -1)[:, number]
    due = (places_of(warped.grid) + 10.0 * np.array(SHIFT).reshape(2, 1, 1))[:, warped.mask]
    assert np.abs((taken - due) / 20.0).max() < 0.5 + 0.1  # the nearest, but for a tenth of a pixel at its edge


def test_a_time_series_takes_the_estimate_of_one_date(scene: Files, out: Path, tmp_path: Path) -> None:
    dates = []
    for number in range(3):
        dates.append(tmp_path / f"2024050{number}" / "B02.tif")
        dates[-1].parent.mkdir()
        shutil.copy(scene.moving.parent / "B02.tif", dates[-1])
    done = somareg.warp_many(dates, out / "report.json", tmp_path / "series")
    assert [warped.output.name for warped in done] == ["B02.tif", "B02-2.tif", "B02-3.tif"]
    first, *others = (rasterio.open(warped.output).read() for warped in done)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_an_estimate_on_disk_is_read_once(
    scene: Files, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    real = warps.read_estimate
    monkeypatch.setattr(warps, "read_estimate", lambda path: (reads.append(path), real(path))[1])
    warps._read_once.cache_clear()
    bands = [scene.moving.parent / f"{name}.tif" for name in BANDS]
    whole = somareg.warp_many(bands, out, tmp_path / "a")
    assert len(reads) == 1
    held = somareg.warp_many(bands, somareg.io.read_estimate(out), tmp_path / "b")
    for one, other in zip(whole, held, strict=True):
        with rasterio.open(one.output) as a, rasterio.open(other.output) as b:
            np.testing.assert_array_equal(a.read(), b.read())


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_bad_raster_is_recorded_and_the_others_go_on(scene: Files, out: Path, tmp_path: Path) -> None:
    band = scene.moving.parent / "B02.tif"
    seen: list[float] = []
    done = somareg.warp_many(
        [tmp_path / "nowhere.tif", band], out, tmp_path / "o", progress=lambda _, share: seen.append(share)
    )
    assert done[0].failure is not None
    assert (done[0].failure.kind, done[1].failure) == ("ReadError", None)
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["B02.tif"]
    assert seen == [0.5, 1.0]


def test_nothing_begins_where_an_output_exists(scene: Files, out: Path, tmp_path: Path) -> None:
    bands = [scene.moving.parent / f"{name}.tif" for name in ("B02", "B05")]
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "B05.tif").write_text("mine")
    with pytest.raises(OutputError, match=r"B05\.tif exists"):
        somareg.warp_many(bands, out, tmp_path / "o")
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["B05.tif"]
    assert all(w.failure is None for w in somareg.warp_many(bands, out, tmp_path / "o", overwrite=True))
    # Into its own folder: the input is not replaced, with or without overwriting.
    shutil.copy(bands[0], tmp_path / "B02.tif")
    [itself] = somareg.warp_many([tmp_path / "B02.tif"], out, tmp_path, overwrite=True)
    assert itself.failure is not None
    assert "is the input itself" in itself.failure.message


def test_there_must_be_something_to_do(scene: Files, out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no raster"):
        somareg.warp_many([], out, tmp_path / "o")
    with pytest.raises(ReadError, match="no estimate at"):
        somareg.warp_many([scene.moving], tmp_path, tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("suffix", [".csv", ".gpkg", ".points"])
def test_tie_points_are_an_estimate(scene: Files, tmp_path: Path, suffix: str) -> None:
    ties, _ = exact_points(field=False)
    file = somareg.write_tie_points(tmp_path / f"ties{suffix}", ties, reference=scene.reference, moving=scene.moving)
    estimate = somareg.estimate_from_points(file, reference=scene.reference, moving=scene.moving)
    [warped] = somareg.warp_many([scene.moving.parent / "B02.tif"], estimate, tmp_path / "o")
    assert warped.failure is None
    assert np.abs(error_m(warped.output)).max() < 0.1
