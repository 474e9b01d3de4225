"""`train`: from a configuration to a folder with checkpoints and a log; stops in time and resumes exactly."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from somareg.errors import ConfigError
from somareg.lab.train._lightning import L, MisconfigurationException
from somareg.lab.train.callbacks import BEST, LAST, Keeper
from somareg.lab.train.config import TrainCfg
from somareg.lab.train.folder import check_checkpoint, check_folder, claim, is_fresh, starting_point
from somareg.lab.train.guard import AtomicCheckpointIO, StopSignals
from somareg.lab.train.initial import freeze, start_from
from somareg.lab.train.judge import ForwardValidator, ProtocolValidator, Validator
from somareg.lab.train.sources import Source, Ticks, open_source
from somareg.lab.train.task import Objective, RegistrationTask
from somareg.soma.weights.store import load_weights, resolve
from somareg.types import Progress

_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")


@dataclass(frozen=True)
class TrainResult:
    """The result of a call of `train`.

    Attributes:
        steps: of all calls so far.
        minutes: of all calls so far.
        pairs_per_second: of this call, over all processes, validation and checkpoints not counted.
        data_share: share of a step spent on its batch, 0-1.
        skipped: steps without effect because loss or gradient was not finite.
        scores: of the last validation; empty without one.
        checkpoint: the last one.
        best: the one that validated best, None without validation.
        stopped: "steps", "time", "interrupted", or "done" when there was nothing left to do.
        alarms: findings of the diagnosis that ask for action.
        diagnosis: its file, JSON; None without one.
    """

    steps: int
    minutes: float
    pairs_per_second: float
    data_share: float
    skipped: int
    scores: dict[str, float]
    checkpoint: Path
    best: Path | None
    stopped: str
    alarms: tuple[str, ...]
    diagnosis: Path | None


@dataclass(frozen=True)
class Parts:
    """The parts that the engine combines; by default somareg's own.

    Attributes:
        network: configuration -> network, its weights drawn from PyTorch's generator.
        objective: the loss.
        source: (configuration, rank, device) -> source of batches.
        validator: configuration -> judge, None trains without validation; asked for on rank 0 only.
    """

    network: Callable[[TrainCfg], nn.Module]
    objective: Objective
    source: Callable[[TrainCfg, int, torch.device], Source]
    validator: Callable[[TrainCfg], Validator | None]


def own_parts() -> Parts:
    """SOMA's network and objective, tiles and synthetic scenes, validation on the protocol."""
    from somareg.lab.train.objective import objective
    from somareg.soma.network import Soma

    def source(cfg: TrainCfg, rank: int, device: torch.device) -> Source:
        return open_source(cfg.data, batch=cfg.run.batch, seed=cfg.seed, rank=rank, device=device)

    def validator(cfg: TrainCfg) -> Validator | None:
        path, limit, pictures = cfg.data.validation, cfg.data.validation_limit, cfg.run.pictures
        if path is None:
            return None
        judge = ForwardValidator if cfg.run.judge == "forward" else ProtocolValidator
        return judge(path, limit, pictures)

    return Parts(lambda cfg: Soma(cfg.network), objective, source, validator)


def train(
    cfg: TrainCfg,
    out_dir: str | Path,
    *,
    resume: bool | str | Path = False,
    max_minutes: float | None = None,
    overwrite: bool = False,
    diagnose: bool = False,
    parts: Parts | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train until steps or minutes are used up, or a signal asks to stop; always leaves a usable `last.ckpt`.

    The folder gets `config.yaml` (resolved), `last.ckpt`, `best.ckpt`, `train.csv`, `validation.csv` and TensorBoard
    events. A run that was killed goes on from `last.ckpt` as if nothing had happened: with a schedule over steps, the
    same weights bit by bit on the same machine.

    Args:
        cfg: the configuration.
        out_dir: folder of the run.
        resume: True goes on from the folder's `last.ckpt` (or starts, where there is none yet); a path goes on from
            that checkpoint.
        max_minutes: wall clock of this call, in place of `cfg.run.max_minutes`.
        overwrite: replace the run in the folder.
        diagnose: look inside the network in the end and write `diagnosis.json` (`lab.evaluate.diagnose`).
        parts: network, objective, source and validation.
        progress: called after every step with a line and the share done (0-1), on rank 0.
        report: called with a line after every validation, on rank 0.

    Raises:
        OutputError: the folder is not empty, or cannot be written.
        ReadError: the checkpoint or the data cannot be read.
        ConfigError: the checkpoint belongs to another network; the device is not there; no data; `cfg.frozen` names no
            part of the network.
        WeightsError: `cfg.initial` cannot be read or does not fit the network.
        EstimationError: the training diverged.
        UnsupportedError: something that the configuration asks for is not installed.
    """
    folder = Path(out_dir)
    checkpoint = starting_point(folder, resume)
    before = check_checkpoint(checkpoint, cfg) if checkpoint is not None else {}
    fresh, is_main = is_fresh(folder, resume), is_main_process()
    if is_main:
        check_folder(folder, fresh=fresh, overwrite=overwrite)
    limit = _limit(cfg, max_minutes, float(before.get("minutes", 0.0)))
    parts = parts or own_parts()
    with ExitStack() as stack:
        stack.enter_context(_settings(cfg))
        torch.manual_seed(cfg.seed)
        network = parts.network(cfg)
        begun = _beginning(network, cfg) if checkpoint is None else None
        freeze(network, cfg.frozen)
        task = RegistrationTask(
            cfg, network, parts.objective, lambda rank, device: parts.source(cfg, rank, device), limit, begun
        )
        if begun is not None and is_main and report is not None:
            report(begun)
        signals = StopSignals()
        stack.enter_context(signals.watching())
        validator = parts.validator(cfg) if is_main else None
        keeper = Keeper(folder, validator, signals, progress, report, diagnose)
        trainer = _trainer(cfg, folder, keeper)
        if is_main:
            claim(folder, cfg, fresh=fresh)
        loader = DataLoader(Ticks(), batch_size=None, num_workers=0)
        trainer.fit(task, loader, ckpt_path=None if checkpoint is None else str(checkpoint))
    best = folder / BEST
    return TrainResult(
        steps=trainer.global_step,
        minutes=task.minutes,
        pairs_per_second=keeper.meter.rate,
        data_share=keeper.meter.data_share,
        skipped=task.skipped,
        scores=dict(task.scores),
        checkpoint=folder / LAST,
        best=best if best.exists() else None,
        stopped=keeper.stopped,
        alarms=keeper.alarms,
        diagnosis=keeper.diagnosis,
    )


def _beginning(network: nn.Module, cfg: TrainCfg) -> str | None:
    """Give a network its initial weights; what the card says about them, and about a teacher, None without either."""
    lines = [] if cfg.initial is None else [start_from(network, cfg.initial)]
    if cfg.objective.imitate is not None:
        lines.append(f"learned the features of {load_weights(resolve(cfg.objective.imitate))[1].name}")
    return "; ".join(lines) or None


def is_main_process() -> bool:
    """Whether this process is the first of its run, the only one that writes; works before Lightning starts."""
    return all(os.environ.get(name, "0") == "0" for name in _RANK_VARIABLES)


def _trainer(cfg: TrainCfg, folder: Path, keeper: Keeper) -> L.Trainer:
    run = cfg.run
    accelerator = run.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return L.Trainer(
            accelerator=accelerator,
            devices=run.devices if isinstance(run.devices, int) else list(run.devices),
            num_nodes=run.num_nodes,
            strategy=run.strategy,
            precision=run.precision,
            max_epochs=-1,
            max_steps=-1 if run.max_steps is None else run.max_steps,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[keeper],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(folder),
        )
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"run: accelerator, devices, strategy or precision cannot be had here: {line}") from error


def _limit(cfg: TrainCfg, max_minutes: float | None, before: float) -> float | None:
    """Minutes of this call."""
    limit = cfg.run.max_minutes if max_minutes is None else max_minutes
    if limit is not None and limit <= 0:
        raise ConfigError(f"max_minutes is {limit}; give more than 0")
    whole = cfg.optimiser.total_minutes
    if cfg.optimiser.schedule != "time":
        return limit
    if whole is None and limit is None:
        raise ConfigError("optimiser.schedule 'time' needs minutes: --max-minutes, run.max_minutes or total_minutes")
    left = None if whole is None else max(whole - before, 0.0)
    return min(value for value in (limit, left) if value is not None)


# --- the process ----------------------------------------------------------------------------------------------------


@contextmanager
def _settings(cfg: TrainCfg) -> Iterator[None]:
    """Process-wide settings of training, put back afterwards: threads, TF32, generators, Lightning's chatter."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    chatter = {name: logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")}
    levels = {name: logger.level for name, logger in chatter.items()}
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*mid-epoch.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        if cfg.run.threads is not None:
            torch.set_num_threads(cfg.run.threads)
        torch.set_float32_matmul_precision("high" if cfg.run.tf32 else "highest")
        for logger in chatter.values():
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            for name, logger in chatter.items():
                logger.setLevel(levels[name])
