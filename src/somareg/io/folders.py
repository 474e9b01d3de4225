"""Output folders: made when missing, checked before work begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from somareg.errors import OutputError
from somareg.io.leftovers import part_name
from somareg.io.paths import file_behind
from somareg.io.refusals import output_errors, reason


def make_folder(folder: str | Path) -> Path:
    """Make a folder and its parents where they are missing.

    Raises:
        OutputError: it cannot be made.
    """
    final = Path(folder)
    try:
        final.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output folder {final} cannot be made ({reason(error)}); give another folder") from error
    return final


def make_parents(folder: Path) -> list[Path]:
    """Create missing parents; returns those made, deepest first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    with output_errors(folder):
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
    return missing


def existing(folder: Path) -> Path:
    """The folder or its nearest parent that exists.

    Raises:
        OutputError: that is a file, so that the folder cannot be made.
    """
    place = folder
    with output_errors(folder):
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise OutputError(f"output folder {folder} cannot be made: {place} is a file; give another folder")
    return place


def check_folder_writable(folder: Path) -> None:
    """Try to create a file in the folder, or in its nearest existing parent.

    Raises:
        OutputError: it cannot be written.
    """
    probe = existing(folder) / part_name("probe")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"output folder {folder} cannot be written ({reason(error)}); give another folder") from error


def check_free_space(path: Path, needed: int) -> None:
    """Raise `OutputError` when the disk that will hold `path` has fewer than `needed` bytes free."""
    place = existing(path.parent)
    with output_errors(path):
        free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"not enough space for {path}: about {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; make room"
        )


def keep_inputs(outputs: Iterable[Path], inputs: Mapping[str, str | Path | None]) -> None:
    """Refuse outputs that would overwrite an input.

    Args:
        outputs: files that may be written, replaced or removed.
        inputs: name for messages -> path; None and paths of no file are skipped.

    Raises:
        OutputError: an output is an input, also by another name (a link).
    """
    roles = {_identity(file_behind(path)): role for role, path in inputs.items() if path is not None}
    roles.pop(None, None)
    for output in outputs:
        role = roles.get(_identity(output))
        if role is not None:
            raise OutputError(f"output {output} is the {role} itself; give another name or folder")


def without_inputs(outputs: Iterable[Path], inputs: Iterable[str | Path]) -> list[Path]:
    """The outputs that are not inputs."""
    identities = {_identity(file_behind(path)) for path in inputs} - {None}
    return [output for output in outputs if _identity(output) not in identities]


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode of a file, the same under all of its names; None when there is no file."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return None
    return stat.st_dev, stat.st_ino
