"""`manifest.jsonl`: the state of every pair, from which a killed run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, TypeAdapter

from somareg.batches.offsets import Offset
from somareg.errors import InputError, OutputError, ReadError
from somareg.io.raster import file_sha256
from somareg.io.records import append_record, read_records, write_records
from somareg.report.names import PAGE, has_page
from somareg.report.plain import plain
from somareg.types import Decision, Reports

FILE_NAME = "manifest.jsonl"
MAX_MIB = 256
FORMAT = 1

Status = Literal["pending", "running", "done", "failed"]
Kind = Literal["batch", "audit"]
"""The kind of run behind a manifest."""


@dataclass(frozen=True)
class FileMark:
    """The state of a file when it was read.

    Attributes:
        path: absolute.
        size, mtime_ns: while both stay, the content counts as unchanged without reading it.
        sha256: of the content.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: str | Path, sha256: str = "") -> FileMark:
        """The mark of a file now; a known `sha256` saves reading it."""
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
        key: hash of settings and paths; a pair with another key must be done again.
        status: "running" can also mean that the run died.
        verdict, probability: of a done pair.
        headline: of its verdict, see `Verdict.headline`.
        predicted_rmse_px, predicted_rmse_m: expected error; None on no-go, metres also without a georeference.
        misregistration_px: measured RMS displacement.
        seconds: duration.
        error_kind, error: of a failed pair.
        files: marks of all input files.
        measured: offset of a pair that was only measured; None on no-go, and for a pair that was registered.
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
        """The verdict, else "failed" or "pending"."""
        return self.verdict or ("failed" if self.status == "failed" else "pending")

    def still_holds(self, folder: str | None, reports: Reports) -> bool:
        """Whether the pair is done, its outputs exist (with the page if `reports` ask for it) and its inputs are
        unchanged.

        Args:
            folder: of its outputs; None without outputs.
            reports: see `batch`.
        """
        names = ["report.json", "displacement.tif"]
        if self.verdict is not None and has_page(reports, self.verdict):
            names.append(PAGE)
        outputs = [] if folder is None else [Path(folder) / name for name in names]
        return self.status == "done" and all(path.is_file() for path in outputs) and all(f.holds() for f in self.files)


def key_of(content: Mapping[str, Any]) -> str:
    """A short hash of settings and paths."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:24]


@dataclass
class Manifest:
    """The entries of a run in the order of its list, on disk after every change.

    The file holds a header and entries, one per line; the last of several entries with one name counts.

    Attributes:
        folder: of the run.
        entries: by name.
        kind: of the run.
    """

    folder: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    kind: Kind = "batch"

    def update(self, name: str, **changes: Any) -> Entry:
        """Change an entry and append it to the file that `write` made; it is on disk when this returns."""
        self.entries[name] = entry = replace(self.entries[name], **changes)
        append_record(self.folder / FILE_NAME, plain(asdict(entry)))
        return entry

    def write(self) -> None:
        """Write the whole file anew, each entry once."""
        entries = (plain(asdict(entry)) for entry in self.entries.values())
        write_records(self.folder / FILE_NAME, ({f"somareg_{self.kind}": FORMAT}, *entries))


def read_manifest(folder: Path, kind: Kind = "batch", *, overwrite: bool = False) -> dict[str, Entry]:
    """Read the entries of an earlier run; none in a new folder or with `overwrite`.

    A last line that a kill cut short is dropped.

    Raises:
        OutputError: the folder has other content but no manifest, or one of another kind, and not `overwrite`.
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
        records = read_records(file, "manifest", MAX_MIB)
    except ReadError as error:
        raise InputError(f"{error}; start anew with --overwrite") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}); start anew with --overwrite") from error
    try:
        header, *rows = records.values
        other = next(each for each in get_args(Kind) if each != kind)
        if isinstance(header, dict) and f"somareg_{other}" in header:
            raise OutputError(f"output folder {folder} holds a run of somareg {other}; give another, or --overwrite")
        if header[f"somareg_{kind}"] > FORMAT:
            raise InputError(f"{file} was written by a newer somareg; update, or start anew with --overwrite")
        if not records.is_whole:
            raise ValueError(f"line {len(records.values) + 1}")
        entries = _ENTRIES.validate_python(rows)
    except (InputError, OutputError):
        raise
    except (ValueError, TypeError, KeyError) as error:  # a ValidationError is a ValueError
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file} is damaged ({reason}); start anew with --overwrite") from error
    return {entry.name: entry for entry in entries}


_ENTRIES = TypeAdapter(list[Entry], config=ConfigDict(extra="forbid"))
