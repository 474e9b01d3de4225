"""Every word for what an image shows runs through every engine and both roads; heights find the ground they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import somareg
from somareg.config import make_config
from somareg.geometry import AffineTransform
from somareg.register import choose
from somareg.register.tiles.layout import SceneCfg
from somareg.types import HEIGHTS, Modality, Result
from tests.small_network import save_network, small_network
from tests.synthetic import make_pair, pixel_points
from tests.t65_register.conftest import UTM

WORDS: tuple[Modality, ...] = get_args(Modality)
LIGHT: dict[str, Any] = {"local": False, "preset": "fast", "search": "local", "device": "cpu"}
SIDE = 224


def ground_and_light(
    shape: tuple[int, int] = (SIDE, SIDE),
) -> tuple[NDArray[np.float32], NDArray[np.float32], AffineTransform]:
    """Heights; the same ground under a low sun with a cover of its own; and where it lies in the heights."""
    rng = np.random.default_rng(5)
    large = tuple(side + 60 for side in shape)
    noise = rng.normal(size=large).astype(np.float32)
    heights = sum(width * cv2.GaussianBlur(noise, (0, 0), width) * width for width in (3.0, 7.0, 20.0))
    heights = np.asarray(400 + 80 * heights / heights.std(), np.float32)
    down, right = np.gradient(heights)
    light = (0.5 * right + 0.8 * down) / np.hypot(right, down).std()
    cover = cv2.GaussianBlur(rng.normal(size=large).astype(np.float32), (0, 0), 12.0) * 25
    seen = light + cover + 0.3 * rng.normal(size=large)
    centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    truth = AffineTransform.from_parameters(rotation_deg=2.0, shift=(6.3, -4.6), centre=centre)
    here = (pixel_points(shape) + 30.0).reshape(*shape, 2).astype(np.float32)
    there = (truth.inverse(pixel_points(shape)) + 30.0).reshape(*shape, 2).astype(np.float32)
    return (
        cv2.remap(heights, there[..., 0], there[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT),
        seen[here[..., 1].astype(int), here[..., 0].astype(int)].astype(np.float32),
        truth,
    )


def off(result: Result, truth: AffineTransform) -> float:
    """RMS distance to the truth over the reference, pixels."""
    points = pixel_points(result.reference.grid.shape)
    distance = result.transform(points) - truth(points)
    return float(np.sqrt((distance**2).sum(1).mean()))


@pytest.mark.parametrize("word", sorted(HEIGHTS))
def test_heights_are_laid_on_a_lit_picture_of_them(word: Modality) -> None:
    heights, picture, truth = ground_and_light()
    found = somareg.register(heights, picture, moving_modality=word, device="cpu")
    assert off(found, truth) < 0.7
    assert found.settings["moving_modality"] == word
    assert sum("heights taken as" in note for note in found.notes) == 1
    as_other = somareg.register(heights, picture, moving_modality="other", device="cpu")
    assert found.quality.peak_zscore > as_other.quality.peak_zscore + 1


@pytest.mark.parametrize("scene", ["never", "always"])
def test_heights_with_holes_and_below_the_sea(tmp_path: Path, scene: str) -> None:
    """Files whose no-data is declared, whole and in tiles; either road says what was done."""
    shape = (448, 448)
    heights, picture, truth = ground_and_light(shape)
    heights = heights - 600
    heights[100:140, 60:120] = -32768
    for name, data in (("dem.tif", heights), ("picture.tif", picture)):
        profile = {"driver": "GTiff", "width": shape[1], "height": shape[0], "count": 1, "dtype": "float32", "crs": UTM}
        place = rasterio.Affine(10, 0, 500000, 0, -10, 4650000)
        with rasterio.open(tmp_path / name, "w", transform=place, nodata=-32768, **profile) as file:
            file.write(data, 1)
    sizes = SceneCfg(tile_px=192, overlap_px=32, overview_px=224)
    options: dict[str, Any] = {"scene": scene, "sizes": sizes, "moving_modality": "dem", "device": "cpu"}
    found = somareg.register_into(tmp_path / "dem.tif", tmp_path / "picture.tif", tmp_path / "out", **options)
    assert off(found, truth) < 0.7
    assert bool(found.tiles) == (scene == "always")
    assert sum("heights taken as" in note for note in found.notes) == 1


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("role", ["moving", "reference"])
def test_every_word_runs_weight_free(word: Modality, role: str) -> None:
    image = make_pair(1, 96).reference[:1]
    options: dict[str, Any] = {"moving_modality": "optical", **LIGHT, f"{role}_modality": word}
    found = somareg.register(image, image, model="orientation", **options)
    assert off(found, AffineTransform.identity()) < 0.5


@pytest.mark.parametrize("word", WORDS)
def test_a_network_by_name_takes_every_word(word: Modality, tmp_path: Path) -> None:
    """It knows SAR and optical: what is not SAR goes through the optical branch, however many bands it has become."""
    model = save_network(small_network(), tmp_path / "model.safetensors")
    pair = make_pair(1, 96)
    found = somareg.register(pair.moving, pair.reference[:1], reference_modality=word, model=str(model), **LIGHT)
    assert found.settings["model_used"] == str(model)
    assert np.isfinite(found.displacement.array).all()


@pytest.mark.parametrize("word", [word for word in WORDS if word != "sar"])
def test_the_weights_that_ship_are_for_what_a_camera_sees(word: Modality, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = make_config({"reference_modality": word})
    with_weights = choose.choose_model(cfg, choose.choose_device("cpu"))
    assert (with_weights.network is not None) == (word in {"optical", "multispectral", "nir"})
    swapped = make_config({"moving_modality": word, "reference_modality": word})
    assert choose.choose_model(swapped, choose.choose_device("cpu")).network is None
