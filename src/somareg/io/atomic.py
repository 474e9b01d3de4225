"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from somareg.errors import OutputError
from somareg.io.folders import check_folder_writable, make_parents
from somareg.io.leftovers import FOLDER, part_name, recover, remove_leftovers
from somareg.io.lock import LOCK_NAME, FolderLock, folder_lock
from somareg.io.refusals import output_errors
from somareg.io.swap import is_open, swap_in
from somareg.io.sync import sync, sync_tree

_APPEARED = (errno.EEXIST, errno.ENOTEMPTY)


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a hidden temporary name in the same folder; on success it becomes `path`, on an exception it is removed.

    Half-written files that a killed run left in the folder are removed as well.

    Raises:
        OutputError: `path` exists, or appeared meanwhile, and not `overwrite`; or the folder or disk refuses.
    """
    final = Path(path)
    with output_errors(final):
        if final.is_dir():
            raise OutputError(f"output {final} is a folder; give a file name")
        if not overwrite and os.path.lexists(final):
            raise _exists(final)
    check_folder_writable(final.parent)
    remove_leftovers(final.parent)
    temporary = final.parent / part_name(final.name)
    try:
        with output_errors(final):
            yield temporary
            sync(temporary)
            if overwrite:
                temporary.replace(final)
            else:
                _take_name(temporary, final)
            sync(final.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> Path:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


@contextmanager
def output_folder(
    folder: str | Path,
    *,
    overwrite: bool = False,
    owned: Sequence[str] = (),
    beside: Sequence[str] = (),
    lock: FolderLock | None = None,
) -> Iterator[Path]:
    """Yield a temporary folder; on success its files appear in `folder`, on any exception nothing changes.

    A new folder appears by one rename. In an existing one each file replaces its namesake, `owned` files that this
    run did not write are removed, other files are left alone, and a failure half-way puts the old files back; after a
    kill half-way the next command that writes there does. The lock keeps other runs out of the folder meanwhile.

    Args:
        folder: may exist when empty or with `overwrite`.
        overwrite: allow a folder that is not empty.
        owned: names of files that somareg writes here.
        beside: names of other files that may be in the folder.
        lock: of a caller that holds the folder; None locks it for this call.

    Raises:
        OutputError: exists and is not empty, is a file, read-only, in use by another run, or the disk is full.
    """
    final = Path(folder)
    with ExitStack() as stack:
        hold = stack.enter_context(folder_lock(final)) if lock is None else lock
        _clear_up(final, hold)
        _check(final, overwrite, owned, {*beside, LOCK_NAME})
        is_new = not final.exists()
        parents = make_parents(final.parent)
        temporary = final.parent / part_name(f"{final.name}.new") if is_new else final / part_name(FOLDER)
        try:
            with output_errors(final):
                temporary.mkdir()
                yield temporary
                sync_tree(temporary)
                if not (is_new and _became(temporary, final)):
                    hold.settle()  # the folder may have appeared meanwhile; it is locked from now on
                    _check(final, overwrite, owned, {*beside, LOCK_NAME, temporary.name})
                    swap_in(temporary, final, owned)
                sync(final.parent)
            parents = []
        except OutputError as error:
            # The temporary name means nothing to the user.
            raise OutputError(str(error).replace(str(temporary), str(final))) from error
        finally:
            if not is_open(temporary):  # else it holds what was in the folder, and a later run puts it back
                shutil.rmtree(temporary, ignore_errors=True)
            for parent in parents:
                with contextlib.suppress(OSError):
                    parent.rmdir()


def check_writable(
    folder: str | Path,
    *,
    overwrite: bool = False,
    owned: Sequence[str] = (),
    beside: Sequence[str] = (),
    lock: FolderLock | None = None,
) -> None:
    """Check before work starts whether `output_folder` will succeed, and clean up after killed runs.

    Args:
        folder, overwrite, owned, beside, lock: as for `output_folder`.

    Raises:
        OutputError: the folder is a file, is not empty without `overwrite`, is in use, or cannot be written.
    """
    final = Path(folder)
    with ExitStack() as stack:
        _clear_up(final, stack.enter_context(folder_lock(final)) if lock is None else lock)
        _check(final, overwrite, owned, {*beside, LOCK_NAME})


def _clear_up(final: Path, lock: FolderLock) -> None:
    """Restore and remove what killed runs left in a locked folder and beside it."""
    with output_errors(final):
        for place in (final, final.parent):
            if place.is_dir():
                remove_leftovers(place)
        if final.is_dir() and lock.is_real:
            recover(final)


def _check(final: Path, overwrite: bool, owned: Sequence[str], mine: Collection[str]) -> None:
    with output_errors(final):
        if final.is_dir():
            if not overwrite and any(entry.name not in mine for entry in final.iterdir()):
                raise OutputError(
                    f"output folder {final} is not empty; give another one or allow replacing with --overwrite"
                )
            for name in owned:
                if (final / name).is_dir():
                    raise OutputError(f"output {final / name} is a folder; move it away")
    check_folder_writable(final)


def _became(temporary: Path, final: Path) -> bool:
    """Rename a new folder into place; False when a folder of that name appeared meanwhile."""
    if final.exists():
        return False
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno not in _APPEARED:
            raise
        return False
    return True


def _take_name(temporary: Path, final: Path) -> None:
    """Give a file its final name, unless a file of that name appeared meanwhile."""
    try:
        os.link(temporary, final)  # unlike a rename it never replaces
    except FileExistsError:
        raise _exists(final) from None
    except (OSError, NotImplementedError):  # a file system without links
        if os.path.lexists(final):
            raise _exists(final) from None
        temporary.rename(final)


def _exists(final: Path) -> OutputError:
    return OutputError(f"output {final} exists; give another name or allow overwriting with --overwrite")
