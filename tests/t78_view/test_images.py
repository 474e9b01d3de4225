"""Files as the viewer sees them: what is valid there is what is valid everywhere."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from somareg.view.images import SceneImage
from somareg.view.pyramid import Area

SIDE = 96
SOFT = np.broadcast_to(np.arange(SIDE), (SIDE, SIDE))


def save(path: Path, data: np.ndarray, *colours: str, driver: str = "GTiff", nodatas: tuple[float, ...] = ()) -> Path:
    shape = {"count": len(data), "height": SIDE, "width": SIDE, "dtype": data.dtype}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", driver=driver, **shape) as file:
        if colours:
            file.colorinterp = [ColorInterp[name] for name in colours]
        file.write(data)
        if nodatas:
            file._set_nodatavals(list(nodatas))
    return path


def seen(path: Path, step: float = 1.0, named: list[int] | None = None) -> np.ndarray:
    image = SceneImage(path, "moving", named=named)
    try:
        return image.picture(Area(0, 0, step, int(SIDE / step), int(SIDE / step)))[1]
    finally:
        image.close()


@pytest.mark.parametrize("step", [1.0, 2.0])
def test_a_soft_alpha_hides_only_what_it_hides(tmp_path: Path, step: float) -> None:
    data = np.stack([np.full((SIDE, SIDE), 90)] * 3 + [SOFT // 10 * 10]).astype(np.uint8)
    path = save(tmp_path / "a.tif", data, "red", "green", "blue", "alpha")
    width = int(SIDE / step)
    np.testing.assert_array_equal(seen(path, step), np.broadcast_to(np.arange(width) >= 10 / step, (width, width)))
    assert seen(path, step, named=[1, 2, 3, 4]).all()


def test_each_band_has_its_own_nodata_value(tmp_path: Path) -> None:
    data = np.full((3, SIDE, SIDE), 50, np.int16)
    for band, value in enumerate((-1, -2000, -3000)):
        data[band, band * 10 : band * 10 + 5] = value
    path = save(tmp_path / "a.img", data, driver="HFA", nodatas=(-1, -2000, -3000))
    np.testing.assert_array_equal(seen(path), (data > 0).all(axis=0))
