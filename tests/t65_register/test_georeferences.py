"""Georeferences as people bring them: without a CRS, in local systems, across the edge of a map, around a pole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasterio.warp import transform as reproject_points

from somareg.errors import GeoreferenceError, InputError
from somareg.io import georeference, ground_metric, read_estimate, read_raster
from somareg.io.crs import near_turn, turn_of
from somareg.register import api
from somareg.tiepoints.formats import read_tie_points
from somareg.types import Grid, Result
from tests.synthetic import pixel_points
from tests.t65_register.conftest import ORIGIN, REFERENCE, SIDE, UTM, Files, moving_grid, register, write, write_pair

LOCAL = 'LOCAL_CS["mine",UNIT["metre",1]]'
POINTS = pixel_points((SIDE, SIDE))[::37]


def naked(path: Path, source: Path, **place: Any) -> Path:
    """A copy of a file with another place; without one it has none at all."""
    with rasterio.open(source) as file:
        data, nodata = file.read(), file.nodata
    kept = {"nodata": nodata} if nodata is not None else {}
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    with rasterio.open(path, "w", dtype=data.dtype.name, **profile, **kept, **place) as file:
        file.write(data)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_pair(tmp_path_factory.mktemp("pair"), moving_grid(UTM, 10.0))


@pytest.fixture(scope="module")
def unnamed(pair: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Moving image and reference with their geotransforms and without a CRS."""
    folder = tmp_path_factory.mktemp("unnamed")
    both = ((pair.moving, pair.moving_grid), (pair.reference, pair.reference_grid))
    moving, reference = (naked(folder / path.name, path, transform=Affine(*grid.transform)) for path, grid in both)
    return moving, reference


@pytest.fixture(scope="module")
def found(unnamed: tuple[Path, Path]) -> Result:
    return register(*unnamed)


# --- geotransforms without a CRS --------------------------------------------------------------------------------------


def test_geotransforms_of_one_unnamed_system_place_both(pair: Files, found: Result) -> None:
    assert pair.rmse(found) < 0.5
    assert found.verdict.decision == "go"
    assert any("neither image names a CRS" in note and "in one system" in note for note in found.notes)
    assert found.quality.metres is None  # nobody says how long a unit is
    same = register(pair.moving, pair.reference)
    np.testing.assert_allclose(found.displacement.array, same.displacement.array, atol=1e-3)


def test_what_is_saved_of_them_is_applied_again(
    pair: Files, unnamed: tuple[Path, Path], found: Result, tmp_path: Path
) -> None:
    folder = found.save(tmp_path / "out", stac=True)
    estimate = read_estimate(folder)
    assert estimate.reference == found.reference.grid
    assert estimate.moving.unnamed_crs
    with rasterio.open(folder / "aligned.tif") as file:
        aligned = file.read()
        assert file.crs is None
        assert tuple(file.transform)[:6] == REFERENCE.transform
    again = api.warp(unnamed[0], folder)
    np.testing.assert_allclose(again.data, aligned, equal_nan=True)
    # Another raster of the same system is found by its own geotransform, one without any by its proportions.
    with rasterio.open(unnamed[0]) as file:
        half = file.read(out_shape=(1, file.height // 2, file.width // 2), resampling=Resampling.average)
        scale = Affine.scale(file.width / half.shape[2], file.height / half.shape[1])
        place = {"transform": file.transform @ scale, "driver": "GTiff", "dtype": "float32", "count": 1}
    with rasterio.open(tmp_path / "half.tif", "w", width=half.shape[2], height=half.shape[1], **place) as file:
        file.write(half)
    coarse = api.warp(tmp_path / "half.tif", folder)
    plain = api.warp(naked(tmp_path / "plain.tif", unnamed[0]), folder)
    inside = again.mask & coarse.mask
    assert inside.mean() > 0.9
    assert np.corrcoef(coarse.data[0][inside], again.data[0][inside])[0, 1] > 0.6
    np.testing.assert_allclose(plain.data, aligned, equal_nan=True)
    # Tie points keep their displacement when they are read with the files.
    ties = read_tie_points(folder / "tie_points.geojson", reference=unnamed[1], moving=unnamed[0])
    np.testing.assert_allclose(ties.displacement, found.tie_points.displacement, atol=0.01)
    collection = json.loads((folder / "tie_points.geojson").read_text())
    assert "not longitude and latitude" in collection["coordinates"]
    assert json.loads((folder / "item.json").read_text())["geometry"] is None


def test_geotransforms_that_share_no_ground_are_not_used(pair: Files, tmp_path: Path) -> None:
    away = Affine.translation(9e5, 0) @ Affine(*pair.moving_grid.transform)
    moving = naked(tmp_path / "m.tif", pair.moving, transform=away)
    result = register(moving, naked(tmp_path / "r.tif", pair.reference, transform=Affine(*REFERENCE.transform)))
    assert any("share no ground" in note for note in result.notes)
    assert not result.moving.grid.is_georeferenced


@pytest.mark.parametrize("from_below", [0.0, 1.0, None])
def test_counted_pixels_are_no_place(from_below: float | None, pair: Files, tmp_path: Path) -> None:
    """Some programs write rows counted from below as a geotransform."""
    images = []
    for path, grid in ((pair.moving, pair.moving_grid), (pair.reference, pair.reference_grid)):
        place = Affine.identity() if from_below is None else Affine(1, 0, 0, 0, -1, from_below * grid.height)
        images.append(naked(tmp_path / path.name, path, transform=place))
    result = register(*images)
    assert not result.reference.grid.is_georeferenced
    assert not any("geotransform" in note for note in result.notes)


def test_a_geotransform_of_one_only_is_told(pair: Files, tmp_path: Path) -> None:
    moving = naked(tmp_path / "m.tif", pair.moving, transform=Affine(*pair.moving_grid.transform))
    result = register(moving, naked(tmp_path / "r.tif", pair.reference))
    assert any("r.tif has no geotransform" in note and "not used" in note for note in result.notes)


# --- local systems ----------------------------------------------------------------------------------------------------


def test_a_local_system_joins_with_itself_alone(pair: Files, tmp_path: Path) -> None:
    places = {
        name: {"transform": Affine(*grid.transform), "crs": LOCAL}
        for name, grid in (("m", pair.moving_grid), ("r", pair.reference_grid))
    }
    moving, reference = (
        naked(tmp_path / "m.tif", pair.moving, **places["m"]),
        naked(tmp_path / "r.tif", pair.reference, **places["r"]),
    )
    result = register(moving, reference)
    assert pair.rmse(result) < 0.5
    assert result.quality.metres is not None
    assert result.quality.metres.pixel_m == pytest.approx((10, 10))
    folder = result.save(tmp_path / "out", stac=True)
    assert json.loads((folder / "item.json").read_text())["geometry"] is None
    with pytest.raises(GeoreferenceError, match="local system 'mine'"):
        register(moving, pair.reference)
    other = naked(tmp_path / "o.tif", pair.reference, **(places["r"] | {"crs": LOCAL.replace("mine", "yours")}))
    with pytest.raises(GeoreferenceError, match="local system 'yours'"):
        register(moving, other)


# --- maps that wrap and maps that end ---------------------------------------------------------------------------------


SCENE = Grid(SIDE, SIDE, (10.0, 0.0, 828_000.0, 0.0, -10.0, 1_000_000.0), "EPSG:32660")
"""Across the meridian of 180 degrees."""
WRAPPING = ["EPSG:3857", "EPSG:3395", "EPSG:4326", "EPSG:4087", "EPSG:6933", "EPSG:3832"]


def across(crs: str, from_west: bool) -> Grid:
    """A grid around the scene in another CRS, whose x is counted from one end of the map or the other."""
    low, high = -25.3, SIDE - 1 + 25.3
    corners = SCENE.to_map(np.array([[low, low], [high, low], [low, high], [high, high]]))
    x, y = np.array(reproject_points(SCENE.crs, crs, *corners.T))
    turn = turn_of(crs)
    if turn is not None:
        x = near_turn(x, float(x[0]), turn)
        x += turn * (int(x.mean() < 0) - int(from_west))
    count = SIDE + 50
    step = float(np.ptp(x)) / count, float(np.ptp(y)) / count
    return Grid(count, count, (step[0], 0.0, float(x.min()), 0.0, -step[1], float(y.max())), crs)


@pytest.mark.parametrize("from_west", [False, True])
@pytest.mark.parametrize("crs", [*WRAPPING, "EPSG:32601"])
def test_scenes_across_180_degrees_stay_in_one_piece(crs: str, from_west: bool, tmp_path: Path) -> None:
    files = write_pair(tmp_path, across(crs, from_west), reference=SCENE)
    onto = register(files.moving, files.reference)
    assert files.rmse(onto) < 0.6
    assert onto.quality.overlap > 0.9
    back = register(files.reference, files.moving, moving_modality="optical", reference_modality="sar")
    there_and_back = back.transform(onto.transform(POINTS)) - POINTS
    assert float(np.sqrt((there_and_back**2).sum(1).mean())) < 1.0


@pytest.mark.parametrize("crs", WRAPPING)
def test_one_map_counted_from_both_ends(crs: str, tmp_path: Path) -> None:
    """The same CRS, but x of one image lies a turn away from that of the other."""
    east, west = (across(crs, from_west) for from_west in (False, True))
    assert east.transform[2] - west.transform[2] == pytest.approx(turn_of(crs))
    onto = georeference(east, west)
    assert onto.is_affine
    np.testing.assert_allclose(onto(POINTS), POINTS, atol=1e-3)


def test_a_mosaic_of_the_world_is_refused_where_its_edge_tears_the_scene(tmp_path: Path) -> None:
    """The scene lies at both ends of it: all that is between would be read and searched."""
    scene = write_pair(tmp_path, moving_grid("EPSG:32601", 10.0, SCENE), reference=SCENE)
    world = tmp_path / "world.tif"
    size = {"width": 360_000, "height": 180_000}
    place = {"transform": Affine(1e-3, 0, -180, 0, -1e-3, 90), "crs": "EPSG:4326"}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(world, "w", driver="GTiff", count=1, dtype="uint8", **size, **place, **tiles) as file:
        file.write(np.full((1, 64, 64), 7, np.uint8), window=rasterio.windows.Window(0, 81_000, 64, 64))
    for pair in ((scene.moving, world), (world, scene.moving)):
        with pytest.raises(GeoreferenceError, match="edge of the other image's map"):
            register(*pair)


def test_a_mosaic_of_the_world_against_a_scene_far_from_its_middle(tmp_path: Path) -> None:
    """UTM has no answer at the middle of the mosaic; where the scene lies it has."""
    files = write_pair(tmp_path, moving_grid("EPSG:32660", 10.0, FAR), reference=FAR)
    with rasterio.open(files.reference) as file:
        data = file.read()
    world = tmp_path / "world.tif"
    place = {"transform": Affine(0.01, 0, -180, 0, -0.01, 90), "crs": "EPSG:4326"}
    with rasterio.open(
        world,
        "w",
        driver="GTiff",
        count=data.shape[0],
        dtype="uint8",
        width=36_000,
        height=18_000,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        SPARSE_OK=True,
        nodata=0,
        **place,
    ) as file:
        file.write(data, window=rasterio.windows.Window(34_500, 8_000, SIDE, SIDE))
    result = register(world, files.moving, moving_modality="optical", reference_modality="sar")
    assert result.quality.overlap > 0.3
    assert result.verdict.decision != "no-go"


FAR = Grid(SIDE, SIDE, (0.01, 0.0, 165.0, 0.0, -0.01, 10.0), "EPSG:4326")


# --- poles ------------------------------------------------------------------------------------------------------------

POLAR = Grid(SIDE, SIDE, (200.0, 0.0, -100.0 * SIDE, 0.0, -200.0, 100.0 * SIDE), "EPSG:3413")


def test_a_pole_in_the_middle_of_both(tmp_path: Path) -> None:
    files = write_pair(tmp_path, moving_grid("EPSG:3413", 10.0, POLAR, 25.3), reference=POLAR)
    result = register(files.moving, files.reference)
    assert files.rmse(result) < 0.6
    metric = ground_metric(POLAR)
    assert metric is not None
    assert result.quality.metres is not None
    assert result.quality.metres.shift_before_m == pytest.approx(
        float(metric.lengths(np.array([files.shift]))[0]), rel=0.1
    )
    item = json.loads((result.save(tmp_path / "out", stac=True) / "item.json").read_text())
    assert item["bbox"][0] == -180
    assert item["bbox"][2:] == [180.0, 90.0]
    ring = np.array(item["geometry"]["coordinates"][0])
    assert {(-180.0, 90.0), (180.0, 90.0)} <= {tuple(p) for p in ring.tolist()}
    x, y = ring.T
    area = abs(float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) / 2
    assert area == pytest.approx(360 * (90 - item["bbox"][1]) * 0.794, rel=0.01)  # a square around the pole


def test_a_pole_against_a_strip_of_degrees(tmp_path: Path) -> None:
    """All longitudes in one row against a square around the pole: neither is refused, and the ground is the strip."""
    files = write_pair(tmp_path, moving_grid("EPSG:3413", 10.0, POLAR, 25.3), reference=POLAR, shift=(0.0, 0.0))
    with rasterio.open(files.reference) as file:
        optical = file.read()
    strip = np.zeros((len(optical), 200, 1440), np.uint8)
    place = Affine(0.25, 0, -180, 0, -0.001, 90)
    reproject(
        optical,
        strip,
        src_transform=Affine(*POLAR.transform),
        src_crs="EPSG:3413",
        dst_transform=place,
        dst_crs="EPSG:4326",
        resampling=Resampling.bilinear,
    )
    path = tmp_path / "strip.tif"
    write(path, strip, Grid(1440, 200, tuple(place)[:6], "EPSG:4326"), nodata=0)
    result = register(files.moving, path)
    assert result.reference.grid.width == 1440
    assert result.quality.overlap > 0.5
    back = register(path, files.moving, moving_modality="optical", reference_modality="sar")
    assert back.quality.overlap > 0.5
    assert float(np.hypot(*back.quality.shift_px)) < 3


def test_a_page_may_be_the_moving_image(pair: Files, tmp_path: Path) -> None:
    two = naked(tmp_path / "two.tif", pair.moving, transform=Affine(*pair.moving_grid.transform), crs=UTM)
    with rasterio.open(two) as file:
        profile, data = dict(file.profile), file.read()
    profile.pop("nodata", None)
    with rasterio.open(two, "w", APPEND_SUBDATASET="YES", **profile) as file:
        file.write(data[:, ::-1])
    first = register(two, pair.reference)
    assert any("page 1 of 2" in note for note in first.notes)
    named = register(f"{two}:1", pair.reference)
    assert not any("page" in note for note in named.notes)
    np.testing.assert_array_equal(first.displacement.array, named.displacement.array)
    folder = register(f"{two}:2", pair.reference).save(tmp_path / "out", force=True)
    with rasterio.open(folder / "aligned.tif") as file:
        upside_down = file.read(1)
    np.testing.assert_allclose(upside_down, api.warp(f"{two}:2", folder, force=True).data[0], equal_nan=True)
    np.testing.assert_array_equal(api.warp(two, folder, force=True).data, api.warp(f"{two}:2", folder, force=True).data)
    assert read_raster(f"{two}:2", role="moving").grid == pair.moving_grid or ORIGIN
    with pytest.raises(InputError, match="pages 1 to 2"):
        register(f"{two}:3", pair.reference)
