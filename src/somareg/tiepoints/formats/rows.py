"""Reading rows of text and records: numbers, and what becomes of a row that is not right."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from somareg.errors import InputError, ReadError

log = logging.getLogger("somareg.io")

MAX_BYTES = 512 * 1024 * 1024
"""Larger text files are no tie points."""

Row = TypeVar("Row")
Parsed = TypeVar("Parsed")
_TRUE, _FALSE = ("1", "true", "t", "yes"), ("0", "false", "f", "no")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, without their ends.

    Raises:
        ReadError: missing, too large or not text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReadError(f"tie points {path} are larger than {MAX_BYTES >> 20} MiB; that is no list of tie points")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(f"tie points {path} are not UTF-8 text; save them as such") from error
    except OSError as error:
        raise ReadError(f"tie points {path} cannot be read: {error.strerror or error}") from error
    return text.splitlines()


def parse_rows(
    rows: Iterable[tuple[int, Row]], parse: Callable[[Row], Parsed], file: Path, what: str, *, skip_bad: bool
) -> Iterator[tuple[int, Parsed]]:
    """Each row that can be read, with its number.

    Args:
        rows: (number, row).
        parse: raises `ValueError` with the reason for a bad row.
        file: named in messages.
        what: "line", "feature" or "record".
        skip_bad: leave bad rows out with a warning that names each, instead of refusing the file.

    Raises:
        InputError: a bad row, naming file and number.
    """
    for number, row in rows:
        try:
            yield number, parse(row)
        except ValueError as error:
            message = f"{file}, {what} {number}: {error}"
            if not skip_bad:
                raise InputError(f"{message}; mend it, or leave bad rows out with --skip-bad-rows") from error
            log.warning("%s; left out", message)


def number(value: Any, name: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {_short(value)}, not a number") from None
    if not math.isfinite(result):
        raise ValueError(f"{name} is {_short(value)}, not a finite number")
    return result


def optional_number(value: Any, name: str) -> float:
    """A number, NaN for nothing.

    Raises:
        ValueError: something else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "nan", "null", "none")):
        return math.nan
    if isinstance(value, float) and math.isnan(value):
        return value
    return number(value, name)


def flag(value: Any, name: str) -> bool:
    """Yes or no; nothing is yes.

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


def columns(table: Iterable[Iterable[float]], width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, width) float64, also of no rows."""
    return np.array(list(table), np.float64).reshape(-1, width)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
