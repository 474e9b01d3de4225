"""A kill at every step of a write: run as a program, it tries them all and prints what was wrong.

Every operation on files that Python tells of (an audit event) is a point at which a child process ends without a word.
Then a later command runs in the folder, and what lies there must be one result, whole: the earlier or the new one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from somareg.errors import SomaregError
from somareg.io.atomic import atomic_path, check_writable, output_folder
from somareg.io.lock import LOCK_NAME, folder_lock

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}
OLD = {"a": "old", "b": "old", "only-old": "old", "mine.txt": "mine"}
NEW = {"a": "new", "c": "new", "mine.txt": "mine"}
OWNED = ("a", "b", "c", "only-old")


def content(folder: Path) -> dict[str, str]:
    """Every file and hidden leftover, by name; the lock of a dead run holds nobody and does not count."""
    return {p.name: p.read_text() if p.is_file() else "a folder" for p in folder.iterdir() if p.name != LOCK_NAME}


def replace(out: Path) -> None:
    with output_folder(out, overwrite=True, owned=OWNED) as part:
        for name in ("a", "c"):
            (part / name).write_text("new")


def replace_in_held(out: Path) -> None:
    with folder_lock(out) as lock, output_folder(out, overwrite=True, owned=OWNED, lock=lock) as part:
        for name in ("a", "c"):
            (part / name).write_text("new")


def replace_file(out: Path) -> None:
    with atomic_path(out / "a", overwrite=True) as part:
        part.write_text("new")


def make(out: Path) -> None:
    with output_folder(out.parent / "deep" / "fresh") as part:
        (part / "a").write_text("new")


def fails(out: Path) -> None:
    """A later command that ends in an error."""
    with output_folder(out, overwrite=True, owned=OWNED) as part:
        (part / "a").write_text("half")
        raise SomaregError


def refused(out: Path) -> None:
    """A later command that was not allowed to replace anything."""
    check_writable(out)


def looks(out: Path) -> None:
    check_writable(out, overwrite=True, owned=OWNED)


def another_file(out: Path) -> None:
    with atomic_path(out / "another", overwrite=True) as part:
        part.write_text("another")
    (out / "another").unlink()


SCENARIOS: dict[str, tuple[Callable[[Path], None], list[dict[str, str]]]] = {
    "folder": (replace, [OLD, NEW]),
    "held folder": (replace_in_held, [OLD, NEW]),
    "file": (replace_file, [OLD, OLD | {"a": "new"}]),
    "new folder": (make, [OLD]),
}
LATER: dict[str, Callable[[Path], None]] = {
    "fails": fails,
    "refused": refused,
    "looks": looks,
    "another file": another_file,
}


def child(work: Callable[[Path], None], out: Path, point: int) -> bool:
    """Do the work in a process that dies at an operation; whether it came through."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, arguments: object) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == point:
                    os._exit(9)

        sys.addaudithook(hook)
        try:
            work(out)
        except SomaregError:
            pass
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(7)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9), status
    return os.waitstatus_to_exitcode(status) == 0


def problems(place: Path) -> Iterator[str]:
    """What was wrong, and the number of points in the end."""
    tried = 0
    for name, (work, allowed) in SCENARIOS.items():
        for later_name, later in LATER.items():
            for point in range(1, 1000):
                where = place / f"{tried}"
                out = where / "out"
                out.mkdir(parents=True)
                for file, text in OLD.items():
                    (out / file).write_text(text)
                done = child(work, out, point)
                tried += 1
                child(later, out, 0)
                found = content(out)
                if found not in allowed or (done and found != allowed[-1]):
                    yield f"{name}, point {point}, then {later_name}: {found}"
                for clears_up in (make, looks):
                    child(clears_up, out, 0)
                left = {str(p.relative_to(where)) for p in where.rglob("*") if p.name.startswith(".")}
                if left:
                    yield f"{name}, point {point}, then {later_name}: {left} left"
                shutil.rmtree(where)
                if done:
                    break
            else:
                yield f"{name}: more than 1000 points"
    for first in range(1, 1000):  # a kill while a kill is cleared up
        for second in range(1, 30):
            where = place / f"{tried}"
            out = where / "out"
            out.mkdir(parents=True)
            for file, text in OLD.items():
                (out / file).write_text(text)
            done = child(replace, out, first)
            again = child(looks, out, second)
            tried += 1
            child(looks, out, 0)
            if content(out) not in (OLD, NEW):
                yield f"killed at {first}, and at {second} while that was undone: {content(out)}"
            shutil.rmtree(where)
            if again:
                break
        if done:
            break
    yield f"{tried} points"


if __name__ == "__main__":
    os.fsync = lambda _: None  # type: ignore[assignment]  # a kill, unlike a power cut, takes nothing from the system
    print(json.dumps(list(problems(Path(sys.argv[1])))))
