"""Slips of who asks are seen: the verdict is no "go", or one line says what was meant."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from somareg.config import make_config
from somareg.errors import ConfigError, OutputError
from somareg.lab.train.config import TrainCfg
from somareg.register import api
from somareg.report.record import load_report
from somareg.types import Result
from somareg.view.folder import find_folder
from tests.t65_register.conftest import UTM, Files, moving_grid, register, write, write_pair

Array = NDArray[Any]


def doubts(result: Result) -> str:
    assert result.verdict.decision != "go"
    return result.verdict.reasons[0]


# --- the same file twice ----------------------------------------------------------------------------------------------


def test_one_file_twice_is_never_go(files: Files, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tif"
    copy.write_bytes(files.moving.read_bytes())
    for other in (files.moving, copy, os.path.relpath(files.moving)):
        assert "are the same file" in doubts(register(files.moving, other))
    assessment = api.assess(files.moving, copy, model="orientation")
    assert assessment.verdict.decision == "review"
    assert "are the same file" in assessment.verdict.reasons[0]
    bands = register(files.moving, files.moving, moving_bands=(1,), reference_bands=(2,))
    assert "are the same file" not in bands.verdict.reasons[0]  # band to band is a question of its own


# --- SAR and optical --------------------------------------------------------------------------------------------------


def four_bands(optical: Array) -> Array:
    """Surface reflectances as they are delivered: uint16, four bands of their own, none of them named."""
    grey = optical[0].astype(np.float32)
    bands = [grey * gain + offset for gain, offset in ((12, 300), (14, 280), (17, 260), (20, 900))]
    return np.stack(bands).astype(np.uint16)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """As `files`, of the size of an ordinary chip."""
    return write_pair(tmp_path_factory.mktemp("large"), moving_grid(UTM, 10.0))


@pytest.mark.parametrize("kind", ["four bands", "one band"])
def test_optical_onto_sar_without_a_word_is_seen(kind: str, large: Files, tmp_path: Path) -> None:
    with rasterio.open(large.reference) as file:
        optical = file.read()
    data = four_bands(optical) if kind == "four bands" else optical
    moving = write(tmp_path / "optical.tif", data, large.reference_grid)
    result = register(moving, large.moving)
    assert "looks optical and the reference like SAR" in doubts(result)
    assert "--moving-modality optical --reference-modality sar" in result.verdict.reasons[0]
    said = register(moving, large.moving, moving_modality="optical", reference_modality="sar")
    assert not any("looks optical" in reason for reason in said.verdict.reasons)
    assert said.verdict.decision == "go"


def test_swapped_words_are_seen(large: Files) -> None:
    result = register(large.moving, large.reference, moving_modality="optical", reference_modality="sar")
    assert "The reference looks optical and the moving image like SAR" in doubts(result)


@pytest.mark.parametrize("convert", ["dB", "complex"])
def test_values_that_no_optical_image_has(convert: str, large: Files, tmp_path: Path) -> None:
    with rasterio.open(large.moving) as file:
        power = file.read()
    data = 10 * np.log10(power + 1e-6) if convert == "dB" else np.sqrt(power).astype(np.complex64)
    sar = write(tmp_path / "sar.tif", data.astype(np.float32) if convert == "dB" else data, large.moving_grid)
    assert "like SAR" in doubts(register(large.reference, sar))
    assert register(sar, large.reference).verdict.decision == "go"


def test_two_optical_images_without_a_word(large: Files, tmp_path: Path) -> None:
    with rasterio.open(large.reference) as file:
        bands = four_bands(file.read())
    both = (("a.tif", bands), ("b.tif", bands[:3]))
    images = [write(tmp_path / name, data, large.reference_grid) for name, data in both]
    assert "4 bands and no speckle" in doubts(register(*images))
    told = register(*images, moving_modality="optical")
    assert not any("speckle" in reason for reason in told.verdict.reasons)


def test_sar_kept_as_three_equal_bands_is_no_colour_picture(large: Files, tmp_path: Path) -> None:
    with rasterio.open(large.moving) as file:
        sar = np.repeat(file.read(), 3, axis=0)
    assert register(write(tmp_path / "grey.tif", sar, large.moving_grid), large.reference).verdict.decision == "go"


# --- options ----------------------------------------------------------------------------------------------------------


def test_both_radii_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="search_radius_px and search_radius_m are both given"):
        make_config({"search_radius_px": 30, "search_radius_m": 300})


@pytest.mark.parametrize("name", ["search_radius_px", "search_radius_m"])
@pytest.mark.parametrize("value", [float("inf"), "inf", float("nan"), 0, -1])
def test_radii_are_finite(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        make_config({name: value})


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**40])
def test_seeds_that_no_generator_takes(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed"):
        make_config({"seed": seed})
    with pytest.raises(ConfigError, match="seed"):
        TrainCfg(seed=seed)


CRS_THAT_ARE_NONE = ["EPSG:99999", "EPSG:0", "EPSG:abc", "ESRI:1", "FOO", "", " ", "32632", "+proj=foo", "PROJCS[]"]


@pytest.mark.parametrize("crs", [*CRS_THAT_ARE_NONE, "EPSG:5773", "EPSG:4978", "/etc/hostname", "http://x.invalid/crs"])
def test_a_crs_that_does_not_exist_is_refused_even_where_it_is_not_needed(crs: str, files: Files) -> None:
    """No file is read and no address called for it either, as GDAL would."""
    with pytest.raises(ConfigError, match="assume_crs") as caught:
        register(files.moving, files.reference, assume_crs=crs or " ")
    assert "\n" not in str(caught.value)


def test_an_assumed_crs_that_is_not_needed_is_told(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "somareg"):
        result = register(files.moving, files.reference, assume_crs="EPSG:4326", moving_bands=(1,))
    told = "assume_crs EPSG:4326 is not used"
    assert any(told in note for note in result.notes)
    assert told in caplog.text


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_not_called_like_a_file(files: Files, file_result: Result, tmp_path: Path) -> None:
    for name in ("aligned.tif", "x.TIFF", "report.json", "points.geojson"):
        with pytest.raises(OutputError, match="called like a file"):
            api.register_into(files.moving, files.reference, tmp_path / name)
        with pytest.raises(OutputError, match="called like a file"):
            file_result.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.tif").mkdir()
    assert file_result.save(tmp_path / "old.tif").is_dir()  # who has such a folder means it
    assert file_result.save(tmp_path / "v1.2").is_dir()


def test_a_report_finds_its_images_from_anywhere(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    for file in (files.moving, files.reference):
        (tmp_path / "work" / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path / "work")
    result = register(files.moving.name, files.reference.name, moving_bands=(1,))
    monkeypatch.chdir("/")  # pixels are read when they are saved: by whole paths
    folder = result.save(tmp_path / "work" / "results" / "out")
    record = load_report(folder / "report.json")
    assert record.moving.path == str(tmp_path / "work" / files.moving.name)
    assert record.moving.path_from_report == f"../../{files.moving.name}"
    found = find_folder(folder)
    assert (found.moving, found.reference) == (tmp_path / "work/sar.tif", tmp_path / "work/optical.tif")
    (tmp_path / "work").rename(tmp_path / "moved")
    found = find_folder(tmp_path / "moved/results/out")
    assert found.moving is not None
    assert found.moving.samefile(tmp_path / "moved/sar.tif")
    assert not found.missing
