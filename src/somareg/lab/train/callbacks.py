"""Work between steps: clock, checkpoints, validation, log, and stopping in time or on a signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from torch import Tensor

from somareg.lab.data.batch import PairBatch
from somareg.lab.train._lightning import L
from somareg.lab.train.guard import StopSignals
from somareg.lab.train.judge import Validator, rank_of, write_diagnosis
from somareg.lab.train.logs import Mean, RunLog
from somareg.lab.train.task import RegistrationTask, now
from somareg.types import Progress

LAST, BEST, DIAGNOSIS = "last.ckpt", "best.ckpt", "diagnosis.json"
_FAR = 2**40


class Meter:
    """Pairs per second of training alone, and the share of a step spent on its batch."""

    def __init__(self) -> None:
        self.pairs = 0
        self.seconds = 0.0
        self.data_share = 0.0
        self._recent = (0, 0.0)

    def add(self, pairs: int, seconds: float) -> None:
        """Count a step."""
        self.pairs += pairs
        self.seconds += seconds

    @property
    def rate(self) -> float:
        """Pairs per second of this call."""
        return self.pairs / self.seconds if self.seconds > 0 else 0.0

    def recent(self) -> float:
        """Pairs per second since the last call."""
        pairs, seconds = self.pairs - self._recent[0], self.seconds - self._recent[1]
        self._recent = self.pairs, self.seconds
        return pairs / seconds if seconds > 0 else 0.0


class Keeper(L.Callback):
    """Decides after every step which work is due, identically on every rank, and does it.

    Rank 0 reads its clock; any rank may have received a signal. One small exchange per step makes all agree.

    Args:
        folder: of the run.
        validator: None trains without validation.
        signals: requests to stop.
        progress: called with a line for the progress bar and the share done, on rank 0.
        report: called with a permanent line, on rank 0.
        diagnose: write a diagnosis of the averaged weights in the end.
    """

    def __init__(
        self,
        folder: Path,
        validator: Validator | None,
        signals: StopSignals,
        progress: Progress | None = None,
        report: Callable[[str], None] | None = None,
        diagnose: bool = False,
    ) -> None:
        self.folder, self.validator, self.signals = folder, validator, signals
        self.progress, self.report, self.diagnose = progress, report, diagnose
        self.alarms: tuple[str, ...] = ()
        self.diagnosis: Path | None = None
        self.meter, self.mean = Meter(), Mean()
        self._book: RunLog | None = None
        self.stopped = "done"
        self._started = monotonic()  # time for reading the data counts
        self._loss: float | None = None  # at the last row
        self._validation_minutes = 0.0
        self._saved = self._validated = 0.0  # minutes on the clock of this call

    # --- hooks ------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals and open the log."""
        self.signals.listen()
        if trainer.is_global_zero:
            self._book = RunLog(self.folder, trainer.global_step + 1)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time an occasional step until the device has finished."""
        task = _task(pl_module)
        task.is_timed = (trainer.global_step + 1) % task.cfg.run.log_every_steps == 0
        self._step_started = now(task.device) if task.is_timed else perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do the work that is due."""
        task = _task(pl_module)
        self._measure(trainer, task)
        interrupted, finished, validate, save = self._agree(trainer, task)
        if validate:
            self._validate(trainer, task)
        if save:
            self._save(trainer, LAST)
        if interrupted or finished:
            trainer.should_stop = True
        self._show(task, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the diagnosis, unless a signal interrupted the run."""
        if self.diagnose and trainer.is_global_zero and self.signals.received is None:
            task = _task(pl_module)
            batches = self.validator.batches(task.device) if self.validator else _unseen(task)
            with _judged(task):
                self.alarms = write_diagnosis(task.network, batches, self.folder / DIAGNOSIS)
            self.diagnosis = self.folder / DIAGNOSIS

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the log."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the log; the last good checkpoint stays."""
        self._close()

    # --- what is due ------------------------------------------------------------------------------------------------

    def _minutes(self) -> float:
        return (monotonic() - self._started) / 60

    def _agree(self, trainer: L.Trainer, task: RegistrationTask) -> tuple[bool, bool, bool, bool]:
        """(interrupted, finished, validation due, checkpoint due), after setting the common clock."""
        wishes = [0.0, float(self.signals.received is not None), 0.0, 0.0, 0.0]
        if trainer.is_global_zero:
            wishes = self._wishes(trainer, task)
        if trainer.world_size > 1:
            common = torch.tensor(wishes, device=task.device)
            torch.distributed.all_reduce(common, torch.distributed.ReduceOp.MAX)
            wishes = common.tolist()
        task.minutes = task.minutes_before + wishes[0]
        interrupted, finished, validate, save = (wish > 0 for wish in wishes[1:])
        if interrupted:
            self.stopped = "interrupted"
        elif finished:
            self.stopped = "steps" if self._is_last(trainer) else "time"
        return interrupted, finished, validate and not interrupted, save or interrupted

    def _wishes(self, trainer: L.Trainer, task: RegistrationTask) -> list[float]:
        run, minutes = task.cfg.run, self._minutes()
        # Time for the last validation is reserved, so that it ends within the limit.
        in_time = task.limit is None or minutes + self._validation_minutes < task.limit
        finished = not in_time or self._is_last(trainer)
        validate = self.validator is not None and (finished or minutes - self._validated >= run.val_every_minutes)
        save = validate or finished or minutes - self._saved >= run.checkpoint_minutes
        return [minutes, *map(float, (self.signals.received is not None, finished, validate, save))]

    @staticmethod
    def _is_last(trainer: L.Trainer) -> bool:
        return 0 <= trainer.max_steps <= trainer.global_step

    # --- doing it ---------------------------------------------------------------------------------------------------

    def _measure(self, trainer: L.Trainer, task: RegistrationTask) -> None:
        ended = now(task.device) if task.is_timed else perf_counter()
        seconds = ended - self._step_started
        self.meter.add(task.cfg.run.batch * trainer.world_size, seconds)
        self.mean.add(task.figures)
        if not task.is_timed:
            return
        self.meter.data_share = task.draw_seconds / max(seconds, 1e-9)
        figures = self.mean.take()
        figures |= {
            "lr": task.learning_rate,
            "minutes": task.minutes_before + self._minutes(),
            "skipped": float(task.skipped),
        }
        figures |= {"pairs_per_second": self.meter.recent(), "data_share": self.meter.data_share}
        self._loss = figures["loss"]
        if self._book is not None:
            self._book.add_train(trainer.global_step, figures)

    def _save(self, trainer: L.Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / name)
        self._saved = self._minutes()

    def _validate(self, trainer: L.Trainer, task: RegistrationTask) -> None:
        """Score the averaged weights on rank 0, in float32, and keep the best so far."""
        self._save(trainer, LAST)  # before validating, so that a kill meanwhile loses nothing
        started, better = self._minutes(), False
        if trainer.is_global_zero and self.validator is not None:
            with _judged(task):
                found = self.validator.scores(task.network, task.device)
                pictures = self.validator.pictures(task.network, task.device)
            scores = {name: float(value) for name, value in found.items()}
            score = rank_of(scores)
            better = task.best_score is None or score > task.best_score
            task.scores = scores
            task.best_score = score if better else task.best_score
            self._tell(trainer, task, scores, pictures)
        self._validation_minutes = self._minutes() - started
        self._validated = self._minutes()
        if trainer.strategy.broadcast(better):
            self._save(trainer, BEST)

    def _tell(
        self, trainer: L.Trainer, task: RegistrationTask, scores: dict[str, float], pictures: Mapping[str, Tensor]
    ) -> None:
        step = trainer.global_step
        if self._book is not None:
            self._book.add_validation(step, {"minutes": task.minutes, **scores}, pictures)
        if self.report is not None:
            figures = ", ".join(f"{name} {value:.3g}" for name, value in scores.items() if "/" not in name)
            self.report(f"{task.minutes:.1f} min, step {step}: {figures}; {self.meter.rate:.1f} pairs/s")

    def _show(self, task: RegistrationTask, step: int) -> None:
        if self.progress is None:
            return
        limit, most = task.limit, task.cfg.run.max_steps
        by_time = (task.minutes - task.minutes_before) / limit if limit else 0.0
        share = min(1.0, max(by_time, step / most if most else 0.0))
        loss = "" if self._loss is None else f", loss {self._loss:.3g}"
        self.progress(f"step {step}{loss}, {self.meter.rate:.1f} pairs/s", share)

    def _close(self) -> None:
        if self._book is not None:
            self._book.close()
            self._book = None


@contextmanager
def _judged(task: RegistrationTask) -> Iterator[None]:
    """The network as in use: averaged weights, eval mode, float32, no gradients."""
    with torch.no_grad(), torch.autocast(task.device.type, enabled=False), task.ema.swapped_in():
        task.network.eval()
        try:
            yield
        finally:
            task.network.train()


def _unseen(task: RegistrationTask) -> Iterator[PairBatch]:
    """Batches of step numbers beyond any run."""
    for step in range(_FAR, _FAR + 8):
        yield task.draw(step)


def _task(module: L.LightningModule) -> RegistrationTask:
    assert isinstance(module, RegistrationTask)
    return module
