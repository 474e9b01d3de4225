"""Files of JSON records, one per line, that survive a kill: a record is on disk once `append_record` returns.

Each line ends with a checksum of the record before it, as one more member, so that the file stays JSON Lines for any
other program. A line without one, written by hand, is accepted. Readers check the content of the records.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somareg.io.atomic import write_text
from somareg.io.refusals import output_errors
from somareg.io.text import parse_json, read_bytes

_CHECKED = re.compile(rb'(.*),"crc32":"([0-9a-f]{8})"\}', re.DOTALL)


@dataclass(frozen=True)
class Records:
    """The records of a file up to the first damaged line.

    Attributes:
        values: parsed JSON of each line, without its checksum.
        length: bytes that they take in the file.
        is_whole: nothing follows but, at most, a line that a kill cut short.
    """

    values: list[Any]
    length: int
    is_whole: bool


def read_records(path: Path, what: str, most_mib: float) -> Records:
    """Read the records of a file; arguments and errors are those of `io.text.read_bytes`.

    Raises:
        ReadError: the file is larger than `most_mib`.
        OSError: the file cannot be read.
    """
    *lines, _ = read_bytes(path, what, most_mib).split(b"\n")
    values, length = list[Any](), 0
    for line in lines:
        try:
            values.append(_value(line))
        except ValueError:
            break
        length += len(line) + 1
    return Records(values, length, len(values) == len(lines))


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record; it is on disk when this returns.

    Args:
        path: of the file, which is made when it is missing; never a link.
        record: JSON-ready, with one member or more.

    Raises:
        OutputError: the disk is full or refuses.
    """
    with output_errors(path), open(path, "ab", opener=_without_links) as stream:
        stream.write(_line(record).encode())
        stream.flush()
        os.fsync(stream.fileno())


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write the whole file beside itself and rename it: a reader sees the old one or the new one."""
    write_text(path, "".join(map(_line, records)), overwrite=True)


def _line(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, separators=(",", ":"))
    return f'{text[:-1]},"crc32":"{zlib.crc32(text.encode()):08x}"}}\n'


def _value(line: bytes) -> Any:
    """Parse a line.

    Raises:
        ValueError: its checksum is wrong, or it is no JSON.
    """
    checked = _CHECKED.fullmatch(line)
    if checked is None:
        return parse_json(line)
    text = checked[1] + b"}"
    if zlib.crc32(text) != int(checked[2], 16):
        raise ValueError("the checksum is wrong")
    return parse_json(text)


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)
