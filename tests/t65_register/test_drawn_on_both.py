"""A drawing that two images share is no evidence: it neither aligns strangers nor holds a pair where it was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg
from somareg.lab.evaluate.verdict.situations import SITUATIONS

SIDE = 200


@pytest.fixture(scope="module")
def demo():
    """The real pair of the package as bytes with little contrast, as most radar and many optical images have."""
    folder = Path(somareg.__file__).parent / "data" / "demo"
    images = []
    for name in ("sar.tif", "optical.tif"):
        with rasterio.open(folder / name) as file:
            data = file.read().astype(np.float32)
        low, high = np.percentile(data, [1, 99])
        images.append(np.clip(40 + 90 * (data - low) / (high - low), 1, 200).astype(np.uint8))
    return images


@pytest.mark.parametrize("name", ["watermark", "outlines"])
def test_strangers_with_one_drawing_are_no_go(demo, name):
    moving, reference = demo[0][:, 450:, 450:][:, :SIDE, :SIDE], demo[1][:, 40:, 60:][:, :SIDE, :SIDE]
    result = somareg.register(*SITUATIONS[name].on(moving, reference, 3))
    assert result.verdict.decision == "no-go"
    assert any("drawn at the same pixels" in note for note in result.notes)


def test_a_pair_is_aligned_by_its_ground_and_not_by_the_drawing(demo):
    moving, reference = demo[0][:, 52:, 47:][:, :SIDE, :SIDE], demo[1][:, 46:, 55:][:, :SIDE, :SIDE]
    clean = somareg.register(moving, reference)
    drawn = somareg.register(*SITUATIONS["outlines"].on(moving, reference, 4))
    grid = np.array([[40.0, 40.0], [160.0, 40.0], [100.0, 100.0], [40.0, 160.0], [160.0, 160.0]])
    assert np.abs(clean.transform(grid) - grid).min(axis=0).max() > 5  # the drawing would say 0
    apart = np.linalg.norm(drawn.transform(grid) - clean.transform(grid), axis=1)
    assert apart.mean() < 1.5
