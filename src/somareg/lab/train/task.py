"""One training step: the batch of the step number, the objective, a clipped AdamW step, the averaged weights."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from somareg.config import to_mapping
from somareg.errors import EstimationError
from somareg.features.masks import is_readable
from somareg.lab.data.batch import PairBatch
from somareg.lab.train._lightning import L
from somareg.lab.train.config import OptimiserCfg, TrainCfg
from somareg.lab.train.ema import Ema
from somareg.lab.train.sources import NETWORK, Source, seed_of
from somareg.runtime.version import __version__
from somareg.soma.dinov2 import FrozenDinov2
from somareg.soma.weights.frozen import check_same, identity_in

MOST_BAD_STEPS = 20


class Objective(Protocol):
    """Protocol of the objective."""

    def __call__(
        self, network: nn.Module, batch: PairBatch, cfg: Any, *, step: int, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss of a batch and the figures to log, each a scalar tensor.

        Args:
            network: in train mode.
            batch: on the network's device.
            cfg: settings of the objective.
            step: number of the step, from 0.
            progress: share of the schedule that is done, 0-1.
        """


@dataclass(frozen=True)
class Schedule:
    """Learning rate and progress, functions of the steps done and the minutes trained over all resumes.

    Attributes:
        cfg: warm-up, form and floor.
        steps: length in steps, None if unknown.
        minutes: length in minutes, None if unknown.
    """

    cfg: OptimiserCfg
    steps: int | None
    minutes: float | None

    def progress(self, step: int, minutes: float) -> float:
        """Share of the schedule done, 0-1; 0 when its length is unknown."""
        by_step = step / self.steps if self.steps else 0.0
        by_time = minutes / self.minutes if self.minutes else 0.0
        share = {"cosine": by_step, "time": by_time, "constant": max(by_step, by_time)}[self.cfg.schedule]
        return min(1.0, share)

    def learning_rate(self, step: int, minutes: float) -> float:
        """Learning rate of step number `step`."""
        cfg = self.cfg
        rise = min(1.0, (step + 1) / cfg.warmup_steps) if cfg.warmup_steps else 1.0
        if cfg.schedule == "constant":
            return cfg.lr * rise
        fall = 0.5 * (1 + math.cos(math.pi * self.progress(step, minutes)))
        return cfg.lr * rise * (cfg.floor + (1 - cfg.floor) * fall)


class RegistrationTask(L.LightningModule):
    """The network with its objective, source, optimiser and averaged weights.

    Args:
        cfg: the whole configuration; written into every checkpoint.
        network: trained under the name "network".
        objective: the loss.
        open_source: (rank, device) -> the source of batches.
        limit: minutes of this call, None without limit.
        begun: what the weights began with and learned from, for the card; None for random numbers and the truth. A
            resumed run knows it from its checkpoint.
    """

    def __init__(
        self,
        cfg: TrainCfg,
        network: nn.Module,
        objective: Objective,
        open_source: Callable[[int, torch.device], Source],
        limit: float | None = None,
        begun: str | None = None,
    ) -> None:
        super().__init__()
        self.cfg, self.network, self.objective, self.limit, self.begun = cfg, network, objective, limit, begun
        self._open_source = open_source
        self.minutes_before = 0.0  # minutes trained by earlier calls
        self.minutes = 0.0  # minutes trained by all calls; updated by the clock of `callbacks`
        # Steps without effect, in total and in a row. Counted on the device, because reading them makes the host wait.
        self._bad = torch.zeros(2, dtype=torch.long)
        self.scores: dict[str, float] = {}
        self.best_score: list[float] | None = None
        self.figures: dict[str, Tensor] = {}  # of the last step
        self.learning_rate = 0.0  # of the last step
        self.is_timed = False  # whether the next step measures its wait for the batch
        self.draw_seconds = 0.0
        self._saved_average: Mapping[str, Tensor] | None = None

    # --- life cycle -------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Set up source, averaged weights and schedule, once device and rank are known."""
        self.source = self._open_source(self.global_rank, self.device)
        self.ema = Ema(self.network, self.cfg.run.ema)
        if self._saved_average is not None:
            self.ema.load(self._saved_average)
            self._saved_average = None
        optimiser, run = self.cfg.optimiser, self.cfg.run
        here = None if self.limit is None else self.minutes_before + self.limit
        self.schedule = Schedule(optimiser, optimiser.total_steps or run.max_steps, optimiser.total_minutes or here)

    def configure_optimizers(self) -> Optimizer:
        """AdamW without decay on norms, biases and other vectors."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.cfg.optimiser.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        used = [group for group in groups if group["params"]]
        return AdamW(used, lr=self.cfg.optimiser.lr, fused=self._drops_itself)

    @property
    def _drops_itself(self) -> bool:
        """Whether the optimiser drops a bad step without the host; the scaler of float16 has its own mechanism."""
        return self.cfg.run.precision != "16-mixed"

    @property
    def skipped(self) -> int:
        """Steps without effect because loss or gradient was not finite."""
        return int(self._bad[0])

    @property
    def bad_in_a_row(self) -> int:
        """Number of the latest consecutive ones."""
        return int(self._bad[1])

    # --- a step -----------------------------------------------------------------------------------------------------

    def training_step(self, tick: int, index: int) -> Tensor:
        """The loss of step number `global_step`; the loader's value is not used."""
        step = self.global_step
        rate = self.schedule.learning_rate(step, self.minutes)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # type: ignore[union-attr,unused-ignore]
            group["lr"] = rate
        batch = self.draw(step)
        torch.manual_seed(seed_of(self.cfg.seed, self.global_rank, NETWORK, step))  # dropout and the like
        progress = self.schedule.progress(step, self.minutes)
        loss, logs = self.objective(self.network, batch, self.cfg.objective, step=step, progress=progress)
        self.figures = {"loss": loss.detach(), **{name: value.detach() for name, value in logs.items()}}
        self.learning_rate = rate
        # A non-finite loss makes every gradient NaN, so that after averaging all ranks skip the same step.
        return loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)

    def draw(self, step: int) -> PairBatch:
        """The batch of a step, in float32 at any precision of training, because coordinates must not be rounded."""
        started = now(self.device) if self.is_timed else 0.0
        with torch.autocast(self.device.type, enabled=False):
            batch = self.source.batch(step)
        if self.is_timed:
            self.draw_seconds = now(self.device) - started
        return batch

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the norm of the whole gradient; drop a non-finite gradient.

        Raises:
            EstimationError: too many such steps in a row; on a GPU it is raised at the next row of the log.
        """
        clip = self.cfg.optimiser.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.figures["gradient"] = norm.detach()
        bad = ~torch.isfinite(norm.detach())
        count = self._bad.to(norm.device)
        self._bad = torch.stack([count[0] + bad, (count[1] + 1) * bad])
        self._kept = ~bad
        if self._drops_itself:
            # The flag that a gradient scaler would set: AdamW then leaves parameters and moments unchanged.
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        elif bool(bad):
            # Without a gradient AdamW leaves them unchanged too, and the scaler of float16 lowers its scale.
            optimizer.zero_grad(set_to_none=True)
        if (is_readable(norm) or self.is_timed) and self.bad_in_a_row >= MOST_BAD_STEPS:
            raise EstimationError(
                f"training diverged: loss or gradient not finite in {MOST_BAD_STEPS} steps in a row up to step "
                f"{self.global_step}; lower optimiser.lr, or train with run.precision 32-true"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then update the average with the new weights."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.global_step, self._kept)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Averaged weights and the record of training, plain values that load with `weights_only=True`."""
        checkpoint["ema"] = dict(self.ema.average)
        checkpoint["somareg"] = self.record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the run."""
        record = checkpoint["somareg"]
        if (frozen := self._dinov2()) is not None and (learned := identity_in(record)) is not None:
            check_same(learned, frozen.identity, "the checkpoint")
        # Optimiser settings are the current ones, not those of the run that wrote the checkpoint.
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group["fused"] = self._drops_itself
        self._saved_average = checkpoint["ema"]
        self.minutes = self.minutes_before = float(record["minutes"])
        self._bad = torch.tensor([int(record["skipped"]), int(record["bad_in_a_row"])])
        self.scores, self.best_score = dict(record["scores"]), record["best_score"]
        self.begun = record.get("notes")

    def record(self) -> dict[str, Any]:
        """Training record; numbers, texts, lists and mappings only."""
        return {
            "version": __version__,
            "config": to_mapping(self.cfg),
            **self.source.summary(),
            "minutes": self.minutes,
            "steps": self.global_step,
            "processes": self.trainer.world_size,
            "device": device_name(self.device),
            "seed": self.cfg.seed,
            "scores": dict(self.scores),
            "best_score": self.best_score,
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
            **({} if self.begun is None else {"notes": self.begun}),
            **({} if (frozen := self._dinov2()) is None else {"dinov2": to_mapping(frozen.identity)}),
        }

    def _dinov2(self) -> FrozenDinov2 | None:
        """The frozen encoder of the network, None without one."""
        return next((part for part in self.network.modules() if isinstance(part, FrozenDinov2)), None)


def now(device: torch.device) -> float:
    """Seconds of a monotonic clock, after all queued work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def device_name(device: torch.device) -> str:
    """The name of the hardware, such as "NVIDIA H100 80GB HBM3" or "x86_64 CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {device.type.upper()}, {torch.get_num_threads()} threads"
