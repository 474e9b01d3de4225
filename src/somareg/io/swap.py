"""Replace files of a folder; a run that dies on the way loses neither old nor new ones.

The order makes it safe. All new files are complete in a temporary folder. A list of them is written there, the old
files are put aside beside it, the new ones move in, the list is removed. As long as the list exists the replacement is
open: this run or a later one that finds the list puts everything back.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from somareg.errors import OutputError
from somareg.io.sync import sync

LIST, ASIDE = ".replacing", ".before"


def swap_in(temporary: Path, final: Path, owned: Iterable[str]) -> None:
    """Move all that lies in a temporary folder into another one; each file replaces its namesake.

    Args:
        temporary: in `final` or beside it, on one disk.
        final: exists.
        owned: names of earlier files to remove, with or without a new file of that name.

    Raises:
        OSError: the disk refuses; everything is as before.
    """
    fresh = {entry.name: entry.lstat().st_ino for entry in sorted(temporary.iterdir())}
    aside = temporary / ASIDE
    aside.mkdir()
    listed = temporary / LIST
    listed.write_text(json.dumps({"folder": os.path.relpath(final, temporary), "fresh": fresh}), encoding="utf-8")
    for place in (listed, aside, temporary):
        sync(place)
    try:
        for name in sorted({*owned, *fresh}):
            if os.path.lexists(final / name):
                (final / name).rename(aside / name)
        for name in fresh:
            (temporary / name).rename(final / name)
        sync(final)
        listed.unlink()
    except BaseException:
        undo(temporary)
        raise
    with contextlib.suppress(OSError):  # done; without this sync a power cut would bring the old files back
        sync(temporary)


def is_open(temporary: Path) -> bool:
    """Whether a replacement from this folder was begun but neither finished nor undone."""
    return os.path.lexists(temporary / LIST)


def undo(temporary: Path) -> None:
    """Put the old files back, if a replacement from this folder is open; it may be called again after a kill.

    Raises:
        OutputError: something else stands where an old file belongs; the old one stays aside.
        OSError: the disk refuses; the replacement stays open.
    """
    if not is_open(temporary):
        return
    plan = _read_list(temporary)
    if plan is None:  # the list itself was cut short by the kill: nothing had been moved
        (temporary / LIST).unlink()
        return
    final, fresh = plan
    aside = temporary / ASIDE
    for name, inode in fresh.items():
        place = final / name
        if not os.path.lexists(temporary / name) and os.path.lexists(place) and place.lstat().st_ino == inode:
            place.rename(temporary / name)
    for old in sorted(aside.iterdir()):
        place = final / old.name
        if os.path.lexists(place):
            raise OutputError(
                f"{place} stands in the place of an earlier file, which a killed run had put aside in {aside}; "
                f"move one of the two away and run again"
            )
        old.rename(place)
    sync(final)
    (temporary / LIST).unlink()


def _read_list(temporary: Path) -> tuple[Path, dict[str, int]] | None:
    """The folder that was written into, and name -> inode of the new files; None for a list that is not whole.

    The inode tells a new file from one that somebody put there since.
    """
    try:
        content = json.loads((temporary / LIST).read_text(encoding="utf-8"))
        folder, fresh = str(content["folder"]), {str(name): int(inode) for name, inode in content["fresh"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    beside = Path(folder).name
    if folder not in ("..", str(Path("..", beside))) or any(Path(name).name != name or name == ".." for name in fresh):
        return None
    return temporary / folder, fresh
