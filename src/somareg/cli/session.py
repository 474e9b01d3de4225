"""What every command shares while it runs: consoles, logging, the progress bar, JSON, and the way it ends."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from somareg.cli.failures import UsageError, report_failure
from somareg.cli.options import check_choice
from somareg.runtime import memory
from somareg.runtime.threads import wait_politely

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


PROGRESS = ("bar", "json", "none")


class Session:
    """The terminal side of one command.

    Results go to stdout (rich text, or one JSON document with `--json`); progress, logs and errors go to stderr.
    """

    def __init__(self, *, as_json: bool, verbose: bool, quiet: bool, progress: str = "bar") -> None:
        from rich.console import Console

        self.as_json = as_json
        self.verbose = verbose
        self.quiet = quiet
        self.out: Console = Console(highlight=False)
        self.err: Console = Console(stderr=True, highlight=False)
        self._shows = progress
        self._told: tuple[str, float] = ("", -1.0)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    @property
    def wants_text(self) -> bool:
        """True when a summary for people is to be printed."""
        return not (self.as_json or self.quiet)

    def progress(self, stage: str, fraction: float) -> None:
        """Show that `stage` is done to `fraction` (0-1); the callback that the Python API takes."""
        if self._shows == "json":
            step = stage, round(min(max(fraction, 0.0), 1.0), 3)
            if step != self._told:
                self._told = step
                print(json.dumps({"stage": step[0], "share": step[1]}), file=sys.stderr, flush=True)
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=stage, completed=fraction)

    def emit(self, document: Mapping[str, Any]) -> None:
        """Print the one JSON document of `--json`."""
        from somareg.report.plain import plain

        print(json.dumps(plain(document), ensure_ascii=False, indent=2, allow_nan=False))

    def written(self, file: Path, **more: Any) -> None:
        """Say which file was written: its path, or with `--json` also its size and `more`."""
        if self.as_json:
            self.emit({"output": str(file.resolve()), "bytes": file.stat().st_size, **more})
        elif self.wants_text:
            self.out.print(str(file.resolve()), markup=False, soft_wrap=True)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show the progress bar on stderr while the work runs: on a terminal, unless something else was asked for."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        hidden = self.quiet or self._shows != "bar" or not self.err.is_terminal
        done, left = TimeElapsedColumn(), TimeRemainingColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), done, TextColumn("left"), left)
        # Tiles of a scene may take minutes each, so the speed is averaged over the last ten minutes.
        with Progress(*columns, console=self.err, transient=True, disable=hidden, speed_estimate_period=600) as bar:
            self._bar, self._task = bar, bar.add_task("starting", total=1.0)
            try:
                yield
            finally:
                self._bar = self._task = None


@contextmanager
def session(*, as_json: bool, verbose: bool, quiet: bool, progress: str = "bar") -> Iterator[Session]:
    """Run the body of a command: logging on, and any failure turned into one line and an exit code."""
    if verbose and quiet:
        raise UsageError("use -v or -q, not both")
    check_choice("--progress", progress, PROGRESS)
    ui = Session(as_json=as_json, verbose=verbose, quiet=quiet, progress=progress)
    memory.keep()
    wait_politely()
    try:
        with _logging(ui):
            yield ui
            sys.stdout.flush()
    except typer.Exit:
        raise
    except BrokenPipeError:
        # The reader of our output went away (`| head`); point stdout elsewhere so that the interpreter ends quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(1) from None
    except (Exception, KeyboardInterrupt) as error:
        raise typer.Exit(report_failure(error, as_json=as_json, verbose=verbose)) from None


def prepare_workers(workers: int | None, module: str) -> None:
    """Let workers import what they need while the command does; see `somareg.jobs.processes.prepare`."""
    if workers is not None and workers > 1:
        from somareg.jobs.processes import prepare

        prepare(module)


@contextmanager
def _logging(ui: Session) -> Iterator[None]:
    """Send the package's log to stderr while the command runs, then leave logging as it was."""
    from rich.logging import RichHandler

    handler = RichHandler(console=ui.err, markup=False, show_path=False, show_time=ui.verbose, rich_tracebacks=False)
    level = logging.DEBUG if ui.verbose else logging.ERROR if ui.quiet else logging.WARNING
    loggers = [logging.getLogger("somareg"), logging.getLogger("py.warnings")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    for logger, floor in zip(loggers, (level, level if ui.verbose else logging.CRITICAL), strict=True):
        logger.addHandler(handler)
        logger.setLevel(floor)
        logger.propagate = False
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (old_level, old_propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old_level)
            logger.propagate = old_propagate
