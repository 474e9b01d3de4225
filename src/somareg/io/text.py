"""Text and JSON that people and other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from somareg.errors import ReadError


def read_text(path: Path, what: str, most_mib: float) -> str:
    """The content of a UTF-8 file, with or without a byte order mark.

    Args:
        path: of the file.
        what: it should be, for messages.
        most_mib: a larger one is something else.

    Raises:
        ReadError: missing, too large or not text.
    """
    most = int(most_mib * (1 << 20))
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)  # the size that the system tells is no bound, as for a device
        if len(content) > most:
            raise ReadError(f"{what} {path} is larger than {most_mib:g} MiB; give a file that is one")
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ReadError(f"{what} {path} is not UTF-8 text; save it as such") from error
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{what} {path} cannot be read: {error.strerror or error}") from error


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says; whatever is wrong with it, one exception tells.

    Raises:
        ValueError: it is no JSON, or nested too deep, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
