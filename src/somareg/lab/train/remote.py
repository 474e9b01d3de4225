"""A run on a borrowed machine: from one bundle of data to a few small files, within a time limit.

The run has a folder of its own, where the next call continues it. The files to take home are rewritten after every
validation, so that little is lost when the machine goes away.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from somareg.config import did_you_mean
from somareg.errors import ConfigError, ReadError
from somareg.io.atomic import atomic_path
from somareg.io.folders import make_folder
from somareg.lab.train.callbacks import BEST, LAST
from somareg.lab.train.config import TrainCfg, load_config
from somareg.lab.train.curves import draw_curves
from somareg.lab.train.engine import TrainResult, train
from somareg.lab.train.export import export_checkpoint
from somareg.lab.train.logs import TABLES

PIECE_BYTES = 16 * 2**20
MOST_FILES, MOST_BYTES = 8, 60 * 2**20
_EXPORT_MINUTES = 0.25
_TELL_SECONDS = 30.0
_PART = ".part-"


@dataclass(frozen=True)
class Trip:
    """The arguments of a call.

    Attributes:
        pack: bundle of tiles and samples (`somareg.lab.data.bundle`).
        plan: name, and of the exported model.
        config: the plan's YAML file.
        minutes: wall clock of this call, decoding and export included.
        run: folder of the run; an existing run continues.
        home: folder for the files to take home.
        total_minutes: length of the schedule over all calls; None ends it with this call.
        overrides: texts "key.sub=value" on top of the plan.
        earlier: folder with the pieces of a checkpoint from another machine.
    """

    pack: Path
    plan: str
    config: Path
    minutes: float
    run: Path
    home: Path
    total_minutes: float | None = None
    overrides: tuple[str, ...] = ()
    earlier: Path | None = None


def plan_file(folder: Path, plan: str) -> Path:
    """The configuration of a plan.

    Raises:
        ConfigError: no such plan; the message names those there are.
    """
    plans = sorted(path.stem for path in folder.glob("*.yaml"))
    if plan not in plans:
        raise ConfigError(f"unknown plan '{plan}'.{did_you_mean(plan, plans)}")
    return folder / f"{plan}.yaml"


def travel(trip: Trip, tell: Callable[[str], None] = print) -> TrainResult:
    """Train, and write averaged weights with their card, log, curves and the last checkpoint into `trip.home`.

    Args:
        trip: the arguments.
        tell: called with lines for a terminal.

    Raises:
        ConfigError, ReadError, OutputError, EstimationError: see `train`; too few minutes.
    """
    started = time.monotonic()
    if trip.minutes <= 2 * _EXPORT_MINUTES:
        raise ConfigError(f"--minutes {trip.minutes:g} leaves no time to train; give more than {2 * _EXPORT_MINUTES:g}")
    cfg = _config(trip)
    last = trip.run / LAST
    if trip.earlier is not None and not last.exists():
        join(trip.earlier, LAST, last)
        for name in TABLES:
            if (trip.earlier / name).exists():
                shutil.copyfile(trip.earlier / name, trip.run / name)
    goes_on = last.exists()
    tell(f"plan {trip.plan}, {'going on from ' + str(last) if goes_on else 'from nothing'}")
    if not goes_on:
        shutil.rmtree(trip.run, ignore_errors=True)

    def validated(line: str) -> None:
        tell(line)
        bring_home(trip)

    result = train(
        cfg,
        trip.run,
        resume=goes_on,
        max_minutes=trip.minutes - _EXPORT_MINUTES - (time.monotonic() - started) / 60,
        progress=_Ticker(tell),
        report=validated,
    )
    for line in bring_home(trip):
        tell(line)
    tell(_summary(result, cfg))
    return result


def _config(trip: Trip) -> TrainCfg:
    """The plan, adapted to the data of the pack and to this machine."""
    extra: dict[str, Any] = {"data.tiles": [str(trip.pack)], "data.validation": str(trip.pack)}
    if trip.total_minutes is not None:
        extra["optimiser.total_minutes"] = trip.total_minutes
    cfg = load_config(trip.config, trip.overrides, extra)
    if not torch.cuda.is_available():  # half precision is slower on most CPUs
        cfg = replace(cfg, run=replace(cfg.run, precision="32-true"))
    return cfg


class _Ticker:
    """Reports the speed of a run twice a minute, and after the first minute an estimate for the whole call."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self._started = self._told = time.monotonic()
        self._is_first = True

    def __call__(self, line: str, share: float) -> None:
        now = time.monotonic()
        if now - self._told < (60.0 if self._is_first else _TELL_SECONDS):
            return
        self._told, self._is_first = now, False
        minutes = (now - self._started) / 60
        left = minutes * (1 / share - 1) if share > 0 else float("nan")
        self.tell(f"{minutes:.1f} min of this call, {left:.1f} left: {line}")


def bring_home(trip: Trip) -> list[str]:
    """Write the files to take home, at most `MOST_FILES` of 16 MiB and `MOST_BYTES` together; returns a line per file.

    Weights and card of the checkpoint that validated best (without one: of the last), log and curves come first; the
    last checkpoint, in pieces, follows if it fits.
    """
    run, home = trip.run, trip.home
    make_folder(home)
    best = run / BEST if (run / BEST).exists() else run / LAST
    weights = run / f"{trip.plan}.safetensors"
    export_checkpoint(best, weights, overwrite=True)
    written = [*split(weights, home), _copy(weights.with_suffix(".json"), home)]
    written += [_copy(run / name, home) for name in TABLES if (run / name).exists()]
    curves = draw_curves(run, home / "curves.png")
    written += [curves] if curves else []
    last = run / LAST
    pieces = -(-last.stat().st_size // PIECE_BYTES)
    used = sum(path.stat().st_size for path in written)
    lines = []
    if len(written) + pieces <= MOST_FILES and used + last.stat().st_size <= MOST_BYTES:
        written += split(last, home)
    else:
        _clear(home, LAST)
        lines = [f"{last.name}: {last.stat().st_size / 2**20:.0f} MiB are too much to bring home; it stays in {run}"]
    return [*(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB" for path in written), *lines]


def _copy(path: Path, folder: Path) -> Path:
    with atomic_path(folder / path.name, overwrite=True) as part:
        shutil.copyfile(path, part)
    return folder / path.name


def split(path: Path, folder: Path) -> list[Path]:
    """Copy a file into a folder, in pieces NAME.part-00 and so on if it is larger than `PIECE_BYTES`."""
    _clear(folder, path.name)
    size = path.stat().st_size
    if size <= PIECE_BYTES:
        return [_copy(path, folder)]
    pieces = []
    with path.open("rb") as file:
        for number in range(-(-size // PIECE_BYTES)):
            piece = folder / f"{path.name}{_PART}{number:02d}"
            with atomic_path(piece, overwrite=True) as part:
                part.write_bytes(file.read(PIECE_BYTES))
            pieces.append(piece)
    return pieces


def join(folder: Path, name: str, out: Path) -> Path:
    """The inverse of `split`.

    Raises:
        ReadError: the folder holds neither the file nor all of its pieces.
    """
    pieces = [folder / name] if (folder / name).exists() else sorted(folder.glob(f"{name}{_PART}*"))
    expected = [f"{name}{_PART}{number:02d}" for number in range(len(pieces))]
    if not pieces or (pieces[0].name != name and [piece.name for piece in pieces] != expected):
        raise ReadError(f"{folder} holds no whole {name}; give the folder that an earlier call filled")
    make_folder(out.parent)
    with atomic_path(out, overwrite=True) as part, part.open("wb") as file:
        for piece in pieces:
            with piece.open("rb") as one:
                shutil.copyfileobj(one, file)
    return out


def _clear(folder: Path, name: str) -> None:
    """Remove an earlier copy of a file, whole or in pieces."""
    for path in [folder / name, *folder.glob(f"{name}{_PART}*")]:
        path.unlink(missing_ok=True)


def _summary(result: TrainResult, cfg: TrainCfg) -> str:
    memory = ""
    if torch.cuda.is_available():
        memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the device"
    scores = ", ".join(f"{name} {value:.3g}" for name, value in result.scores.items() if "/" not in name)
    return (
        f"stopped by {result.stopped} after {result.minutes:.1f} min, {result.steps} steps of {cfg.run.batch} pairs; "
        f"{result.pairs_per_second:.1f} pairs/s, {100 * result.data_share:.0f} % of a step for its batch, "
        f"{result.skipped} skipped{memory}; {scores or 'not validated'}"
    )


def main(arguments: Sequence[str] | None = None, *, plans: Path) -> int:
    """The command line of `tools/gpu_hour.py`; returns the exit code."""
    import argparse
    import sys

    from somareg.errors import SomaregError

    parser = argparse.ArgumentParser(
        prog="gpu_hour.py", description="Train from one pack for a given time and write weights, card, log and curves."
    )
    parser.add_argument("pack", type=Path, help="file of `make gpu-pack`")
    parser.add_argument("--plan", required=True, help=", ".join(sorted(path.stem for path in plans.glob("*.yaml"))))
    parser.add_argument("--minutes", type=float, required=True, help="wall clock of this call, all included")
    parser.add_argument("--out", type=Path, required=True, help="folder for what goes home")
    parser.add_argument("--total-minutes", type=float, help="length of the schedule over all calls; default: this call")
    parser.add_argument("--run", type=Path, help="folder of the run; default: runs/gpu/PLAN. A run there continues")
    parser.add_argument("--earlier", type=Path, help="folder with the checkpoint that an earlier call brought home")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the plan")
    parsed = parser.parse_args(arguments)
    try:
        trip = Trip(
            parsed.pack,
            parsed.plan,
            plan_file(plans, parsed.plan),
            parsed.minutes,
            parsed.run or Path("runs/gpu") / parsed.plan,
            parsed.out,
            parsed.total_minutes,
            tuple(parsed.set),
            parsed.earlier,
        )
        travel(trip, lambda line: print(line, flush=True))
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
