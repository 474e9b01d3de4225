"""A network, an objective and a source so small that the engine's own doings can be checked number by number."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from somareg.lab.data.batch import PairBatch
from somareg.lab.train.config import TrainCfg
from somareg.lab.train.engine import Parts, TrainResult, train
from somareg.lab.train.sources import generator_for

SIDE = 8
WORKER = Path(__file__).with_name("worker.py")


class TinyNet(nn.Module):
    """Two kernels, a norm and dropout: something with, something without weight decay, something random."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Conv2d(4, 1, 3, padding=1)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.last(self.drop(torch.relu(self.norm(self.first(image)))))
        return result


def objective(
    network: nn.Module, batch: PairBatch, cfg: Any, *, step: int, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make a smoothed image from a noisy one."""
    loss = (network(batch.moving) - batch.reference).square().mean()
    return loss, {"mse": loss, "progress": torch.tensor(progress)}


class NoiseSource:
    """Noise and its smoothed version, drawn from (seed, rank, step)."""

    def __init__(self, cfg: TrainCfg, rank: int, device: torch.device) -> None:
        self.cfg, self.rank, self.device = cfg, rank, device

    def batch(self, step: int) -> PairBatch:
        generator = generator_for(self.device, self.cfg.seed, self.rank, step)
        shape = (self.cfg.run.batch, 1, SIDE, SIDE)
        moving = torch.randn(shape, generator=generator, device=self.device)
        mask = torch.ones_like(moving)
        truth = torch.eye(2, 3, device=self.device).expand(shape[0], 2, 3)
        smooth = torch.nn.functional.avg_pool2d(moving, 3, 1, 1)
        return PairBatch(smooth, mask, moving, mask, truth, None, ("optical", "sar"))

    def summary(self) -> dict[str, Any]:
        data = [{"set": "noise", "role": "train", "pairs": 1, "licence": "none"}]
        return {"data": data, "tiles": {}, "synthetic_share": 0.0}


class FixedValidator:
    """Scores that follow from the weights it is given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.training: list[bool] = []

    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        weight = network.get_parameter("first.weight").detach().clone()
        self.seen.append(weight)
        self.training.append(network.training)
        return {"cmr_1": 0.0, "cmr_3": 0.5, "median_px": 1 / len(self.seen)}

    def pictures(self, network: nn.Module, device: torch.device) -> Mapping[str, Tensor]:
        return {"pair": torch.zeros(3, 4, 8)}


def parts(**changes: Any) -> Parts:
    made = Parts(lambda cfg: TinyNet(), objective, NoiseSource, lambda cfg: None)
    return replace(made, **changes)


def make_cfg(*, optimiser: Mapping[str, Any] | None = None, seed: int = 3, **run: Any) -> TrainCfg:
    """A quick configuration; `run` changes `RunCfg`."""
    base = TrainCfg(seed=seed)
    settings = {"batch": 2, "max_steps": 6, "ema": 0.9, "log_every_steps": 2, "accelerator": "cpu"} | run
    wanted = {"schedule": "cosine", "warmup_steps": 2, "lr": 1e-2, "total_steps": 6} | dict(optimiser or {})
    return replace(base, run=replace(base.run, **settings), optimiser=replace(base.optimiser, **wanted))


def run(cfg: TrainCfg, out: Path, **options: Any) -> TrainResult:
    options.setdefault("parts", parts())
    return train(cfg, out, **options)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def spawn(out: Path, options: dict[str, Any]) -> subprocess.Popen[str]:
    """A run in a process of its own; `options` are those of `worker.py`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(out), json.dumps(options)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def rows(folder: Path, *columns: str, table: str = "train.csv") -> list[tuple[str, ...]]:
    """Columns of what a run logged."""
    with (folder / table).open(newline="") as file:
        return [tuple(row[name] for name in columns) for row in csv.DictReader(file)]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
