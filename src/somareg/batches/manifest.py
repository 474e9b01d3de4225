"""`manifest.jsonl`: the state of every pair, so that a killed run can continue."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, TypeAdapter

from somareg.batches.offsets import Offset
from somareg.errors import InputError, OutputError, ReadError
from somareg.io.atomic import write_text
from somareg.io.raster import file_sha256
from somareg.io.refusals import output_errors
from somareg.io.text import parse_json, read_bytes
from somareg.report.names import PAGE, has_page
from somareg.report.plain import plain
from somareg.types import Decision, Reports

FILE_NAME = "manifest.jsonl"
MAX_MIB = 256
FORMAT = 1

Status = Literal["pending", "running", "done", "failed"]
Kind = Literal["batch", "audit"]
"""What a manifest is of."""


@dataclass(frozen=True)
class FileMark:
    """A file as it was when it was used.

    Attributes:
        path: absolute.
        size, mtime_ns: as long as both stay, the content is taken to be the same, without reading it.
        sha256: of the content.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: str | Path, sha256: str = "") -> FileMark:
        """The mark of a file now; `sha256` saves reading it."""
        stat = Path(path).stat()
        return cls(str(path), stat.st_size, stat.st_mtime_ns, sha256 or file_sha256(path))

    def holds(self) -> bool:
        """Whether the file still has the same content."""
        try:
            stat = Path(self.path).stat()
            if stat.st_size != self.size or not Path(self.path).is_file():
                return False
            return stat.st_mtime_ns == self.mtime_ns or file_sha256(self.path) == self.sha256
        except (OSError, ValueError):  # a manifest may say anything
            return False


@dataclass(frozen=True)
class Entry:
    """One pair of the manifest.

    Attributes:
        name, moving, reference: see `BatchPair`.
        key: of the settings and paths; another key is another pair.
        status: "running" may also mean that the run died.
        verdict, probability: of a pair that is done.
        headline: of its verdict, see `Verdict.headline`.
        predicted_rmse_px, predicted_rmse_m: expected error; None on no-go, metres also without a georeference.
        misregistration_px: RMS displacement found.
        seconds: the pair took.
        error_kind, error: of a pair that failed.
        files: marks of all that went in.
        measured: how a pair lies that was only measured; None on no-go, and for a pair that was registered.
    """

    name: str
    moving: str
    reference: str
    key: str
    status: Status = "pending"
    verdict: Decision | None = None
    probability: float | None = None
    headline: str | None = None
    predicted_rmse_px: float | None = None
    predicted_rmse_m: float | None = None
    misregistration_px: float | None = None
    seconds: float | None = None
    error_kind: str | None = None
    error: str | None = None
    files: tuple[FileMark, ...] = ()
    measured: Offset | None = None

    @property
    def state(self) -> Literal["go", "review", "no-go", "failed", "pending"]:
        """The verdict; "failed", or "pending" where there is none."""
        return self.verdict or ("failed" if self.status == "failed" else "pending")

    def still_holds(self, folder: str | None, reports: Reports) -> bool:
        """Done, its outputs are there, with the page if `reports` ask for it, and its inputs are what they were.

        Args:
            folder: of its outputs; None where there are none.
            reports: see `batch`.
        """
        names = ["report.json", "displacement.tif"]
        if self.verdict is not None and has_page(reports, self.verdict):
            names.append(PAGE)
        outputs = [] if folder is None else [Path(folder) / name for name in names]
        return self.status == "done" and all(path.is_file() for path in outputs) and all(f.holds() for f in self.files)


def key_of(content: Mapping[str, Any]) -> str:
    """A short name for settings and paths."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:24]


@dataclass
class Manifest:
    """The entries of a batch in the order of its list, on disk after every change.

    The file holds a header and entries, one per line; of several with one name the last one counts.

    Attributes:
        folder: of the batch.
        entries: by name.
        kind: of the run.
    """

    folder: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    kind: Kind = "batch"

    def update(self, name: str, **changes: Any) -> Entry:
        """Change an entry and append it to the file that `write` made; it is on disk when this returns."""
        self.entries[name] = entry = replace(self.entries[name], **changes)
        file = self.folder / FILE_NAME
        with output_errors(file), file.open("ab") as stream:
            stream.write(_line(asdict(entry)).encode())
            stream.flush()
            os.fsync(stream.fileno())
        return entry

    def write(self) -> None:
        """The whole file beside itself, then renamed: a reader sees the old one or the new one."""
        lines = ({f"somareg_{self.kind}": FORMAT}, *map(asdict, self.entries.values()))
        write_text(self.folder / FILE_NAME, "".join(map(_line, lines)), overwrite=True)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(folder: Path, kind: Kind = "batch", *, overwrite: bool = False) -> dict[str, Entry]:
    """The entries of an earlier run; none in a new folder or with `overwrite`.

    What a kill left half-written at the end is dropped.

    Raises:
        OutputError: the folder holds other things and no manifest, or that of another kind, and not `overwrite`.
        InputError: the manifest is damaged or newer.
    """
    file = folder / FILE_NAME
    if overwrite:
        return {}
    if not file.is_file():
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise OutputError(f"output folder {folder} is not empty and holds no {kind}; give another, or --overwrite")
        return {}
    try:
        lines = read_bytes(file, "manifest", MAX_MIB).split(b"\n")[:-1]
    except ReadError as error:
        raise InputError(f"{error}; start anew with --overwrite") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}); start anew with --overwrite") from error
    try:
        header, *rows = map(parse_json, lines)
        other = next(each for each in get_args(Kind) if each != kind)
        if isinstance(header, dict) and f"somareg_{other}" in header:
            raise OutputError(f"output folder {folder} holds a run of somareg {other}; give another, or --overwrite")
        if header[f"somareg_{kind}"] > FORMAT:
            raise InputError(f"{file} was written by a newer somareg; update, or start anew with --overwrite")
        entries = _ENTRIES.validate_python(rows)
    except (InputError, OutputError):
        raise
    except (ValueError, TypeError, KeyError) as error:  # a ValidationError is a ValueError
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file} is damaged ({reason}); start anew with --overwrite") from error
    return {entry.name: entry for entry in entries}


_ENTRIES = TypeAdapter(list[Entry], config=ConfigDict(extra="forbid"))
