"""One run of the command: progress as it comes, cancel, and what it says at the end. Nothing of QGIS is needed here."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

GRACE_S = 10.0
"""Seconds that a cancelled run has to clear up after itself, before it is killed."""

TOLD = ("--json", "--progress=json")
"""Options by which the command tells programs what it does."""

_POLL_S = 0.1
_VERDICTS = (0, 3, 4)
_FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")
"""What QGIS sets for its own Python and GDAL, which another Python would stumble over."""


class FailedError(Exception):
    """The command ended with an error; the message is its one line."""


class CancelledError(Exception):
    """The run was cancelled; it has left nothing half-written."""


@dataclass
class Listener:
    """Who is told of a run.

    Attributes:
        progress: called with the share of work done, 0-1, and the name of the stage.
        message: called with each line that the command says besides.
        is_cancelled: asked ten times a second.
    """

    progress: Callable[[float, str], None] = field(default=lambda share, stage: None)
    message: Callable[[str], None] = field(default=lambda line: None)
    is_cancelled: Callable[[], bool] = field(default=lambda: False)


def run(command: Sequence[str], arguments: Sequence[str], listener: Listener, grace_s: float = GRACE_S) -> Any:
    """Run the command and give back its JSON document.

    Args:
        command: its file, and what comes before its arguments.
        arguments: `TOLD` among them. No shell reads them.
        listener: told of progress and messages.
        grace_s: see `GRACE_S`.

    Raises:
        FailedError: it cannot be started, or ended with an error.
        CancelledError: it was cancelled, and has ended.
    """
    try:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            encoding="utf-8",
            errors="replace",
            **_alone(),
        )
    except OSError as error:
        raise FailedError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    lines: queue.Queue[str] = queue.Queue()
    printed: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(process.stderr, lines.put), daemon=True),
        threading.Thread(target=_read, args=(process.stdout, printed.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    failures: list[str] = []
    try:
        while process.poll() is None:
            _tell(lines, listener, failures, wait_s=_POLL_S)
            if listener.is_cancelled():
                raise CancelledError
    finally:
        if process.poll() is None:
            _end(process, grace_s)
        for reader in readers:
            reader.join(timeout=5)
    _tell(lines, listener, failures)
    return _document("".join(printed), process.returncode, failures)


def _read(stream: Any, take: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            take(line)


def _tell(lines: queue.Queue[str], listener: Listener, failures: list[str], wait_s: float = 0.0) -> None:
    """Pass on what was said since the last time; errors are kept."""
    while True:
        try:
            line = lines.get(timeout=wait_s) if wait_s else lines.get_nowait()
        except queue.Empty:
            return
        wait_s = 0.0
        step = _step(line)
        if step is not None:
            listener.progress(*step)
        elif line.startswith("error: "):
            failures.append(line.removeprefix("error: ").strip())
        elif line.strip():
            listener.message(line.rstrip())


def _step(line: str) -> tuple[float, str] | None:
    """Share and stage of a line of `--progress json`; None of any other."""
    if not line.startswith('{"stage"'):
        return None
    try:
        told = json.loads(line)
        return min(max(float(told["share"]), 0.0), 1.0), str(told["stage"])
    except (ValueError, TypeError, KeyError):
        return None


def _document(printed: str, code: int, failures: Sequence[str]) -> Any:
    try:
        document = json.loads(printed) if printed.strip() else {}
    except ValueError:
        document = {}
    error = document.get("error") if isinstance(document, dict) else None
    if code in _VERDICTS and document and not error:
        return document
    if code == 1 and document and not error:  # a batch of which some pairs failed: the others are there
        return document
    if isinstance(error, dict) and error.get("message"):
        raise FailedError(str(error["message"]))
    if failures:
        raise FailedError(failures[-1])
    if code < 0:
        raise FailedError(f"somareg was ended by signal {-code}, perhaps for want of memory; see --max-memory")
    raise FailedError(f"somareg ended with exit code {code} and said nothing")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return {**kept, "PYTHONIOENCODING": "utf-8"}


def _alone() -> dict[str, Any]:
    """A group of its own, so that a cancel reaches its workers and nobody else; no window on Windows."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _end(process: Any, grace_s: float) -> None:
    """Interrupt it as Ctrl-C does, which makes it clear up; kill what has not ended then."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
        process.wait()
        return
    _signal(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=grace_s)
    _signal(process.pid, signal.SIGKILL)  # workers that outlive it, too
    process.wait()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
