"""What each part of the network is worth: variants of one plan, trained and judged on equal terms.

    python benchmarks/ablation.py runs/gpu/pack.safetensors --samples multisensor.safetensors --minutes 10 --steps 1000

`configs/ablation.yaml` names the rows. Every row is trained with every seed from the pack, for so many minutes, for so
many steps, or once for each, and registers the same samples. The results are written after every row, whole or not at
all; the same call goes on after a kill, and a finished row is not trained again. Without `--minutes` and `--steps`
the tables of the results are printed. docs/ablations.md says how to read them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from somareg.config import did_you_mean, from_mapping, to_mapping
from somareg.errors import ConfigError, ReadError, SomaregError
from somareg.io.atomic import write_text
from somareg.io.folders import make_folder
from somareg.lab.data.bundle_read import is_bundle, read_bundle_samples
from somareg.lab.data.stacks import ProtocolSamples, SampleStack
from somareg.lab.evaluate.metrics import cmr, paired_signs, quantile, sign_test
from somareg.lab.evaluate.results import machine
from somareg.lab.train.callbacks import LAST
from somareg.lab.train.config import TrainCfg, load_config
from somareg.lab.train.engine import train
from somareg.lab.train.export import network_state, read_checkpoint
from somareg.lab.train.folder import CONFIG
from somareg.lab.train.validation import sample_errors
from somareg.lab.train.yaml_files import read_extended
from somareg.runtime.version import __version__
from somareg.soma.network import Soma
from somareg.types import FloatArray

ROOT = Path(__file__).resolve().parents[1]
WEIGHT_FREE = "weight-free"  # a row that needs no training
THRESHOLDS = (1.0, 2.0, 3.0)  # px

_SPENT = {"steps": ",d", "minutes": ".2f"}

Entry = dict[str, Any]
Judged = Mapping[str, tuple[SampleStack, int]]
"""Set and level, such as "ombria m" -> samples and the number in use."""


class Interrupted(Exception):
    """A signal asked to stop; checkpoint and results are kept."""


@dataclass(frozen=True)
class Study:
    """A study as its YAML file describes it: each row has a name and the settings that it changes, as for `--set`."""

    plan: str  # YAML of a training run, relative to the study's file
    rows: dict[str, tuple[str, ...]]
    reference: str  # the row that the others are compared with
    judged: tuple[str, ...]  # set and level of the samples that judge
    common: tuple[str, ...] = ()  # settings of every row
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None  # samples of each set and level; None: all

    def __post_init__(self) -> None:
        if not (self.judged and self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("a study needs 'judged' and 'seeds', each seed once")
        if self.reference not in self.rows:
            raise ConfigError(f"no row '{self.reference}' for a reference.{did_you_mean(self.reference, self.rows)}")
        if len({_slug(name) for name in (*self.rows, WEIGHT_FREE)}) <= len(self.rows):
            raise ConfigError(f"two rows would share a folder, or one is called '{WEIGHT_FREE}'; rename one")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; give 1 or more, or null for all samples")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def budgets(minutes: float | None, steps: int | None) -> dict[str, dict[str, Any]]:
    """Name of a budget -> settings of a run that ends there over all resumes, and its learning rate with it."""
    found: dict[str, dict[str, Any]] = {}
    if minutes is not None:
        found[f"{minutes:g} minutes"] = {"optimiser.schedule": "time", "optimiser.total_minutes": minutes}
    if steps is not None:
        length = dict.fromkeys(("optimiser.total_steps", "run.max_steps"), steps)
        found[f"{steps} steps"] = {"optimiser.schedule": "cosine", **length}
    free = dict.fromkeys(("run.max_minutes", "run.max_steps", "optimiser.total_minutes", "optimiser.total_steps"))
    return {name: {**free, **settings} for name, settings in found.items()}


def judged_samples(study: Study, files: Sequence[Path]) -> Judged:
    """The samples that the study names, from packs and files of samples."""
    found: dict[str, SampleStack] = {}
    for path in files:
        for stack in read_bundle_samples(path) if is_bundle(path) else ProtocolSamples.load(path):
            if (name := f"{stack.set} {stack.level}") in found and name in study.judged:
                raise ConfigError(f"'{name}' is in two of the files, the second is {path}; leave one out")
            found[name] = stack
    for name in study.judged:
        if name not in found:
            raise ConfigError(f"no samples '{name}' in {', '.join(map(str, files))}; add their file by --samples")
        if found[name].split != "val":
            raise ConfigError(f"'{name}' are test samples, for final figures only; judge by those of split val")
    return {name: (found[name], min(len(found[name]), study.limit or len(found[name]))) for name in study.judged}


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def heading(study: Study, pack: Path, judged: Judged) -> Entry:
    """What all rows of a file of results have in common."""
    samples = {
        name: {
            "content": _digest(*(each[:n].numpy().tobytes() for each in (stack.moving, stack.reference, stack.matrix))),
            "quoted_from": stack.quoted_from,
            "places": [f"{stack.set}/{place}" for place in stack.group[:n]],
        }
        for name, (stack, n) in judged.items()
    }
    common = {"plan": study.plan, "common": list(study.common), "reference": study.reference}
    return {**common, "pack": _digest(pack.read_bytes()), "judged": samples}


def read_results(path: Path, head: Entry) -> list[Entry]:
    """The rows of a file of results, none if there is no file.

    Raises:
        ReadError: it is no such file.
        ConfigError: it belongs to another plan, reference, pack or other samples.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**head, "rows": []}
        other = [key for key in head if content[key] != head[key]]
        rows = [dict(row) for row in content["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(f"{path} holds no results of ablations ({error!r}); give another --results") from error
    if other:
        raise ConfigError(f"{path} was made with another '{other[0]}'; give another --results, trained rows are kept")
    return rows


def trained(cfg: TrainCfg, folder: Path) -> tuple[Soma, Entry]:
    """The network with averaged weights and the figures of its training, which goes on if it was stopped.

    Raises:
        Interrupted: a signal asked to stop.
        ConfigError: the folder holds a run with other settings.
    """
    if (folder / CONFIG).exists() and load_config(folder / CONFIG) != cfg:
        raise ConfigError(f"{folder} was trained with other settings; give another --out, or remove it")
    if not _is_finished(folder / LAST, cfg) and train(cfg, folder, resume=True).stopped == "interrupted":
        raise Interrupted
    content = read_checkpoint(folder / LAST)
    network, record = Soma(cfg.network), content["somareg"]
    network.load_state_dict(network_state(content, folder / LAST))
    figures = {key: record[key] for key in ("minutes", "steps", "skipped", "device")}
    return network.eval(), {"parameters": network.parameter_count, "batch": cfg.run.batch, **figures}


def _is_finished(checkpoint: Path, cfg: TrainCfg) -> bool:
    """Whether the budget is used up; the engine would do one more step."""
    if not checkpoint.exists():
        return False
    record, minutes, steps = read_checkpoint(checkpoint)["somareg"], cfg.optimiser.total_minutes, cfg.run.max_steps
    return bool(record["minutes"] >= minutes - 1e-6 if minutes is not None else record["steps"] >= steps)


def measured(network: Soma | None, judged: Judged, device: torch.device) -> dict[str, list[float | None]]:
    """Set and level -> error of each sample after registration, RMSE in pixels; None for a failure."""
    errors = {name: sample_errors(network, stack, count, device) for name, (stack, count) in judged.items()}
    return {name: [round(e, 4) if math.isfinite(e) else None for e in each] for name, each in errors.items()}


def run(study: Study, asked: argparse.Namespace) -> Entry:
    """Train and measure what the results lack, write them after every row, and return them."""
    pack, plan = asked.pack, asked.study.parent / study.plan
    given = {"data.tiles": [str(pack)], "data.validation": None}
    jobs = [
        (name, budget, seed, load_config(plan, (*study.common, *settings), {**given, **length, "seed": seed}))
        for budget, length in budgets(asked.minutes, asked.steps).items()
        for seed in study.seeds
        for name, settings in study.rows.items()
    ]  # a wrong setting is told before anything is trained
    judged = judged_samples(study, [pack, *asked.samples])
    head = heading(study, pack, judged)
    rows = read_results(asked.results, head)

    def keep(row: Entry) -> None:
        rows.append({**row, "somareg": __version__, "machine": machine()})
        make_folder(asked.results.parent)
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)  # one each, so that a diff shows rows
        write_text(asked.results, f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n', overwrite=True)

    if jobs and not any(row["row"] == WEIGHT_FREE for row in rows):
        keep({"row": WEIGHT_FREE, "budget": None, "seed": None, "errors": measured(None, judged, torch.device("cpu"))})
    for name, budget, seed, cfg in jobs:
        key = {"row": name, "budget": budget, "seed": seed}
        settings = to_mapping(cfg) | {"data": to_mapping(cfg.data) | {"tiles": head["pack"]}}  # wherever the pack lies
        made_of = {"changes": list(study.rows[name]), "settings": _digest(json.dumps(settings).encode())}
        known = [row for row in rows if key.items() <= row.items()]
        if not known:
            print(f"{name}, {budget}, seed {seed}", file=sys.stderr, flush=True)
            network, training = trained(cfg, asked.out / _slug(budget) / f"{_slug(name)}-{seed}")
            device = torch.device("cuda" if cfg.run.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
            keep({**key, **made_of, "training": training, "errors": measured(network.to(device), judged, device)})
        elif known[0].get("settings") != made_of["settings"]:
            raise ConfigError(f"{asked.results} has '{name}' with other settings; rename the row or give --results")
    return {**head, "rows": rows}


# --- tables -----------------------------------------------------------------------------------------------------------


def _errors(rows: Sequence[Entry], part: str) -> FloatArray:
    return np.array([math.inf if e is None else e for row in rows for e in row["errors"][part]], dtype=np.float64)


def compared(pairs: Sequence[tuple[Entry, Entry]], judged: Mapping[str, Entry]) -> str:
    """better : worse (z) over all samples of pairs (row, reference)."""
    if not pairs:
        return "–"
    found = [paired_signs(_errors([row], part), _errors([full], part)) for row, full in pairs for part in judged]
    places = [place for _ in pairs for part in judged.values() for place in part["places"]]
    return "{} : {} ({:+.1f})".format(*sign_test(np.concatenate(found), places))


def tables(results: Entry) -> Iterator[str]:
    """The lines of one Markdown table per budget; seeds are pooled."""
    judged, reference = results["judged"], results["reference"]
    for budget in dict.fromkeys(row["budget"] for row in results["rows"] if row["budget"]):
        rows: dict[str, list[Entry]] = {}
        for row in results["rows"]:
            if row["budget"] in (budget, None):
                rows.setdefault(row["row"], []).append(row)
        full = sorted(rows.get(reference, []), key=lambda row: int(row["seed"]))
        columns = ["row", *(f"{part} (n {len(each['places'])})" for part, each in judged.items()), "better : worse (z)"]
        columns += ["parameters", "steps", "minutes"]
        yield from (f"## {budget}", "", _cells(columns), _cells(["---", *["---:"] * (len(columns) - 1)]))
        for name, own in rows.items():
            pairs = [(row, each) for row in own for each in full if row["seed"] in (None, each["seed"])]
            against = compared([] if name == reference else pairs, judged)
            training = [row["training"] for row in own if "training" in row]
            spent = [", ".join(f"{each[key]:{form}}" for each in training) or "–" for key, form in _SPENT.items()]
            size = f"{training[0]['parameters']:,}" if training else "–"
            yield _cells([name, *(_part(_errors(own, part), judged[part]) for part in judged), against, size, *spent])
        yield ""
        if len(full) > 1:
            chance = compared([(later, earlier) for earlier, later in pairwise(full)], judged)
            yield from (f"{reference}, each seed against the one before: {chance}.", "")


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _part(errors: FloatArray, part: Entry) -> str:
    """CMR at each threshold in percent and the median error; no threshold that the labels do not support."""
    shares = (f"{100 * cmr(errors, k):.0f}" if k >= part["quoted_from"] else "–" for k in THRESHOLDS)
    return f"{' / '.join(shares)}; {quantile(errors, 0.5):.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path, help="file of `make gpu-pack`: tiles that train, samples that judge")
    parser.add_argument("--study", type=Path, default=ROOT / "configs" / "ablation.yaml", help="the rows, YAML")
    parser.add_argument("--minutes", type=float, help="of training per row and seed, wall clock")
    parser.add_argument("--steps", type=int, help="of training per row and seed")
    parser.add_argument("--samples", type=Path, nargs="+", default=[], help="files of somareg.lab.data.samples")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder for the runs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "ablation.json")
    parser.add_argument("--page", type=Path, help="write the tables here, too, Markdown")
    asked = parser.parse_args(arguments)
    try:
        text = "\n".join(tables(run(from_mapping(Study, read_extended(asked.study)), asked)))
        if asked.page is not None:
            write_text(asked.page, text, overwrite=True)
    except (Interrupted, KeyboardInterrupt):
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
