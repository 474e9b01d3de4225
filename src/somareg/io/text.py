"""Text files that people and other programs wrote."""

from __future__ import annotations

from pathlib import Path

from somareg.errors import ReadError


def read_text(path: Path, what: str, most_mib: int) -> str:
    """The content of a UTF-8 file, with or without a byte order mark.

    Args:
        path: of the file.
        what: it should be, for messages.
        most_mib: a larger one is something else.

    Raises:
        ReadError: missing, too large or not text.
    """
    try:
        if path.stat().st_size > most_mib << 20:
            raise ReadError(f"{what} {path} is larger than {most_mib} MiB; give a file that is one")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(f"{what} {path} is not UTF-8 text; save it as such") from error
    except OSError as error:
        raise ReadError(f"{what} {path} cannot be read: {error.strerror or error}") from error
