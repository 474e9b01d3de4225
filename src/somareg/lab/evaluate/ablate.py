"""Small ablations: the same tiles, minutes and seed for every row, measured on the same samples.

Run `python -m somareg.lab.evaluate.ablate --data TILES --validation SAMPLES --out FOLDER --page docs/ablations.md`.
Rows are trained one after another by the training engine. A finished row is not trained again, a
killed one continues from its checkpoint; the table is made anew from all rows each time.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from somareg.config import from_mapping, to_mapping
from somareg.errors import ConfigError, ReadError, SomaregError
from somareg.io.atomic import write_text
from somareg.io.folders import make_folder
from somareg.lab.evaluate.ablation_config import ROWS, AblateCfg, row_config
from somareg.lab.evaluate.ablation_page import Setting, around, update_page
from somareg.lab.evaluate.ablation_rows import Judge, Row, Training
from somareg.lab.train.config import TrainCfg, load_config
from somareg.lab.train.export import network_state, read_checkpoint
from somareg.soma.network import Soma

RESULT = "ablations.json"
_TRAINED = "last.ckpt"

Report = Callable[[str], None]


class Interrupted(Exception):
    """A signal requested a stop; all results so far are kept."""


def ablate(asked: AblateCfg, report: Report = lambda line: None) -> list[Row]:
    """Train and measure missing rows, write `RESULT`, and return all rows, the yardsticks last.

    Args:
        asked: the settings.
        report: called with a line per row.

    Raises:
        Interrupted: a signal requested a stop; the same call continues later.
        ConfigError: unknown row; the folder holds a row that was trained with other settings.
        ReadError, OutputError, EstimationError: see `lab.train.engine.train`.
    """
    configs = {name: row_config(name, asked) for name in asked.rows}  # a wrong name raises before any training
    uses_cuda = asked.accelerator != "cpu" and torch.cuda.is_available()
    judge = Judge(asked.validation, asked.limit, torch.device("cuda" if uses_cuda else "cpu"))
    make_folder(asked.out)
    rows = [_trained_row(name, cfg, asked.out, judge, report) for name, cfg in configs.items()]
    rows.append(_kept(asked.out / "weight-free.json", judge, lambda: Row("weight-free", judge.of_engine())))
    rows.append(_kept(asked.out / "identity.json", judge, lambda: Row("identity", judge.of_identity())))
    _write(asked.out / RESULT, {"rows": to_mapping(rows)})
    return rows


def _trained_row(name: str, cfg: TrainCfg, out: Path, judge: Judge, report: Report) -> Row:
    folder, result = out / name, out / f"{name}.json"
    _check_same(folder, cfg)
    checkpoint = folder / _TRAINED
    if not _is_finished(checkpoint, cfg):
        report(f"{name}: training")
        result.unlink(missing_ok=True)  # its folder was removed since
        _train(cfg, folder)

    def measure() -> Row:
        report(f"{name}: measuring")
        content = read_checkpoint(checkpoint)
        network = Soma(cfg.network)
        network.load_state_dict(network_state(content, checkpoint))
        network.eval().to(judge.device)
        return Row(name, judge.of_network(network), _training(content["somareg"], cfg, network))

    return _kept(result, judge, measure)


def _check_same(folder: Path, cfg: TrainCfg) -> None:
    config = folder / "config.yaml"
    if config.exists() and load_config(config) != cfg:
        raise ConfigError(
            f"{folder} was trained with other settings; give another --out, the settings of {config}, or remove it"
        )


def _is_finished(checkpoint: Path, cfg: TrainCfg) -> bool:
    """Whether the minutes of a row are used up, because a call of the engine would do one more step."""
    if not checkpoint.exists():
        return False
    limit = cfg.optimiser.total_minutes
    assert limit is not None
    return float(read_checkpoint(checkpoint)["somareg"]["minutes"]) >= limit - 1e-6


def _train(cfg: TrainCfg, folder: Path) -> None:
    from somareg.lab.train.engine import train  # Lightning is needed here only

    if train(cfg, folder, resume=True).stopped == "interrupted":
        raise Interrupted


def _training(record: Mapping[str, Any], cfg: TrainCfg, network: Soma) -> Training:
    return Training(
        parameters=network.parameter_count,
        minutes=float(record["minutes"]),
        steps=int(record["steps"]),
        pairs=int(record["steps"]) * cfg.run.batch,
        skipped=int(record["skipped"]),
        batch=cfg.run.batch,
        crop=cfg.data.draw.crop,
        synthetic_share=float(record["synthetic_share"]),
        drawn_from={str(each["set"]): int(each["pairs"]) for each in record["data"]},
        device=str(record["device"]),
        seed=int(record["seed"]),
        version=str(record["version"]),
    )


def _kept(path: Path, judge: Judge, make: Callable[[], Row]) -> Row:
    """The row in a file, if it was measured on these samples; else a newly measured one, written there."""
    if path.exists():
        try:
            row = from_mapping(Row, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ReadError(f"{path} is not a row of ablations ({error}); remove it") from error
        if row.measured.samples == judge.fingerprint:
            return row
    row = make()
    _write(path, to_mapping(row))
    return row


def _write(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n", overwrite=True)


# --- the command ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m somareg.lab.evaluate.ablate`: train the rows, measure them, write the table."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = vars(_parser().parse_args(words))
    page: Path | None = options.pop("page")
    try:
        cfg = AblateCfg(**{**options, **{name: tuple(options[name]) for name in ("tiles", "rows")}})
        if page is not None:
            around(page)  # a page without marks raises before any training
        if cfg.threads is not None:
            torch.set_num_threads(cfg.threads)
        rows = ablate(cfg, report=lambda line: print(line, file=sys.stderr, flush=True))
        text = update_page(page, rows, Setting(cfg.minutes, _command(words)))
    except Interrupted:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m somareg.lab.evaluate.ablate", description=main.__doc__)
    parser.add_argument("--data", dest="tiles", nargs="+", required=True, help="tiles: files, folders or glob patterns")
    parser.add_argument("--validation", type=Path, required=True, help="protocol samples, .safetensors")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows; what is finished there is kept")
    parser.add_argument("--page", type=Path, help="page to write the table into, such as docs/ablations.md")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training per row")
    parser.add_argument("--limit", type=int, default=60, help="samples used, shared among sets and levels")
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="ROW", help="files of configs/ablation and configs")
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="folder of the configurations")
    parser.add_argument("--base", default="tiny.yaml", help="file in it that the ablations are applied to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


def _command(words: Sequence[str]) -> str:
    """The command line, without the interpreter's path."""
    here = Path.cwd()
    parts = [
        str(Path(each).relative_to(here)) if Path(each).is_absolute() and Path(each).is_relative_to(here) else each
        for each in words
    ]
    return shlex.join(["python", "-m", "somareg.lab.evaluate.ablate", *parts])


if __name__ == "__main__":
    raise SystemExit(main())
