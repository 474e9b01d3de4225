"""The errors of somareg, one family of exceptions.

Each error is also the builtin that a caller would expect (`OSError`, `ValueError`). Its message is one line that says
what happened, where (file or option) and the way out. Public functions are `guarded`: they raise nothing else.
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar


class SomaregError(Exception):
    """Base of all errors that somareg raises on purpose."""


class InputError(SomaregError, ValueError):
    """An input image or array cannot be used as given (shape, size, dtype, content)."""


class ReadError(SomaregError, OSError):
    """A file is missing, truncated, damaged, or not of an allowed format."""


class NoDataError(InputError):
    """An image holds no valid pixel, or too few."""


class GeoreferenceError(InputError):
    """The georeferences of a pair cannot be combined (CRS in one image only, degenerate geotransform)."""


class NoOverlapError(GeoreferenceError):
    """The two images do not cover common ground."""


class UnsupportedError(SomaregError, ValueError):
    """A valid input that somareg does not support; the message names an alternative."""


class ConfigError(SomaregError, ValueError):
    """An unknown option, preset or value; the message suggests the nearest valid one."""


class WeightsError(SomaregError, OSError):
    """Model weights are missing or damaged, or contradict their card."""


class OutputError(SomaregError, OSError):
    """An output cannot be written (exists, read-only, disk full); nothing half-written is left behind."""


class EstimationError(SomaregError, RuntimeError):
    """No transform can be computed from the matches (too few, ill-conditioned)."""


class JobError(SomaregError, RuntimeError):
    """A job failed with an error of no other class here, or every worker that tried it died."""


class ClusterError(SomaregError, OSError):
    """The cluster cannot be reached, has lost its workers, or runs another version of somareg."""


class MemoryLimitError(MemoryError, SomaregError):
    """The work needs more memory than the limit, or memory ran out; the message says what needs less."""


class InternalError(SomaregError, RuntimeError):
    """A bug in somareg or in one of its dependencies; the message says how to report it.

    Attributes:
        what: what happened, without the advice to report it.
        place: module and line in somareg, "" when unknown.
    """

    def __init__(self, what: str, place: str = "") -> None:
        self.what, self.place = what, place
        super().__init__(f"{what}; this is a fault of somareg: {self.report}")

    def __reduce__(self) -> tuple[type[InternalError], tuple[str, str]]:
        return type(self), (self.what, self.place)

    @property
    def report(self) -> str:
        """Advice on how to report the bug."""
        where = f" ({self.place})" if self.place else ""
        return f"please report this line{where} with the output of 'somareg doctor' and, if you may, the files"


P = ParamSpec("P")
R = TypeVar("R")
_MEMORY = re.compile(
    "out of memory|can.t allocate memory|cannot allocate|not enough memory|insufficient memory|array is too big", re.I
)
_LONGEST = 300  # most characters of another library's message


def as_somareg_error(error: Exception) -> SomaregError:
    """Convert any exception to this family; members of it are returned unchanged."""
    if isinstance(error, SomaregError):
        return error
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return MemoryLimitError("out of memory; use preset 'fast' or smaller images, or free some memory")
    if isinstance(error, OSError) and error.strerror:
        name = error.filename if isinstance(error.filename, str) else "a file"
        return ReadError(f"{name} cannot be used: {error.strerror}; check that it is there and may be read")
    return InternalError(f"unexpected {type(error).__name__}: {text or 'no message'}", _place(error))


def guarded(call: Callable[P, R]) -> Callable[P, R]:
    """Decorator of public functions: every exception inside leaves as a `SomaregError`.

    An exception of the caller's own `progress`, raised to stop the work, passes unchanged through all handlers.
    """

    @functools.wraps(call)
    def behind_the_door(*args: P.args, **kwargs: P.kwargs) -> R:
        options: Any = kwargs
        relay = _Relay(options["progress"]) if callable(options.get("progress")) else None
        if relay:
            options["progress"] = relay
        try:
            return call(*args, **kwargs)
        except _CallersError as stopped:
            if stopped.relay is relay:  # else an outer guarded function unwraps it
                raise stopped.error from None
            raise
        except SomaregError:
            raise
        except Exception as error:
            raise as_somareg_error(error) from error

    return behind_the_door


class _CallersError(BaseException):
    """Carries an exception of the caller's function through somareg."""

    def __init__(self, relay: _Relay, error: Exception) -> None:
        super().__init__(error)
        self.relay, self.error = relay, error


class _Relay:
    """Wraps the caller's function and its exceptions in `_CallersError`; nested relays keep the innermost."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        try:
            return self._call(*args)
        except Exception as error:
            raise _CallersError(self, error) from error


def _place(error: Exception) -> str:
    """The innermost line of somareg in the traceback of an exception."""
    home = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(home):
            return f"{path.relative_to(home).as_posix()}:{frame.lineno}"
    return ""
