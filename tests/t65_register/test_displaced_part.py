"""A mosaic whose seam displaces a part of one image is never *go*; the error of the rest would hide it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg

SIDE = 256


def _crop(name, y, x):
    with rasterio.open(Path(somareg.__file__).parent / "data" / "demo" / name) as file:
        return file.read()[:, y : y + SIDE, x : x + SIDE]


@pytest.mark.parametrize("corner", [(100, 200), (300, 150)])
@pytest.mark.parametrize("model", ["auto", "orientation"])
def test_a_seam_is_told_and_forbids_go(corner, model):
    y, x = corner
    optical, radar = _crop("optical.tif", y, x), _crop("sar.tif", y, x)
    whole = somareg.register(radar, optical, search="local", model=model)
    assert whole.verdict.decision == "go"
    seam = radar.copy()
    seam[..., 180:] = _crop("sar.tif", y, x - 24)[..., 180:]
    cut = somareg.register(seam, optical, search="local", model=model)
    assert cut.verdict.decision != "go"
    assert (
        np.median(np.abs(cut.transform([[60.0, 60.0], [60.0, 190.0]]) - whole.transform([[60.0, 60.0], [60.0, 190.0]])))
        < 2
    )
    assert any("of the frame fits better" in reason for reason in cut.verdict.reasons)
