"""The raster that is warped: an open file or an array in memory, seen the same way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from somareg.errors import ConfigError
from somareg.geometry.resample import Kernel
from somareg.io.dataarray import ArrayHeader, is_dataarray, kept_attributes, read_header
from somareg.io.masks import check_mask_values, open_mask
from somareg.io.source import Block, RasterSource, open_source
from somareg.io.validity import differs
from somareg.io.writer import GeotiffSpec, opaque, storable_dtype, storable_nodata
from somareg.types import BoolArray, Estimate, Grid, Raster, Reading
from somareg.warp.fill import one_nodata
from somareg.warp.reading import Claims, reading_for

if TYPE_CHECKING:
    import xarray

log = logging.getLogger("somareg.warp")

Pixels = tuple[NDArray[Any], BoolArray]


@dataclass(frozen=True, eq=False)
class Subject:
    """What the engine reads from and what it must keep.

    Attributes:
        name: what messages call it.
        grid, dtype, count: place, pixel type and number of bands, alpha bands too.
        read: block -> pixels (C, h, w) and per-band mask (C, h, w).
        nodata: value for invalid pixels, None where there is none that the dtype can hold.
        is_classes: a palette or mask, whose values must not be mixed.
        alphas: indices of the alpha bands, from 0.
        is_shown_by_alpha: whether the last of them says what is valid: it is above 0 there.
        has_mask: whether a mask band says what is valid, whatever value a pixel has.
        metadata: keyword arguments of `GeotiffSpec` that go into the output unchanged.
    """

    name: str
    grid: Grid
    dtype: np.dtype[Any]
    count: int
    read: Callable[[Block], Pixels]
    nodata: float | None
    is_classes: bool
    alphas: tuple[int, ...] = ()
    is_shown_by_alpha: bool = False
    has_mask: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def kernel(self, wanted: Kernel) -> Kernel:
        """The wanted kernel, or "nearest" where values must not be mixed."""
        if self.is_classes and wanted != "nearest":
            log.info("%s holds classes; sampled with 'nearest' instead of '%s'", self.name, wanted)
            return "nearest"
        return wanted

    @property
    def fill(self) -> float:
        """Value written to invalid pixels; alpha bands hold 0 there."""
        if self.dtype.kind in "fc" and (self.nodata is None or self.has_mask):
            return float("nan")  # bands may differ behind one mask
        return 0.0 if self.nodata is None else self.nodata

    @property
    def _is_alpha_enough(self) -> bool:
        """Whether GDAL knows valid pixels of the output by its alpha band."""
        last = self.count - 1
        return self.is_shown_by_alpha and last in (1, 3) and last in self.alphas and self.dtype in ("uint8", "uint16")

    def output_spec(self, grid: Grid, tags: Mapping[str, str], *, averaged_overviews: bool) -> GeotiffSpec:
        """The GeoTIFF that will hold it on another grid; without nodata value or alpha, a mask marks the outside."""
        kept = dict(self.metadata)
        kept["tags"] = {**kept["tags"], **tags}
        return GeotiffSpec(
            grid=grid,
            dtype=storable_dtype(self.dtype),
            count=self.count,
            nodata=self.nodata,
            has_mask=self.has_mask or (self.nodata is None and not self._is_alpha_enough),
            averaged_overviews=averaged_overviews,
            **kept,
        )


@contextmanager
def open_subject(
    raster: Raster | xarray.DataArray | str | Path,
    estimate: Estimate,
    said: Reading,
    bands: Sequence[int] | None = None,
    *,
    classes: bool = False,
) -> Iterator[Subject]:
    """A `Subject` of a raster in memory, a DataArray or a file.

    Args:
        raster: what is warped.
        estimate: remembers how the moving image was read.
        said: how this raster is to be read.
        bands: 1-based bands of it that are written; default all.
        classes: whether its values are classes, as far as somebody said so.

    Raises:
        ConfigError: a band that it does not have, or classes of a mask that is not given.
        SomaregError: as `read_header`, `open_source` and `open_mask`.
    """
    check_mask_values(said.mask, said.mask_values, "mask_values")
    with ExitStack() as stack:
        if isinstance(raster, Raster):
            declares = raster.nodata is not None or not raster.mask.all() or raster.band_masks is not None
            claims = Claims(raster.grid, declares=declares, is_classes=classes or raster.data.dtype == bool)
            reading = reading_for(claims, estimate, said)
            subject = _from_memory(raster, reading.nodata)
        elif is_dataarray(raster):
            header = read_header(raster, "input", said.nodata)
            is_bool = header.bands.dtype.kind == "b"
            claims = Claims(header.grid, declares=header.nodata is not None, is_classes=classes or is_bool)
            reading = reading_for(claims, estimate, said)
            header = replace(header, nodata=header.nodata if reading.nodata is None else reading.nodata)
            subject = _from_dataarray(header)
        else:
            subject, reading = _from_file(stack, cast(str | Path, raster), estimate, said, classes=classes)
        if bands is not None:
            subject = _chosen(subject, bands)
        if reading.mask is not None:
            mask = stack.enter_context(
                open_mask(reading.mask, reading.mask_values, subject.grid, subject.name, "input")
            )
            for note in mask.notes:
                log.info(note)
            subject = replace(subject, read=_masked(subject.read, mask.valid))
        yield subject


def _masked(read: Callable[[Block], Pixels], valid: Callable[[Block], BoolArray]) -> Callable[[Block], Pixels]:
    def both(block: Block) -> Pixels:
        data, mask = read(block)
        return data, mask & valid(block)

    return both


def _from_file(
    stack: ExitStack, path: str | Path, estimate: Estimate, said: Reading, *, classes: bool
) -> tuple[Subject, Reading]:
    """The file as it is to be read, and how that is."""
    with open_source(path, role="input", tell=False) as source:
        claims = Claims(
            source.grid,
            declares=not source.validity.has_none,
            is_classes=classes or bool(source.colormap),
            path=Path(path),
            has_alpha=bool(source.alphas),
        )
        reading = reading_for(claims, estimate, said)
    source = stack.enter_context(
        open_source(
            path,
            role="input",
            nodata=reading.nodata,
            bands=reading.bands,
            gcp_method=cast(Any, reading.gcp_method or "auto"),
        )
    )
    channels = tuple(source.dataset.indexes)
    about = source.dataset
    return Subject(
        name=source.name,
        grid=source.grid,
        dtype=source.dtype,
        count=len(channels),
        read=lambda block: source.read(block, channels),
        nodata=_output_nodata(source),
        is_classes=bool(source.colormap),
        alphas=tuple(band - 1 for band in source.alphas),
        is_shown_by_alpha=source.validity.follows_alpha,
        has_mask=source.validity.has_mask,
        metadata={
            "descriptions": tuple(text or "" for text in about.descriptions),
            "colorinterp": source.all_colorinterp,
            "scales": about.scales,
            "offsets": about.offsets,
            "units": tuple(text or "" for text in about.units),
            "tags": source.tags,
            "band_tags": tuple(_own_tags(about.tags(i)) for i in channels),
            "colormap": source.colormap,
        },
    ), reading


def _own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("STATISTICS_")}


def _output_nodata(source: RasterSource) -> float | None:
    """The one value that a GeoTIFF can declare for all bands."""
    declared = {storable_nodata(value, source.dtype) for value in source.nodatas}
    if len(declared) == 1:
        return declared.pop()
    if all(value is not None and np.isnan(value) for value in declared):
        return float("nan")
    return one_nodata(source)


def _from_dataarray(header: ArrayHeader) -> Subject:
    """Blocks are computed as they are read."""
    dtype = header.bands.dtype
    is_bool = dtype.kind == "b"
    return Subject(
        name=f"input DataArray {header.bands.name or ''}".strip(),
        grid=header.grid,
        dtype=dtype,
        count=header.bands.shape[0],
        read=lambda block: header.read(*block),
        nodata=None if is_bool else storable_nodata(header.nodata, dtype),
        is_classes=is_bool,
        metadata={
            "descriptions": header.descriptions,
            "colorinterp": (),
            "scales": header.scales,
            "offsets": header.offsets,
            "units": header.units,
            "tags": {**_texts(kept_attributes(header.bands)), **header.tags},
        },
    )


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Attributes as the tags of a file."""
    return {key: str(value.tolist() if isinstance(value, np.ndarray) else value) for key, value in attributes.items()}


def _from_memory(raster: Raster, nodata: float | None) -> Subject:
    """Alpha bands stand where `colorinterp` says; without values of theirs, the mask makes them."""
    names = raster.colorinterp
    alphas = tuple(i for i, name in enumerate(names) if name == "alpha") if len(names) > raster.count else ()
    count, dtype = raster.count + len(alphas), raster.data.dtype
    is_bool = dtype.kind == "b"
    order = np.argsort([*(i for i in range(count) if i not in alphas), *alphas])

    def read(block: Block) -> Pixels:
        part = slice(block.y, block.y + block.height), slice(block.x, block.x + block.width)
        data, mask = raster.data[(slice(None), *part)], raster.valid[(slice(None), *part)]
        if nodata is not None:
            mask = mask & differs(data, nodata)
        if not alphas:
            return data, mask
        seen = raster.mask[part]
        shown = (seen * opaque(dtype)).astype(dtype)[None] if raster.alpha is None else raster.alpha[:, *part]
        shown = np.broadcast_to(shown, (len(alphas), *seen.shape)).astype(dtype, copy=False)
        both = np.concatenate([data, shown]), np.concatenate([mask, np.broadcast_to(seen, shown.shape)])
        return both[0][order], both[1][order]

    value = raster.nodata if nodata is None else nodata
    per_band = {name: getattr(raster, name) for name in ("descriptions", "scales", "offsets", "units")}
    defaults = {"descriptions": "", "scales": 1.0, "offsets": 0.0, "units": ""}
    return Subject(
        name=raster.name,
        grid=raster.grid,
        dtype=dtype,
        count=count,
        read=read,
        nodata=None if is_bool else storable_nodata(value, dtype),
        is_classes=is_bool,
        alphas=alphas,
        is_shown_by_alpha=value is None and count - 1 in alphas,
        metadata={
            **{name: _with_alphas(values, alphas, defaults[name]) for name, values in per_band.items()},
            "colorinterp": names,
            "tags": {**_texts(kept_attributes(raster.origin)), **raster.tags},
        },
    )


def _with_alphas(values: Sequence[Any], alphas: tuple[int, ...], default: Any) -> tuple[Any, ...]:
    """Values of the data bands, with a default at the places of alpha bands."""
    filled = list(values)
    for place in alphas if filled else ():
        filled.insert(place, default)
    return tuple(filled)


def _chosen(subject: Subject, bands: Sequence[int]) -> Subject:
    """Some bands of a subject, from 1."""
    for band in bands:
        if not 1 <= band <= subject.count:
            raise ConfigError(f"{subject.name} has no band {band}; choose from 1 to {subject.count}")
    picked = [band - 1 for band in bands]

    def read(block: Block) -> Pixels:
        data, mask = subject.read(block)
        return data[picked], mask[picked]

    per_band = ("descriptions", "colorinterp", "scales", "offsets", "units", "band_tags")
    kept = {
        name: tuple(values[i] for i in picked) if name in per_band and values else values
        for name, values in subject.metadata.items()
    }
    alphas = tuple(new for new, old in enumerate(picked) if old in subject.alphas)
    return replace(subject, count=len(picked), read=read, alphas=alphas, metadata=kept)
