"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from somareg.errors import OutputError

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_PART = re.compile(r"^\..+-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]+\.part$", re.DOTALL)


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a hidden temporary name in the same folder; on success it becomes `path`, on any exception it is removed.

    What a killed run left half-written in the folder is removed as well.

    Raises:
        OutputError: `path` exists and not `overwrite`, or the folder or disk refuses.
    """
    final = Path(path)
    with output_errors(final):
        if final.is_dir():
            raise OutputError(f"output {final} is a folder; give a file name")
        if final.exists() and not overwrite:
            raise OutputError(f"output {final} exists; give another name or allow overwriting with --overwrite")
    check_folder_writable(final.parent)
    remove_leftovers(final.parent)
    temporary = final.parent / _part_name(final.name)
    try:
        with output_errors(final):
            yield temporary
            _sync(temporary)
            temporary.replace(final)
            _sync(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> Path:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


@contextmanager
def output_folder(folder: str | Path, *, overwrite: bool = False, owned: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder; on success its files appear in `folder`, on any exception nothing changes.

    A new folder appears by one rename. In an existing one each file replaces its namesake, `owned` files that this
    run did not write are removed, other files are left alone, and a failure half-way puts the old files back.

    Args:
        folder: may exist when empty or with `overwrite`.
        overwrite: allow a folder that is not empty.
        owned: names that somareg may write here.

    Raises:
        OutputError: exists and is not empty, is a file, read-only, or the disk is full.
    """
    final = Path(folder)
    check_writable(final, overwrite=overwrite, owned=owned)
    is_new = not final.exists()
    made = _make_parents(final.parent)
    temporary = (final.parent if is_new else final) / _part_name("somareg")
    try:
        with output_errors(final):
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            if is_new and not final.exists():
                temporary.rename(final)
            else:
                _move_into(temporary, final, owned)
            _sync(final.parent)
        made = []
    except OutputError as error:
        # The temporary name says nothing to the user.
        raise OutputError(str(error).replace(str(temporary), str(final))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def check_writable(folder: str | Path, *, overwrite: bool = False, owned: Sequence[str] = ()) -> None:
    """Find out before work starts whether `output_folder` will succeed; removes leftovers of killed runs.

    Args:
        folder: as for `output_folder`.
        overwrite: as for `output_folder`.
        owned: as for `output_folder`.

    Raises:
        OutputError: the folder is a file, is not empty without `overwrite`, or cannot be written.
    """
    final = Path(folder)
    with output_errors(final):
        if final.exists() and not final.is_dir():
            raise OutputError(f"output folder {final} is a file; give a folder name")
        for place in (final, final.parent):
            if place.is_dir():
                remove_leftovers(place)
        if final.is_dir():
            if not overwrite and any(final.iterdir()):
                raise OutputError(
                    f"output folder {final} is not empty; give another one or allow replacing with --overwrite"
                )
            for name in owned:
                if (final / name).is_dir():
                    raise OutputError(f"output {final / name} is a folder; move it away")
    check_folder_writable(final)


def make_folder(folder: str | Path) -> Path:
    """Make a folder where it is missing, and its parents.

    Raises:
        OutputError: it cannot be made.
    """
    final = Path(folder)
    try:
        final.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output folder {final} cannot be made ({_reason(error)}); give another folder") from error
    return final


def check_folder_writable(folder: Path) -> None:
    """Try to create a file in the folder, or in its nearest existing parent.

    Raises:
        OutputError: it cannot be written.
    """
    place = _existing(folder)
    if not place.is_dir():
        raise OutputError(f"output folder {folder} cannot be made: {place} is a file; give another folder")
    probe = place / _part_name("probe")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"output folder {folder} cannot be written ({_reason(error)}); give another folder"
        ) from error


def check_free_space(path: Path, needed: int) -> None:
    """Raise `OutputError` when the disk that will hold `path` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(_existing(path.parent)).free
    if free < needed:
        raise OutputError(
            f"not enough space for {path}: about {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; make room"
        )


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of runs on this machine that are no longer alive."""
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            match = _PART.match(entry.name)
            if match and match["host"] == _HOST and not _is_alive(int(match["pid"])):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"disk full while writing {path}; make room and run again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG):
            raise OutputError(f"cannot write {path} ({_reason(error)}); give another output") from error
        raise


def _part_name(name: str) -> str:
    """`.NAME-HOST-PID-RANDOM.part`; host and pid tell later runs whether the owner is still alive."""
    short = name.encode()[:80].decode(errors="ignore")  # a file name may hold 255 bytes
    return f".{short}-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part"


def _existing(folder: Path) -> Path:
    """The folder or its nearest parent that exists."""
    with output_errors(folder):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    return folder


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _make_parents(folder: Path) -> list[Path]:
    """Create missing parents; returns those made, deepest first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    with output_errors(folder):
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
    return missing


def _move_into(temporary: Path, final: Path, owned: Sequence[str]) -> None:
    """Replace files one by one, keeping the old ones aside until all have moved."""
    final.mkdir(exist_ok=True)
    aside = temporary / ".before"
    aside.mkdir()
    fresh = [entry for entry in temporary.iterdir() if entry != aside]
    moved: list[Path] = []
    kept: list[Path] = []
    try:
        for name in {*owned, *(entry.name for entry in fresh)}:
            if (final / name).exists():
                (final / name).rename(aside / name)
                kept.append(final / name)
        for entry in fresh:
            entry.rename(final / entry.name)
            moved.append(final / entry.name)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        for path in kept:
            (aside / path.name).rename(path)
        raise
    _sync(final)


def _sync_tree(folder: Path) -> None:
    for entry in folder.rglob("*"):
        if entry.is_file():
            _sync(entry)


def _sync(path: Path) -> None:
    """Push a file or folder to the disk, where the system allows it."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
