"""HDF5 and netCDF-4 files that refer to other files: a dataset may take its bytes from any file of this machine."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from somareg.errors import UnsupportedError

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_CHUNK = 8 << 20
_REACH = 32  # bytes of a message that are looked at from its type on
_MOST_HEAPS = 1_000_000
_MESSAGE_AT = (8, 4, 6)  # bytes from the type to the message: version 1 of object headers, 2, 2 with creation order
_VIRTUAL = 3


def check_self_contained(path: Path, name: str) -> None:
    """Refuse an HDF5 file one of whose datasets is stored in another file, or is a view of datasets of other files.

    HDF5 opens those without asking. Object headers, local heaps and global heaps are never compressed, so
    a reference to another file shows as a header message that points to a heap. External links need no check: GDAL's
    drivers do not follow them.

    Args:
        path: of the file.
        name: what messages call it.

    Raises:
        UnsupportedError: the file refers to other files, or has an unusual layout that cannot be checked.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        base = _base_address(content, name)
        heaps, views = (_places(content, mark, name) - base for mark in (b"HEAP", b"GCOL"))
        for start in range(0, len(content), _CHUNK):
            piece = np.frombuffer(content[start : start + _CHUNK + _REACH] + bytes(_REACH), np.uint8)
            if any(_lists_files(piece, at, heaps) or _is_view(piece, at, views) for at in _MESSAGE_AT):
                raise UnsupportedError(
                    f"{name} is an HDF5 file with data in other files, which are not opened; copy them into one: "
                    "h5repack, or gdal_translate of the dataset"
                )


def _base_address(content: mmap.mmap, name: str) -> int:
    """The offset from which addresses in the file count."""
    version = content[8] if len(content) > 64 else 255
    sizes, at = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}.get(version, (0, 0))
    if not at or content[sizes] != 8:
        raise UnsupportedError(f"{name} is an HDF5 file of an unusual kind; write it anew with h5repack")
    base = int.from_bytes(content[at : at + 8], "little")
    if base > len(content):
        raise UnsupportedError(f"{name} is an HDF5 file whose addresses lie beyond its end; fetch it again")
    return base


def _places(content: mmap.mmap, mark: bytes, name: str) -> NDArray[np.int64]:
    """Addresses of heaps in the file."""
    found: list[int] = []
    at = content.find(mark)
    while at >= 0:
        found.append(at)
        if len(found) > _MOST_HEAPS:
            raise UnsupportedError(f"{name} is an HDF5 file of an unusual kind; write it anew with h5repack")
        at = content.find(mark, at + len(mark))
    return np.array(found, np.int64)


def _lists_files(piece: NDArray[np.uint8], at: int, heaps: NDArray[np.int64]) -> bool:
    """Whether a message lists external files, whose names a local heap holds."""
    message = _messages(piece, 0x07, at)
    message = message[piece[message] == 1]  # version
    return bool(np.isin(_addresses(piece, message + 8), heaps).any())


def _is_view(piece: NDArray[np.uint8], at: int, heaps: NDArray[np.int64]) -> bool:
    """Whether a message defines a dataset as a view of others, whose names a global heap holds."""
    message = _messages(piece, 0x08, at)
    message = message[(piece[message] >= 4) & (piece[message + 1] == _VIRTUAL)]
    return bool(np.isin(_addresses(piece, message + 2), heaps).any())


def _messages(piece: NDArray[np.uint8], kind: int, at: int) -> NDArray[np.intp]:
    """Positions where messages of a kind may begin."""
    return np.flatnonzero(piece[:-_REACH] == kind) + at


def _addresses(piece: NDArray[np.uint8], where: NDArray[np.intp]) -> NDArray[np.int64]:
    parts = (piece[where + i].astype(np.uint64) << np.uint64(8 * i) for i in range(8))
    return np.asarray(sum(parts, np.zeros(len(where), np.uint64)), np.uint64).astype(np.int64)
