"""Journal of finished tiles and facts of a scene, from which a killed run resumes."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from somareg.errors import EstimationError, OutputError
from somareg.io.records import append_record, read_records
from somareg.io.refusals import output_errors
from somareg.register.tiles.tile import TileResult

FORMAT = 2
MAX_MIB = 1024
STATES = ("matched", "empty", "failed")
_BEGINS = b'{"binding":'
_ARRAYS = {"points": (-1, 2), "beyond": (-1, 2), "precision": (-1,), "hit": (-1,)}


class Journal:
    """Finished work of a run in a file of `io.records`. Records after the first damaged one are dropped.

    The first record binds the rest to inputs and settings; a later run with others is refused.
    A checksum says that a record is whole, not that it is ours: the content is checked, too.

    Args:
        path: of the file, whose folder exists; None keeps everything in memory.
        binding: JSON-ready description of inputs and settings.

    Raises:
        OutputError: the file belongs to other inputs or settings, has invalid content, or cannot be written.
    """

    def __init__(self, path: Path | None, binding: Mapping[str, Any]) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        self.tiles: dict[int, TileResult] = {}
        if path is not None:
            self._open(path, binding)

    def _open(self, path: Path, binding: Mapping[str, Any]) -> None:
        """Load the records of the file and cut off a damaged end."""
        first, *others = _read(path) or [None]
        self._bind(path, binding, first)
        for record in others:
            with self.believed():
                self._take(record)

    def _bind(self, path: Path, binding: Mapping[str, Any], first: Any) -> None:
        """Check that the file belongs to `binding`; bind a new file to it."""
        wanted = {"format": FORMAT, **json.loads(json.dumps(binding))}
        if first is None:
            self._append({"binding": wanted})
            return
        with self.believed():
            changed = _changes({**first["binding"]}, wanted)
        if changed:
            raise OutputError(
                f"{path.parent.parent} holds an unfinished run of something else ({changed} changed); start again "
                "with --overwrite or give another folder"
            )

    def _take(self, record: Mapping[str, Any]) -> None:
        if "tile" in record:
            tile = _from_json(record["tile"])
            self.tiles[tile.index] = tile
        else:
            self.facts |= {**record["fact"]}

    @contextmanager
    def believed(self) -> Iterator[None]:
        """Context in which the content of the file is interpreted; invalid content becomes an error with the way out.

        Raises:
            OutputError: the content is not what a run writes.
        """
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, EstimationError) as error:
            where = self.path.parent.parent if self.path else "memory"
            reason = " ".join(str(error).split())[:80]
            raise OutputError(
                f"{where} holds an unfinished run that is damaged ({reason}); start again with --overwrite"
            ) from error

    def note(self, name: str, value: Any) -> None:
        """Store a JSON-ready fact about the whole scene."""
        self.facts[name] = value
        self._append({"fact": {name: value}})

    def keep(self, tile: TileResult) -> None:
        """Store a finished tile; it is on disk when this returns."""
        self.tiles[tile.index] = tile
        self._append({"tile": _to_json(tile)})

    def _append(self, record: Mapping[str, Any]) -> None:
        if self.path is not None:
            append_record(self.path, record)


def _read(path: Path) -> list[Any]:
    """Read the records of a journal, none of a new one, and truncate the file after the last of them."""
    with output_errors(path):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OutputError(f"{path} is no file; move it away and run again")
        if not path.exists():
            return []
        with path.open("rb") as stream:
            start = stream.read(len(_BEGINS))
        if not _BEGINS.startswith(start):  # a kill may have cut the first record short
            raise OutputError(f"{path} is no journal of somareg; move it away and run again")
        records = read_records(path, "journal", MAX_MIB)
        os.truncate(path, records.length)
    return records.values


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names of differing entries, "" without any; compared as text, because NaN differs from itself."""
    names = sorted(key for key in {*before, *now} if json.dumps(before.get(key)) != json.dumps(now.get(key)))
    return ", ".join(names[:4])


def _to_json(tile: TileResult) -> dict[str, Any]:
    def packed(name: str) -> str:
        return base64.b64encode(np.ascontiguousarray(getattr(tile, name), "<f8").tobytes()).decode("ascii")

    arrays = {name: packed(name) for name in _ARRAYS}
    return {"index": tile.index, "status": tile.status, "reason": tile.reason, "figures": tile.figures, **arrays}


def _from_json(record: Mapping[str, Any]) -> TileResult:
    """Restore a tile.

    Raises:
        ValueError, TypeError, KeyError: the record is no tile.
    """
    arrays = {
        name: np.frombuffer(base64.b64decode(record[name]), "<f8").astype(np.float64).reshape(shape)
        for name, shape in _ARRAYS.items()
    }
    figures = {str(key): float(value) for key, value in record["figures"].items()}
    tile = TileResult(int(record["index"]), str(record["status"]), str(record["reason"]), figures=figures, **arrays)
    if tile.index < 0 or tile.status not in STATES:
        raise ValueError(f"tile {tile.index} is '{tile.status[:20]}'")
    if len({len(array) for array in arrays.values()}) > 1 or not all(np.isfinite(a).all() for a in arrays.values()):
        raise ValueError(f"tile {tile.index} has points that are none")
    if tile.status == "matched" and not 0 <= figures["probability"] <= 1:
        raise ValueError(f"tile {tile.index} has no probability")
    return tile
