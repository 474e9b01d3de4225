"""Memory limit of a run: the user's, else a share of what the machine and the container still have."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

SHARE = 0.6
"""Share of the available memory that a run takes by default."""

_ENDLESS = 1 << 60  # what container limits above this mean
_said: ContextVar[int | None] = ContextVar("somareg_memory", default=None)
_processes: ContextVar[int] = ContextVar("somareg_processes", default=1)


def allowed() -> int:
    """Bytes that this process may take."""
    limit = _said.get()
    return limit if limit is not None else int(SHARE * available() / _processes.get())


@contextmanager
def limited(most: int | None) -> Iterator[int]:
    """Set the limit in bytes inside the context; None keeps the one in force, or derives it from what is available
    now, so that all parts of a run use the same number.
    """
    limit = allowed() if most is None else most
    token = _said.set(limit)
    try:
        yield limit
    finally:
        _said.reset(token)


@contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Divide the available memory among this many processes of this machine."""
    token = _processes.set(max(1, processes))
    try:
        yield
    finally:
        _processes.reset(token)


def available() -> int:
    """Bytes that are still free: the least of what the machine, each container around the process and the limit
    of its address space leave.
    """
    return max(0, min(_of_machine(), *_of_containers(), _of_address_space()))


def in_words(count: float) -> str:
    """Format bytes for people, such as "2.3 GiB"."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{max(1, round(count / (1 << 20)))} MiB"


def _of_machine() -> int:
    free = _fields(Path("/proc/meminfo"), 1024).get("MemAvailable:")
    if free is not None:
        return free
    if sys.platform == "win32":
        return _of_windows()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # macOS does not report free memory
    except (OSError, ValueError, AttributeError):
        return _ENDLESS


def _of_windows() -> int:
    class Status(ctypes.Structure):
        _fields_ = (
            *(("length", ctypes.c_ulong), ("load", ctypes.c_ulong)),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "page", "page_free", "virtual", "virtual_free")),
            ("extended", ctypes.c_ulonglong),
        )

    status = Status(length=ctypes.sizeof(Status))
    library = getattr(ctypes, "windll", None)
    succeeded = library is not None and library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.free) if succeeded else _ENDLESS


def _of_containers(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What each control group around the process leaves; memory that only caches files counts as free."""
    yield _ENDLESS
    for folder in dict.fromkeys(_groups(root, process)):
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most = _number(folder / limit)
            if most is not None and most < _ENDLESS:
                usage = _number(folder / used) or 0
                yield most - max(0, usage - _fields(folder / "memory.stat").get(cached, 0))


def _groups(root: Path, process: Path) -> Iterator[Path]:
    """Folders of the control groups around the process, of both versions; inside a container often the root alone."""
    for line in _lines(process):
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and "memory" not in names.split(","):
            continue
        top = root / "memory" if names else root
        inner = top / path.lstrip("/")
        yield top
        while inner != top and top in inner.parents:
            yield inner
            inner = inner.parent


def _of_address_space() -> int:
    """Bytes that `ulimit -v` leaves."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, OSError, ValueError):  # Windows has no such limit
        return _ENDLESS
    if most == resource.RLIM_INFINITY:
        return _ENDLESS
    pages = _lines(Path("/proc/self/statm"))
    return most - (int(pages[0].split()[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0)


def _number(file: Path) -> int | None:
    """The number in a file, None where there is none."""
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _fields(file: Path, unit: int = 1) -> dict[str, int]:
    """Name -> bytes of lines such as "MemAvailable: 1234 kB"."""
    pairs = (line.split() for line in _lines(file))
    return {pair[0]: int(pair[1]) * unit for pair in pairs if len(pair) > 1 and pair[1].isdigit()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
