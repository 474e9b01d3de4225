"""`somareg export CHECKPOINT -o MODEL.safetensors`: from a training checkpoint to weights that `register` takes.

With `-o MODEL.onnx` from a checkpoint or from weights to ONNX graphs of the encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from somareg.cli import options as o
from somareg.cli.flags import takes_options
from somareg.cli.session import Session, session
from somareg.config import RegisterConfig
from somareg.errors import ConfigError

if TYPE_CHECKING:
    from somareg.lab.train.export_onnx import OnnxExport
    from somareg.soma.weights import ModelCard

Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="checkpoint that 'somareg train' wrote; for ONNX also exported weights"),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="weights to write, ending in .safetensors; or .onnx: the encoder, one graph per modality",
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="name of the model; default: that of the file")
]
Licence = Annotated[str | None, typer.Option("--licence", metavar="TEXT", help="licence of the weights")]
Raw = Annotated[bool, typer.Option("--raw", help="weights of the last step, not their moving average")]

Validation = Annotated[
    Path | None,
    typer.Option(
        "--validation", metavar="FILE", help="measure what is exported on these samples (docs/data.md), for the card"
    ),
]


@takes_options("dinov2")
def export(
    checkpoint: Checkpoint,
    *,
    out: Out,
    name: Name = None,
    licence: Licence = None,
    raw: Raw = False,
    validation: Validation = None,
    asked: RegisterConfig,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Write the network of a checkpoint as safetensors, with a card that says what it is, or its encoder as ONNX."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        from somareg.io.folders import keep_inputs

        keep_inputs((out, out.with_suffix(".json")), {"checkpoint": checkpoint, "file of samples": validation})
        if out.suffix == ".onnx":
            if validation is not None:
                raise ConfigError("--validation measures weights; export to .safetensors with it, then that to ONNX")
            if asked.dinov2 is not None:
                raise ConfigError("--dinov2 has no meaning for ONNX, which has no graph of DINOv2; leave it out")
            _export_onnx(ui, checkpoint, out, name=name, licence=licence, raw=raw, overwrite=overwrite)
            return
        from somareg.lab.data.stacks import ProtocolSamples
        from somareg.lab.train.export import export_checkpoint
        from somareg.soma.weights.card import card_path

        with ui.working():
            ui.progress("exporting", 0.0)
            samples = None if validation is None else ProtocolSamples.load(validation)
            options: dict[str, Any] = {"name": name, "licence": licence, "raw": raw, "samples": samples}
            card = export_checkpoint(checkpoint, out, dinov2=asked.dinov2, overwrite=overwrite, **options)
        beside, size = card_path(out), out.stat().st_size
        if as_json:
            files = {"weights": str(out.resolve()), "card": str(beside.resolve()), "bytes": size}
            ui.emit(files | {"model": card.as_json()})
        elif ui.wants_text:
            print_card(ui, card, out, size)


def _export_onnx(ui: Session, source: Path, out: Path, **options: Any) -> None:
    """Write the ONNX graphs, and print what was written as text or JSON."""
    from somareg.lab.train.export_onnx import export_onnx

    with ui.working():
        ui.progress("exporting to ONNX, which takes a minute", 0.0)
        done = export_onnx(source, out, **options)
    if ui.as_json:
        files = {
            branch: {"file": str(path.resolve()), "bytes": path.stat().st_size} for branch, path in done.files.items()
        }
        ui.emit({"onnx": files, "difference": done.difference, "model": done.card.as_json()})
    elif ui.wants_text:
        print_graphs(ui, done)


def print_graphs(ui: Session, done: OnnxExport) -> None:
    """Name, graphs and how far they are from PyTorch, one per line."""
    from somareg.report.words import file_size

    print_rows(
        ui,
        [
            ("model", done.card.name),
            *((branch, f"{path} ({file_size(path.stat().st_size)})") for branch, path in done.files.items()),
            ("licence", done.card.licence),
            ("sha256", f"{done.card.sha256} (of the weights)"),
            ("difference", f"at most {done.difference:.1g} from PyTorch"),
        ],
    )


def print_card(ui: Session, card: ModelCard, out: Path, size: int) -> None:
    """Name, files, figures and scores, one per line."""
    from rich.text import Text

    from somareg.cli.failures import one_line
    from somareg.report.words import file_size

    rows = [
        ("model", card.name),
        ("weights", f"{out} ({file_size(size)})"),
        ("card", str(out.with_suffix(".json"))),
        ("parameters", f"{card.parameters:,}"),
        ("trained", f"{card.minutes:.4g} min, {card.steps} steps on {card.device}; {card.notes}"),
        ("licence", card.licence),
        ("sha256", card.sha256),
        *([("DINOv2", f"{card.dinov2.name}, sha256 {card.dinov2.sha256}")] if card.dinov2 else []),
        *((f"score {key}", value) for key, value in flat_scores(card.scores)),
    ]
    print_rows(ui, rows)
    dinov2 = " --dinov2 PATH" if card.dinov2 else ""
    ui.out.print(
        Text(f"Use it with: somareg register MOVING REFERENCE -o OUT --model {one_line(str(out))}{dinov2}"),
        soft_wrap=True,
    )


def print_rows(ui: Session, rows: list[tuple[str, str]]) -> None:
    """Labels and values in two columns; each value is one line, whatever is in it."""
    from rich.text import Text

    from somareg.cli.failures import one_line

    width = max(len(label) for label, _ in rows) + 2
    for label, value in rows:
        ui.out.print(Text(f"{one_line(label):<{width}}{one_line(value)}"), soft_wrap=True)


def flat_scores(scores: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested scores as rows: `{"val": {"cmr@1": 0.5}}` -> `[("val cmr@1", "0.5")]`; what is unknown is a dash."""
    rows: list[tuple[str, str]] = []
    for key, value in scores.items():
        label = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            rows += flat_scores(value, label)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            rows.append((label, "–" if value is None else f"{value:.4g}" if number else str(value)))
    return rows
