"""GeoTIFF outputs: written block by block to a temporary tiled file, made cloud-optimised, checked, then renamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from somareg.errors import OutputError
from somareg.io.atomic import atomic_path, check_writable, output_folder, write_text
from somareg.io.cog import (
    TILE,
    cog_options,
    deflate_level,
    overview_factors,
    overview_resampling,
    passing_compression,
)
from somareg.io.crs import parse_crs
from somareg.io.folders import check_free_space
from somareg.io.gdal_errors import RASTERIO_ERRORS, gdal_cause
from somareg.io.ground_control import gdal_points
from somareg.io.memory import block_cache
from somareg.io.source import Block
from somareg.runtime.quiet import without
from somareg.types import IDENTITY, BoolArray, Grid

__all__ = [
    "GeotiffSpec",
    "GeotiffWriter",
    "atomic_path",
    "check_writable",
    "opaque",
    "output_folder",
    "storable_dtype",
    "storable_nodata",
    "write_geotiff",
    "write_geotiff_blocks",
    "write_text",
]

_CACHE_BYTES = 128 << 20
_PLAIN_BYTES = 64 << 20  # up to this size packing a file that is read once costs more than it saves


@dataclass(frozen=True, eq=False)
class GeotiffSpec:
    """Everything about a GeoTIFF except its pixels.

    Attributes:
        grid, dtype, count: shape and place.
        nodata: declared nodata value.
        has_mask: an internal mask marks valid pixels; `nodata` is then only the value under it.
        descriptions, colorinterp, scales, offsets, units, band_tags: one per band, () for defaults.
        tags: dataset-level metadata.
        colormap: of a palette image.
        averaged_overviews: overviews may mix pixel values (not for classes).
    """

    grid: Grid
    dtype: np.dtype[Any]
    count: int
    nodata: float | None = None
    has_mask: bool = False
    descriptions: Sequence[str] = ()
    colorinterp: Sequence[str] = ()
    scales: Sequence[float] = ()
    offsets: Sequence[float] = ()
    units: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    band_tags: Sequence[Mapping[str, str]] = ()
    colormap: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    averaged_overviews: bool = False

    @property
    def mixes(self) -> bool:
        """Whether overviews mix pixel values."""
        return self.averaged_overviews and not self.colormap


class GeotiffWriter:
    """Takes the blocks of one open output."""

    def __init__(self, dataset: Any, spec: GeotiffSpec) -> None:
        self._dataset = dataset
        self._spec = spec

    def write(self, data: NDArray[Any], block: Block, mask: BoolArray | None = None) -> None:
        """Write pixels (C, h, w) of a block; `mask` (h, w) goes to the internal mask if there is one."""
        spec, window = self._spec, Window(*block)
        self._dataset.write(data.astype(spec.dtype, copy=False), list(range(1, spec.count + 1)), window=window)
        if spec.has_mask:
            alpha = np.full(data.shape[1:], 255, np.uint8) if mask is None else np.where(mask, 255, 0).astype(np.uint8)
            self._dataset.write_mask(alpha, window=window)


@contextmanager
def write_geotiff_blocks(
    path: str | Path, spec: GeotiffSpec, *, cog: bool = True, overwrite: bool = False
) -> Iterator[GeotiffWriter]:
    """Open a writer of blocks; on success the complete and checked file appears under its name.

    Args:
        path: output.
        spec: everything but the pixels.
        cog: cloud-optimised with overviews; plain tiled GeoTIFF otherwise.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists, the folder is read-only or the disk is full; nothing is left behind.
    """
    final = Path(path)
    with atomic_path(final, overwrite=overwrite) as whole:
        size = spec.grid.width * spec.grid.height * spec.count * spec.dtype.itemsize
        check_free_space(final, size)
        tiled = whole.with_name(whole.name.replace(".part", "0.part")) if cog else whole
        try:
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_CACHEMAX=block_cache(_CACHE_BYTES)):
                with _created(tiled, _profile(spec, size, is_final=not cog)) as dataset:
                    _write_metadata(dataset, spec)
                    yield GeotiffWriter(dataset, spec)
                    if cog and (factors := overview_factors(spec.grid.shape)):
                        dataset.build_overviews(factors, overview_resampling(mixing=spec.mixes))
                if cog:
                    rasterio.shutil.copy(tiled, whole, driver="COG", **cog_options(spec.dtype, mixing=spec.mixes))
                _check_complete(whole, spec)
        except RASTERIO_ERRORS as error:
            reason = gdal_cause(error)
            raise OutputError(
                f"writing {final} failed (disk full or damaged?): {reason}; make room and retry"
            ) from error
        finally:
            if cog:
                tiled.unlink(missing_ok=True)


def write_geotiff(
    path: str | Path,
    data: NDArray[Any],
    grid: Grid,
    *,
    mask: BoolArray | None = None,
    nodata: float | None = None,
    descriptions: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    band_tags: Sequence[Mapping[str, str]] | None = None,
    units: Sequence[str] = (),
    colorinterp: Sequence[str] = (),
    averaged_overviews: bool = False,
    cog: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write an image in memory, whole or not at all.

    Args:
        path: output file.
        data: (C, H, W); bool is stored as uint8, float16 as float32.
        grid: its place; (height, width) as `data`.
        mask: (H, W) True where valid. Invalid pixels get `nodata`; without one, an internal mask is written.
        nodata: declared nodata value.
        descriptions: band names.
        tags: dataset-level metadata.
        band_tags: metadata per band.
        units: unit per band.
        colorinterp: colour interpretation per band; a trailing "alpha" writes the mask as an alpha band.
        averaged_overviews: overviews may mix pixel values.
        cog: cloud-optimised with overviews.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        OutputError: the file exists, the folder is read-only or the disk is full; nothing is left behind.
    """
    if data.ndim != 3 or data.shape[1:] != grid.shape:
        raise ValueError(f"data {data.shape} does not fit a grid of {grid.shape}")
    dtype = storable_dtype(data.dtype)
    declared = storable_nodata(nodata, dtype)
    stored = data.astype(dtype, copy=False)
    if mask is not None and declared is not None:
        stored = np.where(mask, stored, np.asarray(declared).astype(dtype))
    has_alpha = len(colorinterp) == len(data) + 1 and colorinterp[-1] == "alpha"
    if has_alpha:
        valid = np.ones(grid.shape, bool) if mask is None else mask
        stored = np.concatenate([stored, (valid * opaque(dtype)).astype(dtype)[None]])
    spec = GeotiffSpec(
        grid=grid,
        dtype=dtype,
        count=len(stored),
        nodata=declared,
        has_mask=mask is not None and declared is None and not has_alpha and not mask.all(),
        descriptions=(*descriptions, *([""] * bool(descriptions and has_alpha))),
        colorinterp=colorinterp,
        units=(*units, *([""] * bool(units and has_alpha))),
        tags=tags or {},
        band_tags=band_tags or (),
        averaged_overviews=averaged_overviews,
    )
    with write_geotiff_blocks(path, spec, cog=cog, overwrite=overwrite) as writer:
        rows = max(1, (1 << 24) // max(1, grid.width)) // TILE * TILE or TILE
        for top in range(0, grid.height, rows):
            block = Block(0, top, grid.width, min(rows, grid.height - top))
            part = slice(top, top + block.height)
            writer.write(stored[:, part], block, None if mask is None else mask[part])
    return Path(path)


def opaque(dtype: np.dtype[Any]) -> float:
    """The opaque value of an alpha band of this dtype."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def storable_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that a GeoTIFF uses for an array's: bool -> uint8, float16 -> float32, else itself."""
    if dtype == np.dtype(bool):
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype == np.dtype(np.float16) else dtype


def storable_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """The nodata value, or None where the dtype cannot hold it."""
    if nodata is None or dtype.kind not in "iu":
        return nodata
    info = np.iinfo(dtype)
    return nodata if float(nodata).is_integer() and info.min <= nodata <= info.max else None


def _created(path: Path, profile: Mapping[str, Any]) -> Any:
    with without(NotGeoreferencedWarning):
        return rasterio.open(path, "w", **profile)


def _profile(spec: GeotiffSpec, size: int, *, is_final: bool) -> dict[str, Any]:
    """Creation options of a file of `size` bytes; one that is not final is read once and deleted."""
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": spec.grid.width,
        "height": spec.grid.height,
        "count": spec.count,
        "dtype": spec.dtype.name,
        "nodata": spec.nodata,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "BIGTIFF": "IF_SAFER",
    }
    if is_final or size > _PLAIN_BYTES:
        packing = {"compress": "deflate", "zlevel": deflate_level(spec.dtype)} if is_final else passing_compression()
        profile |= {**packing, "predictor": {"f": 3, "c": 1}.get(spec.dtype.kind, 2)}
    if spec.grid.crs is not None:
        profile["crs"] = parse_crs(spec.grid.crs, "the CRS to write")
    if spec.grid.control is not None:
        profile["gcps"] = gdal_points(spec.grid.control.xy, spec.grid.control.map_xy)
    elif spec.grid.transform != IDENTITY:
        profile["transform"] = rasterio.Affine(*spec.grid.transform)
    return profile


def _write_metadata(dataset: Any, spec: GeotiffSpec) -> None:
    # Nodata value, mask or alpha mark valid pixels; this tag of GDAL would take precedence over them.
    tags = {key: value for key, value in spec.tags.items() if key not in ("AREA_OR_POINT", "NODATA_VALUES")}
    dataset.update_tags(**tags)
    if spec.descriptions:
        dataset.descriptions = tuple(text or None for text in spec.descriptions)
    for name, default in (("scales", 1.0), ("offsets", 0.0), ("units", "")):
        values = tuple(getattr(spec, name))
        if values and any(value != default for value in values):
            setattr(dataset, name, values)
    for index, own in enumerate(spec.band_tags, 1):
        if own:
            dataset.update_tags(index, **own)
    names = [*(spec.colorinterp or ["gray", *["undefined"] * (spec.count - 1)])]
    interpretations = [name if name in ColorInterp.__members__ else "undefined" for name in names]
    if spec.colormap:
        dataset.write_colormap(1, dict(spec.colormap))
    else:
        dataset.colorinterp = [ColorInterp[name] for name in interpretations]


def _check_complete(path: Path, spec: GeotiffSpec) -> None:
    """Read the last block back, because GDAL does not always raise when the disk is full."""
    with without(NotGeoreferencedWarning):
        dataset = rasterio.open(path, driver="GTiff")
    with dataset:
        if (dataset.width, dataset.height) != (spec.grid.width, spec.grid.height):
            raise OutputError(f"writing {path} failed: it reads back with another size; make room and run again")
        row, column = (n - 1 for n in (dataset.height, dataset.width))
        dataset.read(window=Window(column, row, 1, 1))
