"""How a failure ends a command: one line on stderr, an exit code, and with --json a document on stdout."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping

import typer

from somareg.errors import ConfigError, InternalError, as_somareg_error

GO, ERROR, USAGE, REVIEW, NO_GO, INTERRUPTED = 0, 1, 2, 3, 4, 130
DECISION_CODES: Mapping[str, int] = {"go": GO, "review": REVIEW, "no-go": NO_GO}

# Typer ships its own copy of Click since 0.2x; BadParameter's parent is the usage error of whichever copy is in use.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def one_line(text: str) -> str:
    """`text` on one line, control characters escaped: file names are not trusted to behave in a terminal."""
    flat = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in flat)


def explain(error: BaseException, *, verbose: bool) -> tuple[str, int]:
    """The one-line message and the exit code of a failure."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted; nothing half-written was left", INTERRUPTED
    if isinstance(error, UsageError):
        return _explain_usage(error), USAGE
    told = as_somareg_error(error) if isinstance(error, Exception) else error
    if isinstance(told, ConfigError):
        return str(told), USAGE
    if isinstance(told, InternalError):
        hint = "" if verbose else "run with -v for the traceback; "
        return f"{told.what}; {hint}{told.report}", ERROR
    return str(told), ERROR


def report_failure(error: BaseException, *, as_json: bool, verbose: bool) -> int:
    """Print a failure (traceback first with -v) and return the exit code."""
    message, code = explain(error, verbose=verbose)
    message = one_line(message)
    if verbose and code != USAGE:
        traceback.print_exception(error, file=sys.stderr)
    print(f"error: {message}", file=sys.stderr)
    if as_json:
        kind = type(as_somareg_error(error) if code == ERROR and isinstance(error, Exception) else error).__name__
        document = {"error": {"type": kind, "message": message, "exit_code": code}}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    return code


def _explain_usage(error: Exception) -> str:
    """A usage error in our words: what was not understood and the nearest thing that exists."""
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", None) or "somareg"
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        near = error.possibilities
        hint = f"Did you mean '{near[0]}'?" if near else f"See '{path} --help'."
        return f"unknown option '{option}'. {hint}"
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    message = message.rstrip().replace("No such command", "Unknown command", 1)
    message = message[:1].lower() + message[1:]
    return message if "Did you mean" in message else f"{message.rstrip('.')}. See '{path} --help'."
