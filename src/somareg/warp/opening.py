"""Open a file, a DataArray or an array in memory as a `Subject`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from somareg.errors import ReadError, UnsupportedError
from somareg.io.dataarray import ArrayHeader, is_dataarray, kept_attributes, read_header
from somareg.io.masks import check_mask_values, open_mask
from somareg.io.source import Block, RasterSource, open_source
from somareg.io.validity import differs
from somareg.io.writer import opaque, storable_nodata
from somareg.types import Estimate, Raster, Reading
from somareg.warp.fill import one_nodata
from somareg.warp.reading import Claims, as_named, reading_for
from somareg.warp.subject import Pixels, Subject, chosen, masked

if TYPE_CHECKING:
    import xarray

log = logging.getLogger("somareg.warp")


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
        raster: to warp.
        estimate: knows how the moving image was read.
        said: the user's reading options for this raster.
        bands: 1-based bands to write; default all.
        classes: whether its values are classes, according to the user.

    Raises:
        ConfigError: a band that the raster does not have, or classes without a mask.
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
            subject = chosen(subject, bands)
        if reading.mask is not None:
            try:
                mask = stack.enter_context(
                    open_mask(reading.mask, reading.mask_values, subject.grid, subject.name, "input")
                )
            except (ReadError, UnsupportedError) as error:
                if said.mask is not None:
                    raise
                way = "the moving image was read with it; give its mask anew with --mask, or --mask none"
                raise type(error)(f"{error}; {way}") from error
            for note in mask.notes:
                log.info(note)
            subject = replace(subject, read=masked(subject.read, mask.valid))
        yield replace(subject, reading=reading)


def _from_file(
    stack: ExitStack, path: str | Path, estimate: Estimate, said: Reading, *, classes: bool
) -> tuple[Subject, Reading]:
    """Open a file with the settled reading options."""
    path = as_named(path, estimate)
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
        read=lambda block: source.read(block) if channels == source.bands else source.read(block, channels),
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
    """Wrap a DataArray whose blocks are computed when they are read."""
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
    """Wrap a raster; alpha bands stand where `colorinterp` names them, filled from the mask if they have no values."""
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
        valid = raster.mask[part]
        alpha = (valid * opaque(dtype)).astype(dtype)[None] if raster.alpha is None else raster.alpha[:, *part]
        alpha = np.broadcast_to(alpha, (len(alphas), *valid.shape)).astype(dtype, copy=False)
        both = np.concatenate([data, alpha]), np.concatenate([mask, np.broadcast_to(valid, alpha.shape)])
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
    """Extend per-band values by a default at the places of alpha bands."""
    filled = list(values)
    for place in alphas if filled else ():
        filled.insert(place, default)
    return tuple(filled)
