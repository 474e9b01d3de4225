"""`Result.save` and `warp`: all files or none, and what is written can be applied again."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import somareg
from somareg import register_into
from somareg.errors import ConfigError, EstimationError, OutputError
from somareg.geometry.resample import resample
from somareg.io import read_estimate
from somareg.register import save as outputs
from somareg.report import load_report
from somareg.types import Result
from tests.synthetic import pixel_points
from tests.t65_register.conftest import REFERENCE, SIDE, Files, register, write

NAMES = {
    "aligned.tif",
    "displacement.tif",
    "tie_points.geojson",
    "gcps.points",
    "aligned.qgz",
    "displacement.qml",
    "report.json",
    "report.html",
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_files(saved: Path, file_result: Result) -> None:
    assert file_result.verdict.decision == "go"
    assert names(saved) == NAMES
    assert names(saved.parent) == {"out"}  # no temporary name is left


@pytest.mark.parametrize(
    ("reports", "decision", "has_page"),
    [
        ("all", "go", True),
        ("problems", "go", False),
        ("none", "go", False),
        ("problems", "review", True),
        ("problems", "no-go", True),
        ("none", "no-go", False),
    ],
)
def test_the_page_is_left_out_and_nothing_else(
    file_result: Result, tmp_path: Path, reports: Any, decision: Any, has_page: bool
) -> None:
    result = replace(file_result, verdict=replace(file_result.verdict, decision=decision))
    out = result.save(tmp_path / "out", reports="all", force=True)
    whole = load_report(out / "report.json")
    result.save(out, reports=reports, force=True, overwrite=True)
    assert names(out) == NAMES - (
        {"report.html"} if not has_page else set()
    )  # an earlier page would tell of an earlier run
    again = load_report(out / "report.json")
    assert again.model_copy(update={"created": whole.created}) == whole


def test_reports_are_asked_for_by_their_names(file_result: Result, files: Files, tmp_path: Path) -> None:
    for save in (file_result.save, partial(register_into, files.moving, files.reference)):
        with pytest.raises(ConfigError, match=r"unknown reports 'problem'\. Did you mean 'problems'"):
            save(tmp_path / "out", reports="problem")  # type: ignore[operator]
    assert not (tmp_path / "out").exists()


def test_aligned_keeps_dtype_bands_and_metadata_on_the_reference_grid(saved: Path, files: Files) -> None:
    with rasterio.open(saved / "aligned.tif") as aligned, rasterio.open(files.moving) as moving:
        assert aligned.count == 2
        assert aligned.dtypes == moving.dtypes == ("uint16", "uint16")
        assert aligned.descriptions == ("VV", "VV upside down")
        assert aligned.nodata == 0
        assert aligned.tags()["MISSION"] == "synthetic"
        assert aligned.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert aligned.shape == (SIDE, SIDE)
        assert tuple(aligned.transform)[:6] == REFERENCE.transform
        assert aligned.crs.to_epsg() == 32633


def test_aligned_is_the_moving_image_sampled_once_through_the_transform(saved: Path, file_result: Result) -> None:
    where = file_result.transform(pixel_points((SIDE, SIDE))).reshape(SIDE, SIDE, 2)
    expected, valid = resample(file_result.moving.data, file_result.moving.mask, where, kernel="cubic")
    with rasterio.open(saved / "aligned.tif") as file:
        data, mask = file.read(), file.read_masks(1) > 0
    assert mask.mean() == pytest.approx(valid.mean(), abs=0.002)
    both = mask & valid
    difference = np.abs(data[:, both].astype(int) - expected[:, both].astype(int))
    assert float((difference <= 1).mean()) > 0.999
    assert not data[:, ~mask].any()


def test_alignment_raises_the_likeness_to_the_reference(saved: Path, files: Files, file_result: Result) -> None:
    """Registering the aligned image again finds nothing more to do."""
    again = register(saved / "aligned.tif", files.reference, moving_bands=(1,))
    assert again.quality.shift_before_px < 0.4
    assert file_result.quality.shift_before_px > 7
    assert again.quality.similarity_before > file_result.quality.similarity_before + 0.1


@pytest.mark.parametrize("source", ["folder", "displacement.tif", "report.json", "result", "estimate"])
def test_applying_the_saved_estimate_again_gives_the_same_pixels(
    source: str, saved: Path, files: Files, file_result: Result, tmp_path: Path
) -> None:
    estimate = {"folder": saved, "result": file_result, "estimate": file_result.estimate}.get(source, saved / source)
    out = somareg.warp(files.moving, estimate, tmp_path / "again.tif")
    with rasterio.open(saved / "aligned.tif") as first, rasterio.open(out) as second:
        np.testing.assert_allclose(first.read().astype(int), second.read().astype(int), atol=1)
        np.testing.assert_array_equal(first.read_masks(), second.read_masks())


def test_warp_in_memory_equals_warp_to_a_file(saved: Path, files: Files, tmp_path: Path) -> None:
    raster = somareg.warp(files.moving, saved)
    with rasterio.open(saved / "aligned.tif") as file:
        np.testing.assert_allclose(raster.data.astype(int), file.read().astype(int), atol=1)  # type: ignore[union-attr]


def test_warp_of_a_mask_with_other_pixels(saved: Path, files: Files, tmp_path: Path) -> None:
    """A class map of the moving ground at 30 m follows the same estimate and keeps its classes."""
    grid = files.moving_grid
    coarse = type(grid)(
        grid.width // 3, grid.height // 3, (30.0, 0.0, grid.transform[2], 0.0, -30.0, grid.transform[5]), grid.crs
    )
    classes = np.random.default_rng(0).choice(np.array([3, 7, 200], np.uint8), (1, *coarse.shape))
    path = write(tmp_path / "classes.tif", classes, coarse)
    out = somareg.warp(path, saved, tmp_path / "warped.tif", resampling="nearest")
    with rasterio.open(out) as file:
        data, mask = file.read(1), file.read_masks(1) > 0
    assert set(np.unique(data[mask])) == {3, 7, 200}
    where = (coarse.to_pixel(grid.to_map(read_estimate_to_moving(saved, files))) + 0.5).astype(int)
    x, y = where.T.reshape(2, SIDE, SIDE)
    inside = mask & (x >= 0) & (y >= 0) & (x < coarse.width) & (y < coarse.height)
    assert inside.mean() > 0.9
    same = data[inside] == classes[0][y[inside], x[inside]]
    assert same.mean() > 0.995  # but for pixels on the line between two


def read_estimate_to_moving(saved: Path, files: Files) -> np.ndarray:
    estimate = read_estimate(saved)
    return files.moving_grid.to_pixel(REFERENCE.to_map(estimate.correction(pixel_points((SIDE, SIDE)))))


def test_displacement_file_holds_the_displacement(saved: Path, file_result: Result) -> None:
    with rasterio.open(saved / "displacement.tif") as file:
        bands, text = file.read(), file.descriptions
    assert text == ("dx", "dy", "certainty", "sigma")
    np.testing.assert_array_equal(bands[:2], file_result.displacement.array)
    np.testing.assert_array_equal(bands[2], file_result.displacement.certainty)
    np.testing.assert_array_equal(bands[3], file_result.displacement.sigma)
    points = np.random.default_rng(0).uniform(-40, 230, (300, 2))  # beyond the grid as well
    estimate = read_estimate(saved)
    np.testing.assert_allclose(estimate.correction(points), file_result.correction(points), atol=0.02)


def test_report_and_points_tell_the_same_story(saved: Path, file_result: Result, files: Files) -> None:
    record = json.loads((saved / "report.json").read_text())
    text = json.dumps(record)
    assert record["verdict"]["decision"] == "go"
    assert record["quality"]["n_points"] == file_result.quality.n_points
    assert file_result.moving.sha256 in text
    assert str(files.moving.name) in text
    assert len(json.loads((saved / "tie_points.geojson").read_text())["features"]) == len(file_result.tie_points)
    assert (saved / "gcps.points").read_text().count("\n") >= len(file_result.tie_points)
    page = (saved / "report.html").read_text()
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_no_go_writes_no_aligned_image_unless_forced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    moving = rng.gamma(4, 0.1, (96, 96)).astype(np.float32)
    result = register(moving, np.full((96, 96), 30, np.uint8))
    assert result.verdict.decision == "no-go"
    assert names(result.save(tmp_path / "plain")) == NAMES - {"aligned.tif"}
    assert names(result.save(tmp_path / "forced", force=True)) == NAMES
    with rasterio.open(tmp_path / "forced" / "aligned.tif") as file:
        np.testing.assert_array_equal(file.read(1), moving)  # at rest, bit by bit


@pytest.fixture(scope="module")
def failed(files: Files) -> Result:
    """Another place, on the same map: matched, judged no-go."""
    with rasterio.open(files.reference) as file:
        shape = file.count, *file.shape
    noise = np.random.default_rng(5).gamma(4, 30, shape[-2:]).astype(np.float32)
    elsewhere = write(files.reference.parent / "elsewhere.tif", noise[None], REFERENCE)
    return register(elsewhere, files.reference)


def test_no_go_claims_nothing_anywhere(failed: Result, tmp_path: Path) -> None:
    """Neither an error nor a certainty: null in files, NaN in Python, no word of it on the page."""
    assert failed.verdict.decision == "no-go"
    assert len(failed.tie_points) > 0  # it was matched, and has figures that could be told
    quality = failed.quality
    assert quality.metres is not None
    told = (
        *(failed.predicted_rmse_px, quality.predicted_rmse_px, quality.predicted_ce90_px),
        *(quality.metres.predicted_rmse_m, quality.metres.predicted_ce90_m),
        *(failed.verdict.predicted_rmse_px, failed.verdict.predicted_rmse_m),
        *(quality.worst_px, quality.metres.worst_m, quality.unseen_share),
    )
    assert np.isnan(told).all()
    assert (quality.worst_place, quality.cells, failed.verdict.worst, failed.previews.closeups) == ("", (), "", ())
    assert not failed.displacement.certainty.any()
    assert np.isnan(failed.displacement.sigma).all()
    assert failed.verdict.headline.endswith("; the error is not known.")
    out = failed.save(tmp_path / "out", force=True, stac=True)
    report = json.loads((out / "report.json").read_text())
    assert report["verdict"]["headline"] == failed.verdict.headline
    for name in ("predicted_rmse", "predicted_ce90"):
        assert report["figures"][name] == {"px": None, "m": None}
        assert report["quality"][f"{name}_px"] is report["quality"][f"{name}_m"] is None
    assert report["error_map"] is report["quality"]["worst_place"] is report["quality"]["unseen_share"] is None
    properties = json.loads((out / "item.json").read_text())["properties"]
    assert properties["somareg:predicted_rmse_px"] is properties["somareg:predicted_rmse_m"] is None
    assert properties["somareg:headline"] == failed.verdict.headline
    assert "accuracy:geometric_rmse" not in properties
    page = (out / "report.html").read_text()
    assert failed.verdict.headline in page
    assert 'Predicted error after</dt>\n<dd><span class="big">–</span>' in page
    for claim in ("explain everything", "Where, and by how much", 'class="closeup"', "figure-error"):
        assert claim not in page
    with rasterio.open(out / "displacement.tif") as file:
        assert not file.read(3).any()
        assert np.isnan(file.read(4)).all()
    for name in ("aligned.tif", "displacement.tif"):
        with rasterio.open(out / name) as file:
            tags = file.tags()
        assert tags["SOMAREG_VERDICT"] == "no-go"
        assert float(tags["SOMAREG_PROBABILITY"]) == pytest.approx(failed.verdict.probability, rel=1e-4)
        assert not [tag for tag in tags if "PREDICTED" in tag]
    for known in (failed, failed.estimate, out):
        with pytest.raises(EstimationError, match="no-go"):
            somareg.warp(failed.moving.data, known)
    assert somareg.warp(failed.moving.data, out, force=True).tags["SOMAREG_VERDICT"] == "no-go"


def test_what_is_judged_well_says_so_everywhere(saved: Path, file_result: Result) -> None:
    verdict, quality = file_result.verdict, file_result.quality
    assert quality.metres is not None
    assert (verdict.predicted_rmse_px, verdict.predicted_rmse_m) == (
        quality.predicted_rmse_px,
        quality.metres.predicted_rmse_m,
    )
    assert file_result.estimate.verdict is verdict
    known = read_estimate(saved).verdict
    assert known is not None
    assert known.headline == replace(verdict, worst="").headline  # tags hold figures, no sentences
    record = json.loads((saved / "report.json").read_text())
    assert record["verdict"]["headline"] == verdict.headline == f"{known.headline} {quality.worst_place}"
    assert record["error_map"]["worst_place"] == quality.worst_place != ""
    assert (saved / "report.html").read_text().count(quality.worst_place) == 1
    for name in ("aligned.tif", "displacement.tif"):
        with rasterio.open(saved / name) as file:
            tags = file.tags()
        assert tags["SOMAREG_VERDICT"] == "go"
        for tag, value in {
            "SOMAREG_PROBABILITY": verdict.probability,
            "SOMAREG_PREDICTED_RMSE_PX": verdict.predicted_rmse_px,
            "SOMAREG_PREDICTED_RMSE_M": verdict.predicted_rmse_m,
        }.items():
            assert float(tags[tag]) == pytest.approx(value, rel=1e-4)


def test_demands_make_a_go_a_review(files: Files) -> None:
    free = register(files.moving, files.reference)
    error = free.predicted_rmse_px
    assert free.verdict.decision == "go"
    for option, value in {"max_error": error / 2, "max_error_m": 5 * error, "min_probability": 1.0}.items():
        got = register(files.moving, files.reference, **{option: value})  # type: ignore[arg-type]
        assert got.verdict.decision == "review"
        assert f"({option})" in got.verdict.reasons[0]
        assert got.predicted_rmse_px == pytest.approx(error)
        assert got.settings[option] == value


def test_metres_are_asked_for_where_there_are_some(result: Result) -> None:
    moving, reference = result.moving.data, result.reference.data
    for ask in (register, somareg.assess):
        with pytest.raises(ConfigError, match="max_error_m needs a georeferenced reference; use max_error"):
            ask(moving, reference, max_error_m=20)
    with pytest.raises(ConfigError, match="max_error and max_error_m are both given"):
        register(moving, reference, max_error=2, max_error_m=20)


def test_an_existing_folder(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("three years")
    with pytest.raises(OutputError, match="not empty"):
        result.save(out)
    assert names(out) == {"thesis.doc"}
    (out / "report.json").write_text("old")
    result.save(out, overwrite=True)
    assert names(out) == NAMES | {"thesis.doc"}
    assert (out / "thesis.doc").read_text() == "three years"
    assert json.loads((out / "report.json").read_text())["verdict"]["decision"] == "go"


def test_overwriting_with_a_no_go_removes_the_old_aligned_image(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    flat = register(np.full((80, 80), 3.0), np.full((80, 80), 30, np.uint8))
    flat.save(tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == NAMES - {"aligned.tif"}


def test_a_failure_while_writing_names_the_folder_and_leaves_nothing(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        raise OutputError(f"disk full while writing {path}; make room and run again")

    monkeypatch.setattr(outputs, "write_displacement", fail)
    with pytest.raises(OutputError) as caught:
        result.save(tmp_path / "out")
    assert str(tmp_path / "out" / "displacement.tif") in str(caught.value)
    assert ".part" not in str(caught.value)
    assert names(tmp_path) == set()


def test_arrays_can_be_saved_and_warped(result: Result, tmp_path: Path) -> None:
    out = result.save(tmp_path / "out")
    with rasterio.open(out / "aligned.tif") as file:
        data, mask = file.read(), file.read_masks(1) > 0
    assert data.dtype == np.float32
    again = somareg.warp(result.moving.data, out)
    np.testing.assert_allclose(again.data[:, mask], data[:, mask], rtol=1e-3, atol=1e-3)  # type: ignore[union-attr]
    smaller = somareg.warp(result.moving.data[:, ::2, ::2], out, resampling="nearest")
    assert smaller.data.shape == (1, SIDE, SIDE)  # type: ignore[union-attr]


def test_one_band_reference_has_a_report(tmp_path: Path, result: Result) -> None:
    grey = register(result.moving.data[0], result.reference.data[1], preset="fast")
    assert grey.previews.reference.shape == (SIDE, SIDE)
    assert names(grey.save(tmp_path / "out", force=True)) == NAMES
