"""The rows of an ablation and their configurations, which differ from the full one only in the named part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from somareg.config import did_you_mean, from_mapping, to_mapping
from somareg.errors import ConfigError
from somareg.lab.train.config import TrainCfg, load_config

FULL = "fge-full_glam-full"
PUBLISHED = "soma-paper-small"
ANOTHER_SEED = "another-seed"
ROWS = (
    FULL,
    ANOTHER_SEED,
    *("fge-attention_glam-full", "fge-filters_glam-full", "fge-off_glam-full"),
    *("fge-full_glam-affine", "fge-full_glam-flow"),
    *("orientation-off", "orientation-off_fge-off"),
    PUBLISHED,
)


@dataclass(frozen=True)
class AblateCfg:
    """Common settings of all rows.

    Attributes:
        out: folder of the rows.
        tiles: shards to train on: files, folders or glob patterns.
        validation: file of protocol samples.
        minutes: of training per row, without measuring.
        limit: samples used of it, shared among its sets and levels; None for all.
        rows: names, see `row_config`; yardsticks are added automatically.
        configs: folder of the configurations.
        base: configuration in it that the rows of `ablation/` are applied to.
        seed: of initial weights and draws.
        threads: CPU threads; None leaves them.
        accelerator: "auto" (CUDA, then the CPU), "cpu" or "cuda".

    Raises:
        ConfigError: a value out of its range.
    """

    out: Path
    tiles: tuple[str, ...]
    validation: Path
    minutes: float = 3.0
    limit: int | None = 60
    rows: tuple[str, ...] = ROWS
    configs: Path = Path("configs")
    base: str = "tiny.yaml"
    seed: int = 0
    threads: int | None = None
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ConfigError(f"minutes is {self.minutes}; give more than 0")
        for name in ("limit", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; give 1 or more")


def overlaid(base: Any, full: Any, row: Any) -> Any:
    """`base` with every setting in which `row` differs from `full`; all are nested mappings of settings."""
    if not all(isinstance(each, Mapping) for each in (base, full, row)):
        return base if row == full else row
    keys = dict.fromkeys((*base, *(key for key in row if row[key] != full.get(key))))
    return {key: overlaid(base.get(key), full.get(key), row.get(key)) for key in keys}


def row_config(name: str, asked: AblateCfg) -> TrainCfg:
    """The configuration of a row.

    Args:
        name: a file of `configs/ablation/`, whose changes are applied to the base; a file of `configs/`,
            taken with its own network, objective, draws, batch and learning rate; or `ANOTHER_SEED`, which is the full
            row with the next seed.
        asked: common settings of all rows.

    Raises:
        ConfigError: no such row, or a file that cannot be used.
    """
    base = load_config(asked.configs / asked.base)
    ablations, others = (
        {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        for folder in (asked.configs / "ablation", asked.configs)
    )
    file = FULL if name == ANOTHER_SEED else name
    if file in ablations:
        full, row = (to_mapping(load_config(ablations[each])) for each in (FULL, file))
        cfg = from_mapping(TrainCfg, overlaid(to_mapping(base), full, row))
    elif file in others:
        cfg = load_config(others[file])
    else:
        hint = did_you_mean(name, [*ablations, *others, ANOTHER_SEED])
        raise ConfigError(f"no row '{name}' among the configurations in {asked.configs}.{hint}")
    return _on_equal_terms(replace(cfg, seed=asked.seed + (name == ANOTHER_SEED)), base, asked)


def _on_equal_terms(cfg: TrainCfg, base: TrainCfg, asked: AblateCfg) -> TrainCfg:
    """Use the same data, minutes and hardware for all rows, and the base's settings for a run of this length."""
    return replace(
        cfg,
        data=replace(
            cfg.data,
            tiles=asked.tiles,
            validation=None,
            **{name: getattr(base.data, name) for name in vars(base.data) if name.startswith("synthetic")},
        ),
        # The schedule ends with the minutes of all resumes, so a row that was killed gets no more than the others.
        optimiser=replace(
            cfg.optimiser, schedule="time", total_minutes=asked.minutes, warmup_steps=base.optimiser.warmup_steps
        ),
        run=replace(
            base.run,
            batch=cfg.run.batch,
            precision=cfg.run.precision,
            max_minutes=None,
            max_steps=None,
            accelerator=asked.accelerator,  # type: ignore[arg-type]  # checked by the command
            threads=asked.threads,
        ),
    )
