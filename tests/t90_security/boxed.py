"""A call in a child process whose memory and processor time are bounded, and what it ended in."""

from __future__ import annotations

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from somareg.errors import InternalError, SomaregError


@dataclass(frozen=True)
class End:
    """How a call ended.

    Attributes:
        kind: "done", the name of the class of `somareg.errors` that was raised, or what else happened.
        message: of the error.
        is_fault: it is neither done nor refused as it should be: another exception, a crash, or a limit was hit.
        seconds: of the processor.
    """

    kind: str
    message: str
    is_fault: bool
    seconds: float


def boxed(call: Callable[[], object], most_bytes: float = 1e9, most_s: int = 30) -> End:
    """Make a call in a child.

    Args:
        call: to make.
        most_bytes: that it may allocate on top of what this process holds.
        most_s: seconds of the processor.
    """
    reading, writing = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(call, writing, int(most_bytes), most_s)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return End(name, f"killed by {name} after {seconds:.0f} s of the processor", True, seconds)
    kind, message, is_fault = json.loads(told)
    return End(kind, message, is_fault, seconds)


def _child(call: Callable[[], object], writing: int, most_bytes: int, most_s: int) -> None:
    fields = dict(
        line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmData"
    )
    held = int(fields["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + most_bytes, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + most_s + 1, spent + most_s + 5))
    try:
        call()
        end = ["done", "", False]
    except SomaregError as error:
        is_fault = isinstance(error, InternalError) or "\n" in str(error) or "out of memory;" in str(error)
        cause = "".join(traceback.format_exception(error)[-6:]) if is_fault else ""
        end = [type(error).__name__, f"{error} {cause}".strip(), is_fault]
    except BaseException as error:
        end = [type(error).__name__, "".join(traceback.format_exception(error)[-6:]), True]
    os.write(writing, json.dumps(end).encode()[:60_000] if len(json.dumps(end)) < 60_000 else b'["long", "", true]')
    os._exit(0)
