"""Finished work on disk, so that a killed run goes on where it stopped: an append-only journal with checksums."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from somareg.errors import OutputError
from somareg.io.refusals import output_errors
from somareg.register.tiles.tile import TileResult

FORMAT = 1
_ARRAYS = {"points": (-1, 2), "beyond": (-1, 2), "precision": (-1,), "hit": (-1,)}


class Journal:
    """One line per record: CRC-32, a space, JSON. What a kill left half-written at the end is dropped.

    The first record binds the rest to what the run was asked for; a later run that asks for something else is refused.

    Args:
        path: of the file, whose folder exists; None keeps everything in memory.
        binding: JSON-ready description of inputs and settings.

    Raises:
        OutputError: the file belongs to other inputs or settings, or cannot be written.
    """

    def __init__(self, path: Path | None, binding: Mapping[str, Any]) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        self.tiles: dict[int, TileResult] = {}
        self._stream: BinaryIO | None = None
        if path is not None:
            self._open(path, binding)

    def _open(self, path: Path, binding: Mapping[str, Any]) -> None:
        """Take what the file holds; from now on it receives the rest."""
        with output_errors(path):
            records, length = _read(path) if path.exists() else ([], 0)
            self._stream = path.open("r+b" if path.exists() else "w+b")
        try:
            with output_errors(path):
                self._stream.truncate(length)
                self._stream.seek(length)
            self._bind(path, binding, records[0] if records else None)
            for record in records[1:]:
                self._take(record)
        except BaseException:
            self.close()
            raise

    def _bind(self, path: Path, binding: Mapping[str, Any], first: Mapping[str, Any] | None) -> None:
        """Make sure that the file is about `binding`; a new one is from now on."""
        wanted = {"format": FORMAT, **json.loads(json.dumps(binding))}
        if first is None:
            self._append({"binding": wanted})
        elif changed := _changes(first.get("binding") or {}, wanted):
            raise OutputError(
                f"{path.parent.parent} holds an unfinished run of something else ({changed} changed); start again "
                "with --overwrite or give another folder"
            )

    def _take(self, record: Mapping[str, Any]) -> None:
        if "tile" in record:
            tile = _from_json(record["tile"])
            self.tiles[tile.index] = tile
        else:
            self.facts |= record.get("fact", {})

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON-ready fact about the whole scene."""
        self.facts[name] = value
        self._append({"fact": {name: value}})

    def keep(self, tile: TileResult) -> None:
        """Keep a finished tile; it is on disk when this returns."""
        self.tiles[tile.index] = tile
        self._append({"tile": _to_json(tile)})

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._stream is None or self.path is None:
            return
        text = json.dumps(record, separators=(",", ":")).encode()
        with output_errors(self.path):
            self._stream.write(b"%08x %s\n" % (zlib.crc32(text), text))
            self._stream.flush()
            os.fsync(self._stream.fileno())


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole records from the start on, and how many bytes they take."""
    records, length = [], 0
    with path.open("rb") as stream:
        for line in stream:
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
                break
            records.append(json.loads(text))
            length += len(line)
    return records, length


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names of what differs, "" for nothing; compared as text, for NaN differs from itself."""
    names = sorted(key for key in {*before, *now} if json.dumps(before.get(key)) != json.dumps(now.get(key)))
    return ", ".join(names[:4])


def _to_json(tile: TileResult) -> dict[str, Any]:
    def packed(name: str) -> str:
        return base64.b64encode(np.ascontiguousarray(getattr(tile, name), "<f8").tobytes()).decode("ascii")

    arrays = {name: packed(name) for name in _ARRAYS}
    return {"index": tile.index, "status": tile.status, "reason": tile.reason, "figures": tile.figures, **arrays}


def _from_json(record: Mapping[str, Any]) -> TileResult:
    arrays = {
        name: np.frombuffer(base64.b64decode(record[name]), "<f8").astype(np.float64).reshape(shape)
        for name, shape in _ARRAYS.items()
    }
    figures = {str(key): float(value) for key, value in record["figures"].items()}
    return TileResult(int(record["index"]), str(record["status"]), str(record["reason"]), figures=figures, **arrays)
