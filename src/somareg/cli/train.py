"""`somareg train`: fit the network to pairs; stops in time, resumes after a kill."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from somareg.cli import options as o
from somareg.cli.failures import UsageError
from somareg.cli.flags import takes_options
from somareg.cli.session import Session, session
from somareg.config import RegisterConfig

if TYPE_CHECKING:
    from somareg.lab.train.config import TrainCfg
    from somareg.lab.train.engine import TrainResult

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="settings, YAML (configs/); with --resume OUT's own"),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="folder for checkpoints and log (created)")]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="TILES", help="shards of tiles: file, folder or pattern; may be repeated"),
]
Validation = Annotated[str | None, typer.Option("--validation", metavar="FILE", help="samples to validate on")]
Minutes = Annotated[float | None, typer.Option("--max-minutes", metavar="M", help="stop this call after M minutes")]
Resume = Annotated[bool, typer.Option("--resume", help="continue from OUT's last checkpoint")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a setting: run.batch=16; may be repeated"),
]
Diagnose = Annotated[bool, typer.Option("--diagnose", help="look inside the network at the end (OUT/diagnosis.json)")]


@takes_options("device")
def train(
    *,
    out: Out,
    config: Config = None,
    data: Data = None,
    validation: Validation = None,
    max_minutes: Minutes = None,
    resume: Resume = False,
    settings: Set = None,
    asked: RegisterConfig,
    diagnose: Diagnose = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Train the network; with --resume it continues where it was stopped or killed."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        if resume and overwrite:
            raise UsageError("use --resume or --overwrite, not both")
        own = out / "config.yaml"
        if config is None and not (resume and own.exists()):
            raise UsageError("missing option '--config': give a YAML file, such as configs/base.yaml")
        from somareg.io.folders import keep_inputs
        from somareg.lab.train.config import load_config

        if not resume:
            keep_inputs((own,), {"configuration": config})

        extra = device_settings(asked.device)
        if validation is not None:
            extra["data.validation"] = validation
        if data:
            extra["data.tiles"] = list(data)
        cfg = load_config(config or own, settings or (), extra)
        run(ui, cfg, out, resume=resume, max_minutes=max_minutes, overwrite=overwrite, diagnose=diagnose)


def device_settings(name: str) -> dict[str, Any]:
    """`--device` as settings: "cuda:1" is the second GPU; "auto" leaves what the configuration says.

    Raises:
        ConfigError: not a device that trains.
    """
    if name == "auto":
        return {}
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        from somareg.errors import ConfigError

        raise ConfigError(f"unknown --device '{name}'. Choose from auto, cpu, cuda, cuda:1.")
    settings: dict[str, Any] = {"run.accelerator": kind}
    return settings | {"run.devices": [int(number)]} if number else settings


def run(ui: Session, cfg: TrainCfg, out: Path, **options: Any) -> None:
    """Train and print the result; only the first of several processes prints."""
    from somareg.lab.train.engine import is_main_process
    from somareg.lab.train.engine import train as fit

    if not is_main_process():
        fit(cfg, out, **options)
        return
    with ui.working():
        # A line above the bar; stdout is for the result.
        result = fit(cfg, out, progress=ui.progress, report=None if ui.quiet else ui.err.print, **options)
    if ui.as_json:
        from dataclasses import asdict

        ui.emit({key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()})
    elif ui.wants_text:
        print_result(ui, result, out)


def print_result(ui: Session, result: TrainResult, out: Path) -> None:
    """Figures, scores, files and what to run next."""
    from rich.text import Text

    why = {"steps": "all steps done", "time": "time is up", "interrupted": "interrupted", "done": "nothing left to do"}
    rows = [
        ("stopped", why[result.stopped]),
        ("steps, minutes", f"{result.steps}, {result.minutes:.1f}"),
        ("pairs/s", f"{result.pairs_per_second:.1f} ({result.data_share:.0%} of the time for making them)"),
        *((("skipped steps", str(result.skipped)),) if result.skipped else ()),
        *((name, f"{value:.4g}") for name, value in result.scores.items() if "/" not in name),
        ("checkpoint", str(result.checkpoint)),
        *((("best so far", str(result.best)),) if result.best is not None else ()),
        *((("diagnosis", str(result.diagnosis)),) if result.diagnosis is not None else ()),
        *(("alarm", alarm) for alarm in result.alarms),
    ]
    width = max(len(label) for label, _ in rows) + 3
    for label, value in rows:
        ui.out.print(Text(f"{label:<{width}}{value}"), soft_wrap=True)  # a table would cut long paths off
    chosen = result.best or result.checkpoint
    if result.stopped == "interrupted":
        ui.out.print(Text(f"continue with: somareg train --resume -o {shlex.quote(str(out))}"), soft_wrap=True)
    weights = shlex.quote(str(out / "model.safetensors"))
    ui.out.print(Text(f"next: somareg export {shlex.quote(str(chosen))} -o {weights}"), soft_wrap=True)
