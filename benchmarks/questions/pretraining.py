"""What is a SAR encoder worth that was trained without any pair, on two views of one image?

    python benchmarks/questions/pretraining.py runs/gpu/pack.safetensors --minutes 20 [--picture FILE]

First the plan of `configs/pretraining.yaml` is trained for so many minutes on views of single SAR tiles of the pack,
and its weights become `runs/pretrained/sar.safetensors`, where the rows look for them. Then the rows are trained and
judged by benchmarks/ablation.py: from nothing; with a random SAR encoder that is never trained; with the pretrained
one, not trained on; with the pretrained one, trained on. The minutes of the pretraining do not count in those of the
last two. A second call goes on where the first one was stopped. Run it in the root of the repository.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from somareg.config import from_mapping
from somareg.errors import SomaregError
from somareg.lab.train.callbacks import LAST
from somareg.lab.train.config import load_config
from somareg.lab.train.export import export_checkpoint
from somareg.lab.train.yaml_files import read_extended

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import ablation  # noqa: E402

WEIGHTS = Path("runs/pretrained/sar.safetensors")  # as the rows name it
MOST_PX = 4.0  # of the picture


def pretrain(study: ablation.Study, plan: Path, pack: Path, minutes: float) -> None:
    """Train the plan on two views of single SAR tiles and export the weights, unless they are there."""
    if WEIGHTS.exists():
        return
    ((_, length),) = ablation.budgets(minutes, None).items()
    views = {"data.tiles": [str(pack)], "data.validation": None, "data.draw.views": "sar", "seed": study.seeds[0]}
    folder = WEIGHTS.parent / "run"
    ablation.trained(load_config(plan, study.common, {**views, **length}), folder)
    export_checkpoint(folder / LAST, WEIGHTS)


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Share of the samples below an error, a line per row; all sets and levels together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["row"] for row in results["rows"]))
    for name in names:
        own = [row for row in results["rows"] if row["row"] == name]
        errors = np.sort([math.inf if e is None else e for row in own for part in row["errors"].values() for e in part])
        share = 100 * np.arange(1, len(errors) + 1) / len(errors)
        axes.step(errors, share, where="post", label=name, color="0.6" if name == ablation.WEIGHT_FREE else None)
    axes.set(xlim=(0, MOST_PX), ylim=(0, 101), xlabel="error, px", ylabel="% of the samples below")
    axes.legend(fontsize=7)
    figure.savefig(file, dpi=80)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path, help="file of `make gpu-pack`")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the pretraining, and of every row")
    parser.add_argument("--study", type=Path, default=ROOT / "configs" / "pretraining.yaml")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "questions" / "pretraining.json")
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args(arguments)
    try:
        study = from_mapping(ablation.Study, read_extended(asked.study))
        pretrain(study, asked.study.parent / study.plan, asked.pack, asked.minutes)
    except (ablation.Interrupted, KeyboardInterrupt):
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = ["--minutes", str(asked.minutes), "--study", str(asked.study), "--results", str(asked.json)]
    code = ablation.main([str(asked.pack), *rows, "--out", "runs/pretraining"])
    if code == 0 and asked.picture is not None:
        draw(json.loads(asked.json.read_text()), asked.picture)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
