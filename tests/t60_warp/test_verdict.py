"""The verdict of an estimate goes where the estimate goes: into files, and from there into what is warped."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg
from somareg.errors import EstimationError, InputError
from somareg.geometry import AffineTransform
from somareg.io import read_estimate, write_displacement
from somareg.io.displacement import read_verdict
from somareg.io.shifts import export_shifts
from somareg.io.verdicts import verdict_of_tags, verdict_tags
from somareg.types import Displacement, Estimate, Grid, Raster, Verdict
from somareg.warp.engine import apply

GRID = Grid(80, 70, (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0), "EPSG:32633")
MATRIX = np.array([[1.0, 0, 3], [0, 1, -2]])
GO = Verdict("go", ("It fits.",), 0.9712345, 0.4567, 4.567)
REVIEW = Verdict("review", (), 0.7, 1.5)
NO_GO = Verdict("no-go", (), 0.031)
TAGS = ("SOMAREG_VERDICT", "SOMAREG_PROBABILITY", "SOMAREG_PREDICTED_RMSE_PX", "SOMAREG_PREDICTED_RMSE_M")


def estimate(verdict: Verdict | None) -> Estimate:
    return Estimate(AffineTransform.from_parameters(shift=(3, -2)), GRID, GRID, verdict=verdict)


def saved(path: Path, verdict: Verdict | None, tags: dict[str, str] | None = None) -> Path:
    shift = np.broadcast_to(np.float32([3, -2]).reshape(2, 1, 1), (2, 70, 80)).copy()
    field = Displacement(shift, np.ones((70, 80), np.float32), np.ones((70, 80), np.float32), GRID)
    return write_displacement(path, field, estimate(verdict), MATRIX, tags)


def image(**more: object) -> Raster:
    data = np.arange(1, 80 * 70 + 1, dtype=np.uint16).reshape(1, 70, 80)
    return Raster(data, np.ones((70, 80), bool), GRID, **more)  # type: ignore[arg-type]


def told(path: Path) -> list[str | None]:
    with rasterio.open(path) as file:
        return [file.tags().get(tag) for tag in TAGS]


@pytest.mark.parametrize("verdict", [GO, REVIEW, NO_GO, None])
def test_files_of_an_estimate_keep_the_verdict(tmp_path: Path, verdict: Verdict | None) -> None:
    files = [saved(tmp_path / "displacement.tif", verdict)]
    files.append(export_shifts(files[0], tmp_path / "shifts.tif"))
    for file in files:
        known = read_estimate(file).verdict
        assert read_verdict(file) == known or (known and math.isnan(known.predicted_rmse_m))
        if verdict is None:
            assert known is None
            continue
        assert known is not None
        assert known.decision == verdict.decision
        for name in ("probability", "predicted_rmse_px", "predicted_rmse_m"):
            assert getattr(known, name) == pytest.approx(getattr(verdict, name), rel=1e-5, nan_ok=True)
        assert known.headline == verdict.headline


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (GO, ["go", "0.971235", "0.4567", "4.567"]),
        (REVIEW, ["review", "0.7", "1.5", None]),
        (NO_GO, ["no-go", "0.031", None, None]),
        (None, [None] * 4),
    ],
)
def test_what_is_written_is_tagged(tmp_path: Path, verdict: Verdict | None, expected: list[str | None]) -> None:
    files = saved(tmp_path / "displacement.tif", verdict), estimate(verdict)
    for number, known in enumerate(files):
        out = tmp_path / f"{number}.tif"
        somareg.warp(image(), known, out, force=True)
        assert told(out) == expected
        tags = somareg.warp(image(), known, force=True).tags
        assert [tags.get(tag) for tag in TAGS] == expected


def test_an_earlier_verdict_does_not_stay_on_what_is_warped_again(tmp_path: Path) -> None:
    """The moving image of a second pair may have been aligned in a first one."""
    before = image(tags={**verdict_tags(GO), "MISSION": "S1"})
    for verdict, expected in ((REVIEW, ["review", "0.7", "1.5", None]), (None, [None] * 4)):
        tags = apply(before, estimate(verdict)).tags
        assert [tags.get(tag) for tag in TAGS] == expected
        assert tags["MISSION"] == "S1"
        out = tmp_path / f"{verdict is None}.tif"
        somareg.warp(before, estimate(verdict), out)
        assert told(out) == expected


def test_no_go_is_refused_and_force_applies_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = saved(tmp_path / "displacement.tif", NO_GO), tmp_path / "out.tif"
    raster = tmp_path / "a.tif"
    somareg.warp(image(), estimate(GO), raster)
    for known in (source, tmp_path, estimate(NO_GO)):
        with pytest.raises(EstimationError, match=r"no-go.*3 % chance.*--force \(force=True\)") as caught:
            somareg.warp(raster, known, out)
        assert "\n" not in str(caught.value)
        with pytest.raises(EstimationError, match="no-go"):
            somareg.warp_many([raster], known, tmp_path / "many")
    assert not out.exists()
    assert not (tmp_path / "many").exists()
    caplog.clear()
    somareg.warp(raster, source, out, force=True)
    (done,) = somareg.warp_many([raster], source, tmp_path / "many", force=True)
    assert done.failure is None
    assert done.verdict is not None and done.verdict.decision == "no-go"
    assert told(out) == told(done.output) == ["no-go", "0.031", None, None]
    assert [record.getMessage().count("No-go: 3 % chance") for record in caplog.records] == [1, 1]


@pytest.mark.parametrize(("verdict", "words"), [(REVIEW, REVIEW.headline), (None, "has no verdict"), (GO, "")])
def test_one_line_says_what_is_not_sure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, verdict: Verdict | None, words: str
) -> None:
    raster = tmp_path / "a.tif"
    somareg.warp(image(), estimate(GO), raster)
    caplog.set_level(logging.WARNING, "somareg.warp")
    doors = (
        lambda: somareg.warp(raster, estimate(verdict)),
        lambda: somareg.warp_many([raster, raster], estimate(verdict), tmp_path / "many"),
    )
    for door in doors:
        caplog.clear()
        door()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == (1 if words else 0)
        assert all(words in line and "\n" not in line for line in lines)


def test_a_file_of_an_earlier_version_tells_the_decision_alone(tmp_path: Path) -> None:
    for decision in ("go", "no-go"):
        known = read_estimate(saved(tmp_path / f"{decision}.tif", None, {"SOMAREG_VERDICT": decision})).verdict
        assert known is not None
        assert (known.decision, known.reasons) == (decision, ())
        assert math.isnan(known.probability)
    with pytest.raises(EstimationError, match="No-go: the error is not known"):
        somareg.warp(image(), tmp_path / "no-go.tif")


@pytest.mark.parametrize(
    "tags",
    [
        {"SOMAREG_VERDICT": "maybe"},
        {"SOMAREG_VERDICT": "go", "SOMAREG_PROBABILITY": "very"},
        {"SOMAREG_VERDICT": "go", "SOMAREG_PROBABILITY": "1.5"},
        {"SOMAREG_VERDICT": "go", "SOMAREG_PREDICTED_RMSE_PX": "-1"},
    ],
)
def test_malformed_tags_are_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    path = saved(tmp_path / "displacement.tif", None, tags)
    for read in (read_estimate, read_verdict):
        with pytest.raises(InputError, match="malformed tag SOMAREG_VERDICT"):
            read(path)


def test_no_go_has_no_error_whatever_a_file_says() -> None:
    known = verdict_of_tags({"SOMAREG_VERDICT": "no-go", "SOMAREG_PREDICTED_RMSE_PX": "0.3"})
    assert known is not None
    assert math.isnan(known.predicted_rmse_px)
