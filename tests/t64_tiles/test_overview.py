"""The overview of a scene: the SAR scale is judged by what was measured, not by a collar that nobody declared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from somareg.config import make_config
from somareg.io.source import Block
from somareg.register.images import open_images
from somareg.register.tiles.overview import read_overview

SIDE = 400


def speckle(dtype, scale=1.0):
    ground = np.geomspace(1, 300, SIDE)[:, None] * np.ones(SIDE)
    return (scale * ground * np.random.default_rng(0).gamma(4.0, 0.25, (SIDE, SIDE))).astype(dtype)


@pytest.mark.parametrize(
    ("values", "collar", "scale"),
    [
        (speckle(np.float32, 0.05), -9999.0, "power"),
        (np.sqrt(speckle(np.float64, 40_000)).astype(np.uint16), 0, "amplitude"),
        ((10 * np.log10(speckle(np.float64, 0.05))).astype(np.float32), 0.0, "dB"),
        ((10 * np.log10(speckle(np.float64, 0.05))).astype(np.float32), -9999.0, "dB"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_a_collar_does_not_change_the_scale(tmp_path: Path, values, collar, scale, share) -> None:
    image = values.copy()
    image[:, : round(share * SIDE)] = collar
    path = tmp_path / "sar.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype=image.dtype, crs="EPSG:32633"
    ) as file:
        file.write(image, 1)
    cfg = make_config({"moving_modality": "sar", "reference_modality": "sar"})
    with open_images(str(path), str(path), cfg, again=True) as images:
        found = read_overview(images.moving, Block(0, 0, SIDE, SIDE), 2, "moving", cfg)
    assert found.scale == scale
    assert any(f"SAR values taken as {scale}" in note for note in found.notes)
