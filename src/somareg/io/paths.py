"""Paths of images: a file on this machine, one image of a file with several, or a product folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from somareg.errors import InputError, OutputError, ReadError, UnsupportedError

REMOTE = re.compile(r"^(/vsi|[a-z][a-z0-9+.\-]+:/)", re.IGNORECASE)
"""URLs, also those that a `Path` has shortened, and GDAL's virtual files."""

_PREFIXED = re.compile(r"(GTIFF_DIR|NETCDF|HDF5):(.+)", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r'"([^"]+)":?(.*)', re.DOTALL)
_POLARISATIONS = ("vv", "hh", "vh", "hv")  # the order of preference
_MANIFEST = "manifest.safe"
_RASTERS = {".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", ".img", ".vrt", ".nc", ".h5"}
_FILES = _RASTERS | {".json", ".geojson", ".csv", ".html", ".gpkg", ".points", ".zip"}
_SHOWN = 12


@dataclass(frozen=True)
class Named:
    """The target of a path.

    Attributes:
        file: to open, on this machine.
        part: number of a page or name of a variable in the file; "" for the file as a whole.
        product: the main file of the product that the file belongs to, with more metadata; None without one.
        notes: choices made for the user.
    """

    file: Path
    part: str = ""
    product: Path | None = None
    notes: tuple[str, ...] = ()


def named(path: str | Path, role: str) -> Named:
    """Resolve a path.

    Args:
        path: a file; "FILE:2" or "FILE:NAME" for a page or variable of it, also as GDAL writes that
            (GTIFF_DIR:2:FILE, NETCDF:FILE:NAME, HDF5:FILE://NAME); a Sentinel-1 .SAFE folder, or its "FOLDER:vh"; a
            SNAP product .dim, or its "FILE.dim:BAND".
        role: "moving", "reference" or what else messages should call it.

    Raises:
        UnsupportedError: a URL or GDAL virtual path.
        ReadError: missing, empty, or a folder that is no product.
        InputError: a product with several candidate images.
    """
    if REMOTE.match(str(path)) and not _PREFIXED.match(str(path)):
        check_local_file(path, role)
    place, part = split(path)
    folder = place.parent if place.name == _MANIFEST else place
    if _exists(folder / _MANIFEST) or (folder.suffix.lower() == ".safe" and folder.is_dir()):
        return _of_safe(folder, part, role)
    if place.suffix.lower() == ".dim":
        return _of_dimap(check_local_file(place, role), part, role)
    return Named(check_local_file(place, role), part)


def split(path: str | Path, folder: Path | None = None) -> tuple[Path, str]:
    """Split a path into the file or folder that it begins with and the part after it, "" without one; see `named`.

    Args:
        path: it need not exist.
        folder: relative paths start there; where the process is by default.
    """
    start = folder or Path()
    text = str(path)
    if _exists(start / text):
        return start / text, ""
    if prefixed := _PREFIXED.fullmatch(text):
        inside = prefixed[2]
        if prefixed[1].upper() == "GTIFF_DIR":
            number, _, file = inside.partition(":")
            return start / file.strip('"'), number
        if quoted := _QUOTED.fullmatch(inside):
            return start / quoted[1], quoted[2]
        text = inside
    file, mark, part = text.rpartition(":")
    file = file.rstrip(":")
    return (start / file, part) if mark and file and _exists(start / file) else (start / text, "")


def file_behind(path: str | Path) -> Path:
    """The file or folder of a path, without its part; it may be missing."""
    return split(path)[0]


def whole_path(path: str | Path, folder: Path | None = None) -> str:
    """Make the file of a path absolute; relative ones start at `folder`, see `split`.

    A path that is not local stays as it is; `named` refuses it.
    """
    if REMOTE.match(str(path)) and not split(path, folder)[1]:
        return str(path)
    file, part = split(Path(path).expanduser() if str(path).startswith("~") else path, folder)
    ready = os.path.abspath(file)  # noqa: PTH100 - links stay links
    return f"{ready}:{part}" if part else ready


def check_local_file(path: str | Path, role: str) -> Path:
    """The path, if it is a non-empty file on this machine.

    Raises:
        UnsupportedError: a URL or GDAL virtual path.
        ReadError: missing, a folder, or empty.
    """
    text = str(path)
    if REMOTE.match(text):
        raise UnsupportedError(f"{role} image {text} is not a local file; download it first and give its path")
    local = Path(path)
    try:
        is_folder, is_file = local.is_dir(), local.is_file()
        size = local.stat().st_size if is_file else 0
    except (OSError, ValueError) as error:
        raise ReadError(f"{role} image {text} cannot be read: {error}") from error
    if is_folder:
        raise ReadError(f"{role} image {text} is a folder; give a file in it")
    if not is_file:
        raise ReadError(f"{role} image {text} does not exist; check the path")
    if size == 0:
        raise ReadError(f"{role} image {text} is an empty file; fetch it again")
    return local


def is_file_name(name: str) -> bool:
    """Whether a name looks like that of a file, not of an output folder."""
    return Path(name).suffix.lower() in _FILES


def check_folder_name(folder: str | Path) -> None:
    """Refuse an output folder that is named like a file, unless the folder exists.

    Raises:
        OutputError: "-o aligned.tif" where a folder is wanted.
    """
    place = Path(folder)
    if is_file_name(place.name) and not place.is_dir():
        raise OutputError(
            f"output {place} is called like a file, but the outputs are several files in a folder; give a folder: "
            f"{place.with_suffix('')}"
        )


def pick(names: list[str], part: str, what: str) -> str:
    """Find the one name that equals `part`, or the only one that ends with it.

    Args:
        names: all candidates.
        part: "" for the only one.
        what: the file that holds them, for messages.

    Raises:
        InputError: none or several; the message lists them.
    """
    word = part.strip("/").casefold()
    hits = [name for name in names if name.strip("/").casefold() == word] or [
        name for name in names if not word or name.strip("/").casefold().endswith(f"/{word}")
    ]
    if len(hits) == 1:
        return hits[0]
    listed = ", ".join((hits or names)[:_SHOWN]) + (", ..." if len(hits or names) > _SHOWN else "")
    if hits:
        raise InputError(f"{what} holds {len(hits)} images; name one of {listed}, as in FILE:{hits[0].strip('/')}")
    raise InputError(f"{what} holds no image '{part}'; it has {listed}" if names else f"{what} holds no image")


def _of_safe(folder: Path, part: str, role: str) -> Named:
    """The measurement of a Sentinel-1 product: vv before hh; cross-polarised ones only by name."""
    what = f"{role} image {folder}"
    files = sorted((folder / "measurement").glob("*.tif*"))
    if not files:
        bands = sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2"))
        hint = f"; give one of its bands: {bands[0]}" if bands else "; give the raster itself"
        raise ReadError(f"{what} is a folder without Sentinel-1 measurements{hint}")
    words = {file: _words(file) for file in files}
    matches = [file for file in files if part.casefold() in words[file] or file.name == part] if part else files
    kinds = sorted({word for file in matches for word in words[file]}, key=_preference)
    for kind in kinds:
        one = [file for file in matches if kind in words[file]]
        if len(one) == 1 and (kind in _POLARISATIONS or len(matches) == 1):
            others = sorted({word for file in files if file != one[0] for word in words[file] if word != kind})
            more = f"; name another as {folder.name}:{others[0]} ({', '.join(others)})" if others and not part else ""
            return Named(check_local_file(one[0], role), "", None, (f"{what}: {one[0].name} is read{more}",))
    listed = ", ".join(file.name for file in (matches or files)[:_SHOWN])
    raise InputError(f"{what} holds {len(files)} measurements ({listed}); give one: {(matches or files)[0]}")


def _words(file: Path) -> set[str]:
    """Names of a measurement: its polarisation, also with its swath before it if it has one."""
    pieces = file.stem.casefold().split("-")
    polarisation = next((piece for piece in pieces if piece in _POLARISATIONS), "")
    swath = next((piece for piece in pieces if re.fullmatch(r"(iw|ew|s|wv)\d", piece)), "")
    return {word for word in (polarisation, f"{swath}-{polarisation}" if swath else "") if word}


def _preference(word: str) -> tuple[int, str]:
    return (_POLARISATIONS.index(word) if word in _POLARISATIONS else len(_POLARISATIONS)), word


def _of_dimap(product: Path, part: str, role: str) -> Named:
    """The ENVI file of a band of a SNAP product; co-polarised intensities and amplitudes before others.

    Raises:
        InputError: the measurement is complex, in two bands.
    """
    what = f"{role} image {product}"
    files = sorted(file for file in product.with_suffix(".data").glob("*.img"))
    if not files:
        raise ReadError(f"{what} has no bands beside it in {product.with_suffix('.data').name}; copy that folder, too")
    if part:
        name = pick([file.stem for file in files], part, what)
        return Named(next(file for file in files if file.stem == name), "", product)
    _check_detected([file.stem for file in files], what)
    ranked = sorted(files, key=lambda file: (_rank(file.stem), file.stem))
    others = [file.stem for file in ranked[1:]]
    more = f"; name another as {product.name}:{others[0]} ({', '.join(others[:_SHOWN])})" if others else ""
    note = f"{what}: its band {ranked[0].stem} is read{more}"
    return Named(check_local_file(ranked[0], role), "", product, (note,))


def _check_detected(bands: list[str], what: str) -> None:
    """Refuse a product whose only measurements are real and imaginary parts (i_*, q_*): one alone is noise."""
    names = {band.casefold() for band in bands}
    parts = [band for band in bands if band[:2].casefold() in ("i_", "q_")]
    pairs = [band for band in parts if {f"i_{band[2:]}".casefold(), f"q_{band[2:]}".casefold()} <= names]
    if pairs and not any(map(_is_measured, bands)):
        listed = ", ".join(pairs[:_SHOWN]) + (", ..." if len(pairs) > _SHOWN else "")
        raise InputError(
            f"{what} holds real and imaginary parts ({listed}) and no intensity; write the intensity i*i + q*q as a "
            "band of the product (SNAP: Band Maths, not virtual), or give a complex raster"
        )


def _is_measured(band: str) -> bool:
    return band.casefold().startswith(("sigma", "gamma", "beta", "intensity", "amplitude"))


def _rank(band: str) -> int:
    """Sort key of a band; the most likely choice has the lowest."""
    name = band.casefold()
    polarisation = next((i for i, one in enumerate(_POLARISATIONS) if re.search(rf"(^|_){one}($|_)", name)), 4)
    return polarisation + (0 if _is_measured(band) else 10)


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
