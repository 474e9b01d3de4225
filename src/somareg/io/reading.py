"""How the moving image was read, as text in the files of an estimate."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from somareg.config import GcpMethod
from somareg.types import Classes, Estimate, Reading, SarScale

READING_TAG = "SOMAREG_MOVING_READING"

_SHA256 = re.compile(r"[0-9a-f]{64}")


def reading_record(estimate: Estimate) -> dict[str, Any]:
    """The user's reading options of the moving image and its checksum; JSON-ready, {} without any."""
    reading = estimate.reading.said()
    nodata = reading.get("nodata")
    if nodata is not None and not math.isfinite(nodata):
        reading["nodata"] = str(nodata)
    return {**reading, "sha256": estimate.moving_sha256} if reading else {}


def reading_of(record: object) -> tuple[Reading, str]:
    """The inverse of `reading_record`: reading and checksum.

    Raises:
        ValueError: malformed.
    """
    if not isinstance(record, Mapping):
        raise ValueError("no mapping")
    nodata, bands = record.get("nodata"), record.get("bands")
    scale, method = _text(record, "scale"), _text(record, "gcp_method")
    values, sha256 = _text(record, "mask_values"), _text(record, "sha256") or ""
    if values is not None:
        values = str(Classes.parse(values))
    if scale not in (None, *get_args(SarScale)) or method not in (None, *get_args(GcpMethod)):
        raise ValueError("unknown scale or method")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise ValueError("no checksum")
    if bands is not None and not (isinstance(bands, list) and all(type(b) is int and 0 < b < 65536 for b in bands)):
        raise ValueError("no bands")
    if isinstance(nodata, bool) or not isinstance(nodata, int | float | str | None):
        raise ValueError("no number")
    reading = Reading(
        nodata=None if nodata is None else float(nodata),
        scale=scale,
        bands=None if bands is None else tuple(bands),
        mask=_text(record, "mask"),
        mask_values=values,
        gcp_method=method,
        assume_crs=_text(record, "assume_crs"),
        part=_text(record, "part"),
    )
    return reading, sha256


def reading_tags(estimate: Estimate) -> dict[str, str]:
    """The tag of a displacement file; none without reading options."""
    record = reading_record(estimate)
    return {READING_TAG: json.dumps(record)} if record else {}


def reading_of_tags(tags: Mapping[str, str]) -> tuple[Reading, str]:
    """Reading and checksum from the tags of a file.

    Raises:
        ValueError: malformed.
    """
    if READING_TAG not in tags:
        return Reading(), ""
    try:
        return reading_of(json.loads(tags[READING_TAG]))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not (isinstance(value, str) and len(value) < 10_000):
        raise ValueError(f"{name} is no text")
    return value
