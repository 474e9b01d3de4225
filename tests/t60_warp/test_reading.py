"""What was said of the moving image holds wherever its estimate goes; other rasters speak for themselves."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint

from somareg.errors import ConfigError, InputError, ReadError
from somareg.geometry import AffineTransform
from somareg.io import read_estimate
from somareg.io.displacement import write_displacement
from somareg.io.raster import file_sha256
from somareg.io.reading import READING_TAG, reading_of, reading_record
from somareg.io.shifts import export_shifts
from somareg.io.source import open_source
from somareg.tiepoints.estimate import estimate_from_points
from somareg.tiepoints.formats import read_tie_points, write_tie_points
from somareg.types import Displacement, Estimate, Grid, Reading, TiePoints
from somareg.warp import apply, apply_to_file
from somareg.warp.reading import make_reading

UTM = rasterio.CRS.from_epsg(32632).to_wkt()
GRID = Grid(90, 80, (10, 0, 500000, 0, -10, 5000000), UTM)
WORDS = np.random.default_rng(0).integers(0, 5, (2, 80, 90)).astype(np.int16)
CLOUDS = np.random.default_rng(1).integers(0, 12, (80, 90)).astype(np.uint8)


def save(path: Path, data: np.ndarray, grid: Grid = GRID, **profile: Any) -> Path:
    data = data if data.ndim == 3 else data[None]
    shape = {"count": len(data), "height": grid.height, "width": grid.width, "dtype": data.dtype}
    place = {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform)} if grid.crs else {}
    profile = {"driver": "GTiff", **shape, **place, **profile}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", **profile) as file:
        file.write(data)
    return path


def remembering(path: Path, **said: Any) -> Estimate:
    return Estimate(AffineTransform.identity(), GRID, GRID, Reading(**said), file_sha256(path))


def masks(path: Path) -> np.ndarray:
    with open_source(path, role="moving") as source:
        return source.read()[1]


# --- the moving image itself ------------------------------------------------------------------------------------------


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    return save(tmp_path / "moving.tif", WORDS, nodata=1)


@pytest.fixture
def clouds(tmp_path: Path) -> str:
    return str(save(tmp_path / "scl.tif", CLOUDS))


def test_the_moving_image_is_read_as_it_was(moving: Path, clouds: str, tmp_path: Path) -> None:
    estimate = remembering(moving, nodata=3.0, mask=clouds, mask_values="8-11")
    expected = (WORDS != 3) & (CLOUDS < 8)
    moved = shutil.copy(moving, tmp_path / "elsewhere.tif")  # it is known by its content
    for path in (moving, moved):
        np.testing.assert_array_equal(apply(path, estimate).valid, expected)
    out = apply_to_file(moved, estimate, tmp_path / "out.tif")
    with rasterio.open(out) as file:
        assert file.nodata == 3
        assert json.loads(file.tags()["SOMAREG_READING"]) == {"nodata": 3.0, "mask": clouds, "mask_values": "8-11"}
        np.testing.assert_array_equal(file.read_masks() > 0, expected)
        np.testing.assert_array_equal(file.read()[expected], WORDS[expected])


def test_what_is_said_now_goes_first(moving: Path, clouds: str) -> None:
    estimate = remembering(moving, nodata=3.0, mask=clouds, mask_values="8-11")
    plain = CLOUDS < 8
    for said, expected in (
        (Reading(nodata=0.0), (WORDS != 0) & plain),
        (Reading(nodata=float("nan")), np.broadcast_to(plain, WORDS.shape)),
        (Reading(mask="none"), WORDS != 3),
        (Reading(mask=clouds), (WORDS != 3) & (CLOUDS > 0)),  # the classes belonged to the other mask
        (Reading(mask=clouds, mask_values="2"), (WORDS != 3) & (CLOUDS != 2)),
    ):
        np.testing.assert_array_equal(apply(moving, estimate, reading=said).valid, expected)


def test_a_remembered_mask_that_is_gone_is_named_with_the_way_out(moving: Path, tmp_path: Path) -> None:
    estimate = remembering(moving, mask=str(tmp_path / "gone.tif"))
    with pytest.raises(ReadError, match=r"gone\.tif does not exist.*give its mask anew with --mask, or --mask none"):
        apply(moving, estimate)
    assert apply(moving, estimate, reading=Reading(mask="none")).mask.any()


def test_bands_that_were_named_are_imagery_again(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 200, (4, 80, 90)).astype(np.uint8)
    path = save(tmp_path / "rgbn.tif", data, photometric="RGB", alpha="yes")
    assert not apply(path, remembering(path)).mask.all()
    for estimate in (remembering(path, bands=(4,)), remembering(path, bands=(1, 2, 3, 4))):
        whole = apply(path, estimate)
        assert whole.mask.all()
        np.testing.assert_array_equal(whole.data, data)
    assert not apply(path, remembering(path, bands=(1, 2))).mask.all()


def test_in_memory_it_is_known_by_its_grid(clouds: str) -> None:
    from somareg.types import Raster

    raster = Raster(WORDS, np.ones((80, 90), bool), GRID)
    estimate = Estimate(AffineTransform.identity(), GRID, GRID, Reading(nodata=3.0, mask=clouds))
    np.testing.assert_array_equal(apply(raster, estimate).valid, (WORDS != 3) & (CLOUDS != 0))


# --- other rasters ----------------------------------------------------------------------------------------------------


def test_another_raster_that_declares_nothing_gets_the_nodata_value(
    moving: Path, clouds: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    estimate = remembering(moving, nodata=0.0, mask=clouds)
    later = save(tmp_path / "later.tif", WORDS[:1])
    np.testing.assert_array_equal(apply(later, estimate).mask, WORDS[0] != 0)  # and no clouds of another day
    assert "later.tif declares no nodata value; it is taken to be 0" in caplog.text
    told = save(tmp_path / "told.tif", WORDS[:1], nodata=4)
    np.testing.assert_array_equal(apply(told, estimate).mask, WORDS[0] != 4)
    assert apply(save(tmp_path / "classes.tif", WORDS[:1]), estimate, resampling="nearest").mask.all()
    palette = save(tmp_path / "palette.tif", CLOUDS, photometric="palette")
    with rasterio.open(palette, "r+") as file:
        file.write_colormap(1, {i: (i, i, i, 255) for i in range(12)})
    assert apply(palette, estimate).mask.all()
    assert apply(later, estimate, reading=Reading(nodata=float("nan"))).mask.all()


def test_its_own_mask_on_its_own_grid(moving: Path, tmp_path: Path) -> None:
    coarse = Grid(45, 40, (20, 0, 500000, 0, -20, 5000000), UTM)
    band = save(tmp_path / "b05.tif", np.full((40, 45), 7, np.uint16), coarse)
    scl = save(tmp_path / "scl20.tif", CLOUDS)
    warped = apply(band, remembering(moving), reading=Reading(mask=str(scl), mask_values="8-11"), resampling="nearest")
    with rasterio.open(scl) as file:
        nearest = file.read(1)[1::2, 1::2]  # the centre of a pixel of 20 m lies between four
    expected = np.kron(nearest < 8, np.ones((2, 2), bool))
    np.testing.assert_array_equal(warped.mask, expected)


def test_a_crs_that_was_assumed_is_assumed_again(moving: Path, tmp_path: Path) -> None:
    coarse = Grid(45, 40, (20, 0, 500000, 0, -20, 5000000))
    path = tmp_path / "bare.tif"
    shape = {"count": 1, "height": 40, "width": 45, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **shape, transform=rasterio.Affine(*coarse.transform)) as file:
        file.write(np.full((1, 40, 45), 7, np.uint8))
    assert apply(path, remembering(moving, assume_crs="EPSG:32632")).mask.all()
    with pytest.raises(Exception, match="no CRS"):
        apply(path, remembering(moving))


# --- files of an estimate ---------------------------------------------------------------------------------------------

SAID = Reading(
    nodata=-9999.0,
    scale="dB",
    bands=(1, 3),
    mask="/data/scl.tif",
    mask_values="3,8-10,bit4",
    gcp_method="tps",
    assume_crs="EPSG:32632",
)
SHA = "ab" * 32


def displacement(path: Path, estimate: Estimate) -> Path:
    zero = np.zeros((2, 80, 90), np.float32)
    return write_displacement(path, Displacement(zero, zero[0], zero[0], GRID), estimate, np.eye(2, 3), overwrite=True)


@pytest.mark.parametrize("reading", [SAID, Reading(), replace(SAID, nodata=float("nan"), mask=None, mask_values=None)])
def test_it_survives_in_the_displacement(tmp_path: Path, reading: Reading) -> None:
    estimate = Estimate(AffineTransform.identity(), GRID, GRID, reading, SHA)
    back = read_estimate(displacement(tmp_path / "displacement.tif", estimate))
    np.testing.assert_equal(back.reading.said(), reading.said())
    assert back.moving_sha256 == (SHA if reading.said() else "")
    shifts = export_shifts(tmp_path, tmp_path / "shifts.tif")
    np.testing.assert_equal(read_estimate(shifts).reading.said(), reading.said())


def test_it_survives_in_tie_points(moving: Path, tmp_path: Path) -> None:
    xy = np.random.default_rng(0).uniform(5, 70, (40, 2))
    ones = np.ones(40)
    shift = np.broadcast_to([2.0, 1.0], xy.shape)
    points = TiePoints(xy, xy + shift, shift, ones * 0.2, ones, ones > 0, ones * 0)
    estimate = Estimate(AffineTransform.identity(), GRID, GRID, Reading(nodata=3.0, bands=(1,)), file_sha256(moving))
    path = write_tie_points(tmp_path / "ties.geojson", points, reference=GRID, estimate=estimate)
    images: dict[str, Any] = {"reference": GRID, "moving": moving}
    found = estimate_from_points(path, **images)
    assert (found.reading, found.moving_sha256) == (estimate.reading, estimate.moving_sha256)
    assert len(read_tie_points(path, **images)) == 40
    np.testing.assert_array_equal(apply(moving, found).valid[:, 1:-3, 2:-4].sum(), (WORDS[:, 2:-2, 4:-2] != 3).sum())
    plain = write_tie_points(tmp_path / "plain.geojson", points, reference=GRID)
    assert estimate_from_points(plain, **images).reading == Reading()


@pytest.mark.parametrize(
    "bad",
    [
        "[]",
        "{",
        "[" * 5000,
        '{"nodata": "much"}',
        '{"nodata": true}',
        '{"bands": "all"}',
        '{"bands": [0]}',
        '{"mask": 3}',
        '{"mask_values": "clouds"}',
        '{"gcp_method": "spline"}',
        '{"scale": "loud"}',
        '{"sha256": "x"}',
        '{"mask": "' + "a" * 20000 + '"}',
    ],
)
def test_a_malformed_reading_is_one_line(tmp_path: Path, bad: str) -> None:
    path = displacement(tmp_path / "displacement.tif", Estimate(AffineTransform.identity(), GRID, GRID, SAID, SHA))
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(**{READING_TAG: bad})
    with pytest.raises(InputError, match="malformed tag SOMAREG_MOVING_READING") as caught:
        read_estimate(path)
    assert "\n" not in str(caught.value)
    ties = {"type": "FeatureCollection", "somareg_moving_reading": None, "features": []}
    if not bad.startswith('{"') or len(bad) > 5000:
        return
    ties["somareg_moving_reading"] = json.loads(bad)
    (tmp_path / "ties.geojson").write_text(json.dumps(ties))
    with pytest.raises(InputError, match="malformed"):
        estimate_from_points(tmp_path / "ties.geojson", reference=GRID, moving=GRID)


def test_a_record_is_json_and_back() -> None:
    estimate = Estimate(AffineTransform.identity(), GRID, GRID, SAID, SHA)
    assert reading_of(json.loads(json.dumps(reading_record(estimate)))) == (SAID, SHA)
    assert reading_record(replace(estimate, reading=Reading())) == {}


def test_bad_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="moving_mask_values"):
        make_reading(mask_values="clouds")
    with pytest.raises(ConfigError, match="moving_bands"):
        make_reading(bands="0")
    with pytest.raises(ConfigError, match="gcp_method"):
        make_reading(gcp_method="spline")  # type: ignore[arg-type]


def test_bands_that_are_not_there(moving: Path) -> None:
    with pytest.raises(ConfigError, match=r"no band 3; choose from 1 to 2"):
        apply(moving, remembering(moving), bands=(3,))


# --- control points ---------------------------------------------------------------------------------------------------


def test_a_curve_that_is_named_now_goes_before_the_remembered_one(tmp_path: Path) -> None:
    """Points that bend: the two curves differ by more than a pixel."""
    places = [
        (c, r, 9 + c * 1e-4 + 3e-4 * np.sin(r / 9), 45 - r * 1e-4) for r in range(0, 91, 15) for c in range(0, 91, 15)
    ]
    points = [GroundControlPoint(row=r, col=c, x=x, y=y) for c, r, x, y in places]
    data = np.random.default_rng(0).integers(0, 200, (1, 90, 90)).astype(np.uint8)
    path = save(tmp_path / "swath.tif", data, Grid(90, 90))
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "r+") as file:
        file.gcps = (points, rasterio.CRS.from_epsg(4326))
    reference = Grid(90, 90, (1e-4, 0, 9, 0, -1e-4, 45), "EPSG:4326")
    by_method: dict[str, Any] = {}
    for method in ("polynomial", "tps"):
        with open_source(path, role="moving", gcp_method=method) as source:  # type: ignore[arg-type]
            estimate = Estimate(AffineTransform.identity(), reference, source.grid)
        by_method[method] = estimate, apply(path, estimate).data
    assert (by_method["tps"][1] != by_method["polynomial"][1]).mean() > 0.5
    for method, other in (("tps", "polynomial"), ("polynomial", "tps")):
        found = apply(path, by_method[other][0], reading=Reading(gcp_method=method)).data
        np.testing.assert_array_equal(found, by_method[method][1])


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Two pages of one size; the second shows the first from right to left."""
    path, other = save(tmp_path / "pages.tif", WORDS[0]), save(tmp_path / "other.tif", WORDS[0][:, ::-1])
    rasterio.shutil.copy(other, path, driver="GTiff", APPEND_SUBDATASET="YES")
    return path


def test_the_page_that_was_registered_is_taken_again(pages: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="somareg.warp"):
        warped = apply(pages, remembering(pages, part="2"), resampling="nearest")
    np.testing.assert_array_equal(warped.data[0], WORDS[0][:, ::-1])
    assert "2 is read, as the moving image of the estimate was" in caplog.text


@pytest.mark.parametrize(("named", "turned"), [(":1", False), (":2", True)])
def test_a_page_that_is_named_goes_first(pages: Path, named: str, turned: bool) -> None:
    warped = apply(f"{pages}{named}", remembering(pages, part="2"), resampling="nearest")
    np.testing.assert_array_equal(warped.data[0], WORDS[0][:, :: -1 if turned else 1])


def test_another_file_has_pages_of_its_own(pages: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(pages, tmp_path / "later.tif"))
    with rasterio.open(other, "r+") as file:
        file.update_tags(when="later")
    warped = apply(other, remembering(pages, part="2"), resampling="nearest")
    np.testing.assert_array_equal(warped.data[0], WORDS[0])


def test_the_page_survives_in_files(pages: Path, tmp_path: Path) -> None:
    estimate = remembering(pages, part="2")
    assert reading_of(reading_record(estimate)) == (Reading(part="2"), estimate.moving_sha256)
    zeros = np.zeros((2, 80, 90), np.float32)
    path = write_displacement(tmp_path / "displacement.tif", Displacement(zeros, zeros[0], zeros[0], GRID), estimate)
    assert read_estimate(path).reading == Reading(part="2")
    apply_to_file(pages, read_estimate(path), tmp_path / "out.tif", resampling="nearest")
    with rasterio.open(tmp_path / "out.tif") as file:
        np.testing.assert_array_equal(file.read(1), WORDS[0][:, ::-1])
