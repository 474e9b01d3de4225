"""Reading rows of text and records: numbers, and what happens to a row that cannot be read."""

from __future__ import annotations

import csv
import io
import logging
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from somareg.errors import InputError
from somareg.io.text import read_text

log = logging.getLogger("somareg.io")

MAX_MIB = 128
MAX_POINTS = 4_000_000
"""Most points of a file; each takes several hundred bytes in memory, however few it takes in the file."""
MAX_LINE = 1 << 20
Row = TypeVar("Row")
_TRUE, _FALSE = ("1", "true", "t", "yes"), ("0", "false", "f", "no")


def text_of(path: Path) -> str:
    """The content of a text file of tie points; `ReadError`: see `somareg.io.text.read_text`."""
    return read_text(path, "list of tie points", MAX_MIB)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line, without its end.

    Raises:
        ReadError: as `text_of`.
        InputError: a line that no table has.
    """
    for number, line in enumerate(io.StringIO(text_of(path)), 1):
        if len(line) > MAX_LINE:
            raise InputError(
                f"{path}, line {number}: it is longer than {MAX_LINE >> 20} MiB; give a list of tie points"
            )
        yield number, line.rstrip("\n")


def read_rows(
    rows: Iterable[tuple[int, Row]],
    parse: Callable[[Row], Sequence[float]],
    file: Path,
    what: str,
    width: int,
    *,
    skip_bad: bool,
) -> NDArray[np.float64]:
    """The values (N, width) of all rows that can be read.

    Args:
        rows: (number, row).
        parse: the values of a row; raises `ValueError` (or what `csv` raises) with the reason for a bad one.
        file: named in messages.
        what: "line", "feature" or "record".
        width: number of values.
        skip_bad: leave bad rows out with a warning that names each, instead of refusing the file.

    Raises:
        InputError: a bad row, naming file and number, or too many rows.
    """
    values = array("d")
    for count, (number, row) in enumerate(rows, 1):
        if count > MAX_POINTS:
            raise InputError(f"{file} holds more than {MAX_POINTS // 10**6} million tie points; thin them out")
        try:
            values.extend(parse(row))
        except (ValueError, csv.Error, StopIteration) as error:
            message = f"{file}, {what} {number}: {error}"
            if not skip_bad:
                raise InputError(f"{message}; mend it, or leave bad rows out with --skip-bad-rows") from error
            log.warning("%s; left out", message)
    return np.array(values, np.float64).reshape(-1, width)


def number(value: Any, name: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {_short(value)}, not a number") from None
    if not math.isfinite(result):
        raise ValueError(f"{name} is {_short(value)}, not a finite number")
    return result


def optional_number(value: Any, name: str) -> float:
    """A number, NaN for an empty value.

    Raises:
        ValueError: something else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "nan", "null", "none")):
        return math.nan
    if isinstance(value, float) and math.isnan(value):
        return value
    return number(value, name)


def flag(value: Any, name: str) -> bool:
    """Yes or no; an empty value means yes.

    Raises:
        ValueError: something else.
    """
    word = str(value).strip().lower()
    if value is None or word in ("", "null", "none", *_TRUE):
        return True
    if word in _FALSE:
        return False
    try:
        return bool(int(float(word)))
    except (ValueError, OverflowError):
        raise ValueError(f"{name} is {_short(value)}, neither yes nor no") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
