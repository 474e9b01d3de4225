"""Images, their grids and their metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from somareg.types.brief import brief, count, crs_name, name_of, size_of
from somareg.types.kinds import (
    IDENTITY,
    BoolArray,
    ControlMethod,
    FloatArray,
    Geotransform,
)


class ControlPoints(Protocol):
    """Ground control points and the curve through them; see `somareg.geometry.ground_control.GroundControl`."""

    @property
    def xy(self) -> FloatArray: ...

    @property
    def map_xy(self) -> FloatArray: ...

    @property
    def method(self) -> ControlMethod: ...

    @property
    def is_affine(self) -> bool: ...

    def to_map(self, xy: FloatArray) -> FloatArray: ...

    def to_pixel(self, map_xy: FloatArray) -> FloatArray: ...

    def scaled(self, scale: tuple[float, float]) -> ControlPoints: ...

    def shifted(self, by: tuple[float, float]) -> ControlPoints: ...

    def with_method(self, method: ControlMethod) -> ControlPoints: ...


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of an image are.

    Attributes:
        width, height: pixels.
        transform: affine coefficients (a, b, c, d, e, f) from **corner** pixel coordinates to map coordinates,
            `X = a*col + b*row + c`, `Y = d*col + e*row + f` (rasterio's order); identity when not georeferenced.
        crs: WKT of the coordinate reference system, or None when the image is not georeferenced.
        control: the ground control points that place the pixels when no geotransform does; `transform` is then the
            affine nearest to them, good for sizes and nothing else.
        unnamed_crs: without `crs`, the geotransforms of both images of a pair lead into one system that neither names.
        rpcs: nothing but rational polynomial coefficients (RPCs) places the pixels; they need heights and are not used.
    """

    width: int
    height: int
    transform: Geotransform = IDENTITY
    crs: str | None = None
    control: ControlPoints | None = None
    unnamed_crs: bool = False
    rpcs: bool = False

    def __repr__(self) -> str:
        pixel = "pixel {:.6g} x {:.6g} map units".format(*self.pixel_size) if self.is_georeferenced else ""
        return brief("Grid", size_of(self), _where(self), pixel)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def is_georeferenced(self) -> bool:
        """Whether a CRS, or an unnamed system that both images of a pair share, places the pixels."""
        return self.crs is not None or self.unnamed_crs

    @property
    def has_geotransform(self) -> bool:
        """Whether `transform` is a real geotransform, not the identity or its upside-down form."""
        a, b, c, d, e, f = self.transform
        return self.control is not None or not (
            (a, b, c, d) == (1.0, 0.0, 0.0, 0.0) and abs(e) == 1.0 and f in (0.0, self.height, -self.height)
        )

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Lengths of a pixel's x and y edges in map units."""
        a, b, _, d, e, _ = self.transform
        return float(np.hypot(a, d)), float(np.hypot(b, e))

    def to_map(self, xy: FloatArray) -> FloatArray:
        """Map coordinates (N, 2) of pixel-centre coordinates (N, 2)."""
        if self.control is not None:
            return self.control.to_map(xy)
        a, b, c, d, e, f = self.transform
        col, row = np.asarray(xy, float).T + 0.5
        return np.stack([a * col + b * row + c, d * col + e * row + f], axis=-1)

    def to_pixel(self, map_xy: FloatArray) -> FloatArray:
        """Pixel-centre coordinates (N, 2) of map coordinates (N, 2)."""
        if self.control is not None:
            return self.control.to_pixel(map_xy)
        a, b, c, d, e, f = self.transform
        x, y = np.asarray(map_xy, float).T - np.array([[c], [f]])
        det = a * e - b * d
        return np.stack([(e * x - b * y) / det, (a * y - d * x) / det], axis=-1) - 0.5

    def part(self, x: int, y: int, width: int, height: int) -> Grid:
        """The grid of a rectangle of the image; (x, y) is its first pixel."""
        if (x, y, width, height) == (0, 0, self.width, self.height):
            return self
        a, b, c, d, e, f = self.transform
        has_place = self.crs is not None or self.transform != IDENTITY
        transform = (a, b, a * x + b * y + c, d, e, d * x + e * y + f) if has_place else IDENTITY
        control = self.control.shifted((-x, -y)) if self.control else None
        return replace(self, width=width, height=height, transform=transform, control=control)


@dataclass(frozen=True, slots=True)
class StacOrigin:
    """The STAC Item that an image was found through.

    Attributes:
        item: its id.
        asset: key of the asset.
        href: the Item's own address, else the path of its file, "" for an Item in memory.
        dates: its "datetime", or "start_datetime" and "end_datetime", as written (RFC 3339).
    """

    item: str
    asset: str
    href: str = ""
    dates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """An image in memory with its mask and its place on the ground.

    Attributes:
        data: (C, H, W), the original dtype, real or complex.
        mask: (H, W) bool, True where the pixel is valid; of an image of a result, where all matched bands are.
        grid: where the pixels are.
        name: what messages call it (file path or "moving array").
        path: the file it came from, if any.
        nodata: declared nodata value, if any.
        descriptions: one per band ("" when unnamed).
        tags: dataset-level metadata, kept in outputs.
        colorinterp: one name per band of the file (rasterio's lower-case names), "alpha" where it has a band that is
            none of `data`; () when unknown.
        band_masks: (C, H, W) bool, which pixels of each band are valid; None where `mask` tells it for all of them.
        alpha: (A, H, W) the bands that `colorinterp` calls "alpha", as stored; None where the mask is all there is.
        scales, offsets, units: one per band, () where all are 1, 0 and none; values are as stored.
        sha256: of the file, "" for arrays.
        notes: what was decided while reading ("12 NaN or infinite pixels masked"), for the report.
        origin: the `StacOrigin` or the xarray.DataArray it was made from; None for plain files and arrays.
    """

    data: NDArray[Any]
    mask: BoolArray
    grid: Grid
    name: str = "array"
    path: Path | None = None
    nodata: float | None = None
    descriptions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    colorinterp: tuple[str, ...] = ()
    sha256: str = ""
    notes: tuple[str, ...] = ()
    origin: Any = field(default=None, repr=False)
    band_masks: BoolArray | None = None
    alpha: NDArray[Any] | None = None
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    units: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return _image_in_brief("Raster", self)

    @property
    def valid(self) -> BoolArray:
        """(C, H, W) bool, which pixels of each band are valid."""
        return np.broadcast_to(self.mask, self.data.shape) if self.band_masks is None else self.band_masks

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.data)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.data.dtype

    @property
    def valid_share(self) -> float:
        """Share of the pixels that are valid, 0-1."""
        return float(self.mask.mean()) if self.mask.size else 0.0


@dataclass(frozen=True, eq=False)
class Header:
    """An image without its pixels; they are read each time somebody asks for them.

    Attributes:
        grid, name, path, nodata, descriptions, tags, colorinterp, sha256, notes, origin: as of a `Raster`.
        count, dtype: number and type of the bands.
        valid_share: share of the pixels read so far that are valid, 0-1.
        reader: reads the whole image; its argument `matched` lists the bands that the mask is about.
    """

    grid: Grid
    name: str
    count: int
    dtype: np.dtype[Any]
    reader: Callable[..., Raster] = field(repr=False)
    path: Path | None = None
    nodata: float | None = None
    descriptions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    colorinterp: tuple[str, ...] = ()
    sha256: str = ""
    notes: tuple[str, ...] = ()
    origin: Any = field(default=None, repr=False)
    valid_share: float = 1.0

    def __repr__(self) -> str:
        return _image_in_brief("Header", self)

    @property
    def data(self) -> NDArray[Any]:
        """(C, H, W), read anew each time."""
        return self.reader().data

    @property
    def mask(self) -> BoolArray:
        """(H, W) bool, read anew each time."""
        return self.reader().mask


def _image_in_brief(kind: str, image: Raster | Header) -> str:
    bands = f"{count(image.count, 'band')} {image.dtype}"
    return brief(f"{kind} {name_of(image.name)}:", f"{bands}", size_of(image.grid), _where(image.grid))


def _where(grid: Grid) -> str:
    """Describe in a few words what places the pixels."""
    if grid.crs is None:
        return "georeferenced, CRS not named" if grid.unnamed_crs else "not georeferenced"
    control = f" by {count(len(grid.control.xy), 'ground control point')}" if grid.control is not None else ""
    return f"{crs_name(grid.crs)}{control}"
