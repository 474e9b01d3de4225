"""Files beside a raster that GDAL reads with it: masks, overviews, ERDAS statistics.

The list of drivers binds the raster itself. GDAL opens the files beside it with any driver, so that a mask which
is a VRT reads any file or fetches a URL, and an entry in the metadata may name overviews anywhere. So each of
these files is checked before the raster is used, and must have the format that its name promises.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from somareg.errors import ReadError
from somareg.io.gdal_errors import GDAL_ERRORS
from somareg.runtime.quiet import without

# By suffix: the driver and the first bytes of such a file, which exclude that another driver accepts it.
_KINDS = {
    ".msk": ("GTiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ".ovr": ("GTiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ".aux": ("HFA", (b"EHFA_HEADER_TAG\0",)),
}
_WORDS = {"GTiff": "GeoTIFF", "HFA": "ERDAS file"}
_OVERVIEWS, _ELSEWHERE = "OVERVIEWS", "OVERVIEW_FILE"
_WAY_OUT = "GDAL would follow it wherever it leads: remove it, or make it anew (gdaladdo -ro, gdal_translate)"


def check_side_files(path: Path, name: str) -> None:
    """Check that no file beside a raster makes GDAL open files elsewhere.

    Args:
        path: of the raster.
        name: what messages call it.

    Raises:
        ReadError: one of its side files is not of its format, or names overviews elsewhere; it is named.
    """
    for side in _side_files(path):
        driver, starts = _KINDS[side.suffix.lower()]
        try:
            with side.open("rb") as stream:
                start = stream.read(16)
            if driver == "HFA" and not start.startswith(starts[0][:-1]):
                continue  # GDAL ignores it, too: LaTeX and others have files of that name
            if not start.startswith(starts):
                raise ReadError(f"{name} has a side file {side} that is no {_WORDS[driver]}; {_WAY_OUT}")
            with without(NotGeoreferencedWarning), DatasetReader(str(side), driver=[driver]) as dataset:
                check_overviews(dataset, f"{name}: side file {side}")
        except ReadError:
            raise
        except GDAL_ERRORS as error:
            raise ReadError(f"{name} has a side file {side} that cannot be read ({error}); {_WAY_OUT}") from error


def check_overviews(dataset: Any, name: str) -> None:
    """Check that neither the metadata of an open raster nor its .aux.xml name overviews elsewhere.

    Call this before any other request, because GDAL opens such overviews on demand.

    Raises:
        ReadError: they do.
    """
    for key, value in dataset.tags(ns=_OVERVIEWS).items():
        if key.upper() == _ELSEWHERE:
            raise ReadError(
                f"{name} says that its overviews are in {value}, a file that was not given and is not opened; remove "
                f"that entry ({_ELSEWHERE}, in the file or its .aux.xml)"
            )


def _side_files(path: Path) -> list[Path]:
    """All side files of a raster, in any case: GDAL finds them in the folder's list."""
    whole = path.absolute()
    suffix = rf"(?:{'|'.join(map(re.escape, _KINDS))})"
    name, stem = re.escape(whole.name.lower()), re.escape(whole.stem.lower())
    is_side_file = re.compile(rf"(?:{name}{suffix}|{stem}\.aux){suffix}*").fullmatch
    try:
        names = [entry.name for entry in whole.parent.iterdir()]
    except OSError:  # a folder that can be entered but not listed; GDAL then tries these names
        ends = [*_KINDS, *map(str.upper, _KINDS)]
        names = [whole.name + "".join(chain) for count in (1, 2) for chain in itertools.product(ends, repeat=count)]
        names = [each for each in (*names, f"{whole.stem}.aux", f"{whole.stem}.AUX") if (whole.parent / each).exists()]
    return [whole.parent / each for each in sorted(names) if each != whole.name and is_side_file(each.lower())]
