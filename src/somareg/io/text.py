"""Bounded reading of text and JSON from other sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from somareg.errors import ReadError

MAX_PARTS, MAX_VALUES = 5_000_000, 25_000_000
"""Limits of lists and objects, and of values, in a JSON text: a few bytes of text each take a hundred in memory."""

_PIECE = 1 << 20  # bytes


def read_text(path: Path, what: str, most_mib: float) -> str:
    """The content of a UTF-8 file, with or without a byte order mark.

    Args:
        path: of the file.
        what: it should be, for messages.
        most_mib: a larger one is something else.

    Raises:
        ReadError: missing, too large or not text.
    """
    try:
        return read_bytes(path, what, most_mib).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ReadError(f"{what} {path} is not UTF-8 text; save it as such") from error
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{what} {path} cannot be read: {error.strerror or error}") from error


def read_bytes(path: Path, what: str, most_mib: float) -> bytes:
    """Read a file up to a size limit.

    Args:
        path: of the file.
        what: it should be, for messages.
        most_mib: a larger one is something else.

    Raises:
        ReadError: too large.
        OSError: it cannot be read.
    """
    most = int(most_mib * (1 << 20))
    content = bytearray()
    with path.open("rb") as stream:
        # In pieces: the size from the system is no bound, for example for a device, and one large read takes the
        # memory of all that it might read.
        while len(content) <= most and (piece := stream.read(min(_PIECE, most + 1 - len(content)))):
            content += piece
    if len(content) > most:
        raise ReadError(f"{what} {path} is larger than {most_mib:g} MiB; give a file that is one")
    return bytes(content)


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text; every fault is a `ValueError`.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or has a number of thousands of digits or too many values.
    """
    if isinstance(text, str):
        lists, objects, commas = text.count("["), text.count("{"), text.count(",")
    else:
        lists, objects, commas = text.count(b"["), text.count(b"{"), text.count(b",")
    if lists + objects > MAX_PARTS or commas > MAX_VALUES:
        raise ValueError("it holds more values than fit into memory")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
