"""Files that hold several images: pages of a TIFF, variables of netCDF, datasets of HDF5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from somareg.errors import InputError, ReadError
from somareg.io.hdf5 import SIGNATURE, check_self_contained
from somareg.io.paths import Named, pick
from somareg.types import IDENTITY

Opener = Callable[[str, Sequence[str]], Any]
"""Opens a GDAL name with the given drivers."""

_HDF5 = ("HDF5", "HDF5Image")


def open_container(place: Named, name: str, opener: Opener) -> Any:
    """Open a variable of a netCDF or HDF5 file; None when the file is neither.

    Raises:
        ReadError: damaged.
        InputError: the file has several variables and the caller names none, or one that it does not have.
        UnsupportedError: the data are stored in other files.
    """
    with place.file.open("rb") as stream:
        head = stream.read(8)
    is_hdf5 = head == SIGNATURE
    if not is_hdf5 and head[:3] != b"CDF":
        return None
    if is_hdf5:
        stat = place.file.stat()
        _check_once(str(place.file), stat.st_size, stat.st_mtime_ns, name)
    file = str(place.file.absolute())
    whole = _first([(file, ("netCDF",)), (file, _HDF5)] if is_hdf5 else [(file, ("netCDF",))], opener)
    names = [text.rpartition(file)[2].lstrip('":') for text in whole.subdatasets]
    if not names and whole.count and not place.part:
        return whole
    whole.close()
    return _variable(
        file, pick(names, place.part, name) if names or not place.part else place.part, opener, is_hdf5=is_hdf5
    )


def open_page(place: Named, name: str, opener: Opener, dataset: Any) -> tuple[Any, str]:
    """Open the requested page of a file, and describe the pages that are not read ("" when there are none).

    Raises:
        InputError: there is no such page.
    """
    count = max(1, len(dataset.subdatasets))
    if not place.part:
        note = f"{name}: page 1 of {count} is read, the others are not; name another as {place.file.name}:2"
        return dataset, note if count > 1 else ""
    if not place.part.isdigit() or not 1 <= int(place.part) <= count:
        dataset.close()
        pages = f"pages 1 to {count}" if count > 1 else "one image only"
        raise InputError(f"{name} names '{place.part}', but the file holds {pages}")
    if count == 1:
        return dataset, ""
    dataset.close()
    return opener(f"GTIFF_DIR:{int(place.part)}:{place.file.absolute()}", ("GTiff",)), ""


def _variable(file: str, variable: str, opener: Opener, *, is_hdf5: bool) -> Any:
    """Open a variable by netCDF, which knows its georeference, else by HDF5, which keeps the order of rows."""
    path = variable.strip("/")
    netcdf = f'NETCDF:"{file}":{f"/{path}" if "/" in variable else path}', ("netCDF",)
    hdf5 = f'HDF5:"{file}"://{path}', ("HDF5Image",)
    if not is_hdf5:
        return opener(*netcdf)
    opened = _first([netcdf, hdf5], opener)
    if opened.crs or opened.transform[:6] != IDENTITY or Path(file).suffix.lower() in (".nc", ".nc4", ".cdf"):
        return opened
    try:
        plain = opener(*hdf5)
    except ReadError:
        return opened
    opened.close()
    return plain


def _first(trials: Sequence[tuple[str, Sequence[str]]], opener: Opener) -> Any:
    """The first name that opens; raises the error of the first trial when none does."""
    failure: ReadError | None = None
    for text, drivers in trials:
        try:
            return opener(text, drivers)
        except ReadError as error:
            failure = failure or error
    assert failure is not None
    raise failure


@lru_cache(maxsize=64)
def _check_once(file: str, size: int, mtime_ns: int, name: str) -> None:
    """Check a file once: every tile opens it again, and the cache tells versions apart by `size` and `mtime_ns`."""
    check_self_contained(Path(file), name)
