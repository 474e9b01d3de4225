"""Georeferenced files: other origins, CRSs, pixel sizes and masks; the correction is told in reference pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from somareg.config import make_config
from somareg.errors import GeoreferenceError, NoOverlapError
from somareg.register import api, choose
from somareg.types import Grid, Result
from tests.synthetic import pixel_points
from tests.t65_register.conftest import ORIGIN, REFERENCE, SIDE, UTM, Files, moving_grid, register, write, write_pair

POINTS = pixel_points((SIDE, SIDE))[::37]
CASES = {
    "same CRS": (REFERENCE, UTM, 10.0),
    "same CRS, 20 m": (REFERENCE, UTM, 20.0),
    "same CRS, 5 m": (REFERENCE, UTM, 5.0),
    "neighbouring UTM zone": (REFERENCE, "EPSG:32632", 10.0),
    "lon/lat": (REFERENCE, "EPSG:4326", 10.0),
    "web mercator, 20 m": (REFERENCE, "EPSG:3857", 20.0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_known_shift_is_recovered(name: str, tmp_path: Path) -> None:
    reference, crs, gsd = CASES[name]
    files = write_pair(tmp_path, moving_grid(crs, gsd), reference=reference, gsd_m=gsd)
    result = register(files.moving, files.reference)
    assert files.rmse(result) < 0.5
    assert result.verdict.decision == "go"
    assert result.quality.shift_px == pytest.approx(files.shift, abs=0.5)
    assert result.quality.metres_per_pixel == pytest.approx(10, rel=0.01)
    # transform leads into the moving file's own pixels: where they claim to be is where the correction points.
    np.testing.assert_allclose(files.claimed(result.transform(POINTS)), result.correction(POINTS), atol=0.01)
    np.testing.assert_allclose(result.transform.inverse(result.transform(POINTS)), POINTS, atol=1e-3)
    np.testing.assert_allclose(files.claimed(result.tie_points.moving_xy), _ties_on_reference(result), atol=0.01)


def _ties_on_reference(result: Result) -> np.ndarray:
    return result.tie_points.reference_xy + result.tie_points.displacement


def test_a_reference_in_degrees() -> None:
    """Pixel sizes in metres come from the ellipsoid, not from the CRS's units."""
    grid = Grid(100, 100, (0.0001, 0.0, 15.0, 0.0, -0.0001, 42.0), "EPSG:4326")
    radius = choose.search_radius(make_config({"search_radius_m": 300.0}), grid)
    # A degree of longitude has 82 850 m at 42 degrees north, one of latitude more: it reaches 300 m in every direction.
    assert radius == pytest.approx(300 / (0.0001 * 82_850), rel=0.01)


def test_a_larger_radius_finds_what_is_further_away(tmp_path: Path) -> None:
    files = write_pair(tmp_path, moving_grid(UTM, 10.0, beyond=90), shift=(52.0, -61.0))
    result = register(files.moving, files.reference, search_radius_m=700.0)
    assert files.rmse(result) < 0.5


def test_rotated_geotransform(tmp_path: Path) -> None:
    turned = Affine.translation(ORIGIN[0] - 100, ORIGIN[1] - 500) @ Affine.rotation(12) @ Affine.scale(10, -10)
    grid = Grid(280, 280, tuple(turned)[:6], UTM)
    files = write_pair(tmp_path, grid, shift=(-3.7, 5.1))
    result = register(files.moving, files.reference)
    seen = result.displacement.certainty > 0.5
    error = result.displacement.array - np.array(files.shift)[:, None, None]
    assert seen.mean() > 0.6
    assert float(np.sqrt((error**2).sum(0)[seen].mean())) < 0.5


def test_images_side_by_side_are_refused_with_both_places(tmp_path: Path) -> None:
    files = write_pair(
        tmp_path, replace(moving_grid(UTM, 10.0), transform=(10.0, 0.0, 600000.0, 0.0, -10.0, ORIGIN[1]))
    )
    with pytest.raises(NoOverlapError) as caught:
        register(files.moving, files.reference)
    assert str(files.moving) in str(caught.value)
    assert str(files.reference) in str(caught.value)


def test_crs_in_one_only(files: Files, tmp_path: Path) -> None:
    with rasterio.open(files.moving) as file:
        data = file.read()
    naked = write(tmp_path / "naked.tif", data, replace(files.moving_grid, crs=None))
    with pytest.raises(GeoreferenceError, match="CRS"):
        register(naked, files.reference)


def test_assume_crs_mends_a_file_without_crs(files: Files, file_result: Result, saved: Path, tmp_path: Path) -> None:
    with rasterio.open(files.moving) as file:
        data, place = file.read(), {"transform": file.transform, "nodata": 0}
    naked = write(tmp_path / "naked.tif", data, replace(files.moving_grid, crs=None), **place)
    result = register(naked, files.reference, assume_crs=UTM, moving_bands=(1,))
    np.testing.assert_array_equal(result.displacement.array, file_result.displacement.array)
    with (
        rasterio.open(result.save(tmp_path / "out") / "aligned.tif") as mended,
        rasterio.open(saved / "aligned.tif") as expected,
    ):
        np.testing.assert_array_equal(mended.read(), expected.read())


# --- masks in files ---------------------------------------------------------------------------------------------------


def test_declared_nodata_has_no_say_and_no_certainty(files: Files, file_result: Result) -> None:
    assert files.rmse(file_result) < 0.5
    # The corner of 70 x 60 moving pixels without data, where the estimate puts it on the reference.
    there = file_result.transform(pixel_points((SIDE, SIDE))).reshape(SIDE, SIDE, 2)
    corner = (there[..., 0] < 69) & (there[..., 1] < 59)
    assert corner.sum() > 500
    assert not file_result.displacement.certainty[corner].any()
    assert file_result.displacement.certainty[100:160, 100:160].mean() > 0.8


def holes(shape: tuple[int, int]) -> np.ndarray:
    mask = np.full(shape, 255, np.uint8)
    mask[: shape[0] // 3] = 0
    return mask


@pytest.mark.parametrize("how", ["nodata option", "internal mask", "alpha"])
def test_every_kind_of_mask_is_honoured(how: str, tmp_path: Path) -> None:
    """A lure under the mask (the picture 12 px off) must not pull."""
    files = write_pair(tmp_path, moving_grid(UTM, 10.0))
    with rasterio.open(files.moving) as file:
        data = file.read()
    mask = holes(data.shape[1:])
    lure = np.where(mask > 0, data, np.roll(data, 12, axis=2))
    options: dict[str, float] = {}
    files.moving.unlink()
    if how == "nodata option":
        write(files.moving, np.where(mask > 0, data, -77).astype(np.float32), files.moving_grid)
        options = {"moving_nodata": -77.0}
    elif how == "internal mask":
        write(files.moving, lure, files.moving_grid, mask=mask)
    else:
        write(files.moving, np.stack([lure[0], mask.astype(np.float32)]), files.moving_grid, alpha="yes")
        with rasterio.open(files.moving, "r+") as file:
            file.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
    result = register(files.moving, files.reference, **options)
    assert result.moving.data.shape[0] == 1
    np.testing.assert_array_equal(result.moving.mask, mask > 0)
    assert files.rmse(result) < 0.8
    there = result.transform(pixel_points((SIDE, SIDE))).reshape(SIDE, SIDE, 2)
    hidden = there[..., 1] < data.shape[1] // 3 - 1
    assert hidden.sum() > 3000
    assert not result.displacement.certainty[hidden].any()


def test_dark_water_is_not_nodata(tmp_path: Path) -> None:
    def convert(power: np.ndarray) -> np.ndarray:
        amplitude = np.rint(np.sqrt(power) * 400).astype(np.uint16)
        amplitude[:, 150:200, 40:110] = 0  # no nodata value is declared
        return amplitude

    files = write_pair(tmp_path, moving_grid(UTM, 10.0), convert=convert)
    result = register(files.moving, files.reference)
    assert result.moving.mask.all()
    assert files.rmse(result) < 0.5


# --- assess -----------------------------------------------------------------------------------------------------------


def test_assess_tells_how_far_a_pair_is_off(tmp_path: Path) -> None:
    files = write_pair(tmp_path, moving_grid(UTM, 10.0))
    assessment = api.assess(files.moving, files.reference, model="orientation")
    off = float(np.hypot(*files.shift))
    assert assessment.verdict.decision == "review"
    assert assessment.result.verdict.worst != assessment.verdict.worst == ""  # told of an alignment, not of the pair
    assert f"{assessment.misalignment_rmse_px:.2f} px" in assessment.verdict.reasons[0]
    assert assessment.misalignment_rmse_px == pytest.approx(off, abs=0.4)
    assert assessment.misalignment_rmse_m == pytest.approx(10 * off, abs=4)
    assert assessment.offset_px == pytest.approx(files.shift, abs=0.4)


def test_assess_is_content_with_an_aligned_pair(tmp_path: Path) -> None:
    files = write_pair(tmp_path, moving_grid(UTM, 10.0), shift=(0.0, 0.0))
    assessment = api.assess(files.moving, files.reference, model="orientation")
    assert assessment.verdict.decision == "go"
    assert "together" in assessment.verdict.reasons[0]
    assert assessment.misalignment_rmse_px < 0.4


def test_assess_sees_no_common_ground(unrelated: Result) -> None:
    assessment = api.assess(unrelated.moving, unrelated.reference, model="orientation")
    assert assessment.verdict.decision == unrelated.verdict.decision != "go"
    assert assessment.misalignment_rmse_m is None
