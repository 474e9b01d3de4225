"""Rasters whose pixels are stored as they are: only the size of the file says whether it is whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from somareg.errors import ReadError


def check_whole(dataset: Any, file: Path, name: str) -> None:
    """Refuse an ENVI file that is shorter than its header says: GDAL reads what is missing as zeros.

    Args:
        dataset: the open file, of any format.
        file: where its pixels are.
        name: what messages call it.

    Raises:
        ReadError: pixels are missing.
    """
    if dataset.driver != "ENVI":
        return
    header = {key.lower(): text for key, text in dataset.tags(ns="ENVI").items()}
    if _number(header, "file_compression"):  # gzip checks itself
        return
    itemsize = np.dtype(dataset.dtypes[0]).itemsize  # the same for all bands
    pixels = dataset.width * dataset.height * dataset.count * itemsize
    expected, found = _number(header, "header_offset") + pixels, file.stat().st_size
    if found < expected:
        raise ReadError(
            f"{name} is truncated or damaged: it holds {found} bytes, and {expected} belong to {dataset.width} x "
            f"{dataset.height} px in {dataset.count} band(s). Fetch the file again."
        )


def _number(header: dict[str, str], key: str) -> int:
    """A whole number of a header, read as GDAL reads it; 0 without one."""
    digits = re.match(r"\s*\+?(\d+)", header.get(key, ""))
    return int(digits[1][:18]) if digits else 0
