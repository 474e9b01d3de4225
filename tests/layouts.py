"""Files of any layout of bands, dtypes, nodata values, masks and alpha bands, and what GDAL says of their pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, MaskFlags

SIDE = 70
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
LOWEST = float(np.finfo("float32").min)


@dataclass(frozen=True)
class Layout:
    """A file: `alpha` is the index of a band, `nodata` one value for all (GTiff) or one for each (HFA)."""

    driver: str
    dtype: str
    count: int
    nodata: tuple[float | None, ...]
    alpha: int | None
    mask: str
    seed: int

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    driver = draw(st.sampled_from(["GTiff", "GTiff", "HFA", "ENVI"]))
    dtype = draw(st.sampled_from(DTYPES if driver != "ENVI" else [d for d in DTYPES if d != "int8"]))
    count = draw(st.integers(1, 6))
    few = [0.0, 1.0, 2.0, 3.0] + ([-1.0, float("nan"), -9999.9, LOWEST] if dtype.startswith("float") else [])
    values = st.none() | st.sampled_from(few)
    own = draw(st.lists(values, min_size=count, max_size=count)) if driver == "HFA" else [draw(values)] * count
    alpha = draw(st.none() | st.integers(0, count - 1)) if driver == "GTiff" and count > 1 else None
    mask = draw(st.sampled_from(["none", "none", "internal", "beside", "values"])) if driver == "GTiff" else "none"
    return Layout(driver, dtype, count, tuple(own), alpha, mask, draw(st.integers(0, 9)))


def write(path: Path, layout: Layout) -> np.ndarray:
    """The file, whose pixels are whole numbers from 0 to 3 and, of floats, some of what nodata values are made of."""
    rng = np.random.default_rng(layout.seed)
    data = rng.integers(0, 4, (layout.count, SIDE, SIDE)).astype(layout.dtype)
    if layout.is_float:
        odd = rng.random(data.shape) < 0.2
        data[odd] = rng.choice([-1, np.nan, -9999.9, LOWEST, np.inf], odd.sum())
    shape = {"count": layout.count, "height": SIDE, "width": SIDE, "dtype": layout.dtype, "driver": layout.driver}
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=layout.mask == "internal"),
        rasterio.open(path, "w", **shape) as file,
    ):
        colours = [ColorInterp.gray] + [ColorInterp.undefined] * (layout.count - 1)
        if layout.alpha is not None:
            colours[layout.alpha] = ColorInterp.alpha
        if layout.driver == "GTiff":
            file.colorinterp = colours
        if layout.driver == "HFA":
            if all(value is not None for value in layout.nodata):
                file._set_nodatavals(list(layout.nodata))
        elif layout.nodata[0] is not None:
            file.nodata = layout.nodata[0]
        if layout.mask == "values":
            file.update_tags(NODATA_VALUES=" ".join(["1"] * layout.count))
        file.write(data)
        if layout.mask in ("internal", "beside"):
            file.write_mask((rng.random((SIDE, SIDE)) < 0.6).astype(np.uint8) * 255)
    return data


def gdal_says(path: Path) -> np.ndarray:
    """`read_masks`, where GDAL says something; else a last band that is flagged alpha, as gdalwarp does."""
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as file:
        masks = file.read_masks() > 0
        last = file.count
        silent = [MaskFlags.all_valid in flags for flags in file.mask_flag_enums]
        if last > 1 and file.colorinterp[-1] == ColorInterp.alpha and silent[-1]:
            masks &= file.read(last) > 0
    return masks
