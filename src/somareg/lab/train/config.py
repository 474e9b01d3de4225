"""Settings of a training run: nested frozen dataclasses, read from YAML, every value checked by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from somareg.config import from_mapping, to_mapping
from somareg.errors import ConfigError
from somareg.io.atomic import write_text
from somareg.lab.data.augment import AugmentCfg
from somareg.lab.data.draw import DrawCfg
from somareg.lab.data.synthetic.generator import SyntheticCfg
from somareg.lab.train.objective import ObjectiveCfg
from somareg.lab.train.yaml_files import parse, read_extended
from somareg.soma.network import NetworkCfg


@dataclass(frozen=True)
class DataCfg:
    """Data for training and validation.

    Attributes:
        tiles: shards of tiles (`somareg.lab.data.tiles`): files, folders or glob patterns.
        synthetic_share: share of the steps whose batch is synthetic, 0-1.
        synthetic_pool: synthetic scenes held on the device.
        synthetic_size: side of a synthetic scene, pixels.
        synthetic_chunk: number of scenes replaced together.
        synthetic_refresh_steps: steps between two replacements; 0 keeps the first pool.
        synthetic: settings of the generator.
        draw: how a pair is cut from a tile.
        augment: augmentation of its pixels.
        licences: set of tiles -> licence of its images, for the model's card.
        validation: file of protocol samples; None trains without validation.
        validation_limit: number of its samples in use; None for all.
    """

    tiles: tuple[str, ...] = ()
    synthetic_share: float = 0.0
    synthetic_pool: int = 64
    synthetic_size: int = 256
    synthetic_chunk: int = 8
    synthetic_refresh_steps: int = 20
    synthetic: SyntheticCfg = field(default_factory=SyntheticCfg)
    draw: DrawCfg = field(default_factory=DrawCfg)
    augment: AugmentCfg = field(default_factory=AugmentCfg)
    licences: dict[str, str] = field(default_factory=dict)
    validation: str | None = None
    validation_limit: int | None = 100


@dataclass(frozen=True)
class OptimiserCfg:
    """AdamW and its learning rate.

    Attributes:
        lr: peak learning rate.
        weight_decay: of matrices and kernels; norms, biases and other vectors have none.
        warmup_steps: steps of linear rise.
        total_steps: length of the "cosine" schedule; None takes `run.max_steps`.
        total_minutes: length of the "time" schedule, minutes trained over all resumes; training stops there. None ends
            the schedule with the present call, so that a later resume raises the learning rate again.
        schedule: "cosine" over steps, "time" (cosine over minutes), or "constant".
        floor: learning rate at the end of a cosine, share of `lr`.
        clip: largest norm of the whole gradient; 0 does not clip.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 200
    total_steps: int | None = None
    total_minutes: float | None = None
    schedule: Literal["cosine", "constant", "time"] = "time"
    floor: float = 0.01
    clip: float = 1.0


@dataclass(frozen=True)
class RunCfg:
    """Hardware, precision, duration and logging of a run.

    Attributes:
        batch: pairs per step and process.
        precision: "32-true", "16-mixed" or "bf16-mixed". Images are drawn, and weights kept, in float32 in any case.
        tf32: let CUDA round the factors of float32 matrix products to 10 bits. Faster, but coordinates are multiplied
            in float32 too and lose tenths of a pixel; convolutions use TF32 on CUDA by PyTorch's own default.
        ema: decay of the averaged weights.
        max_minutes: wall clock of one call, validation included; None is without limit.
        max_steps: steps over all resumes; None is without limit.
        checkpoint_minutes: between two `last.ckpt`.
        val_every_minutes: between two validations.
        log_every_steps: between two rows of the log.
        judge: what validation measures: "registration", the engine with the network's features, as users get it; or
            "forward", the network alone in batches on the device, in seconds.
        pictures: validation samples drawn into the log.
        accelerator: "auto" (CUDA, then the CPU), "cpu" or "cuda".
        devices: their number, or their indices.
        num_nodes: hosts.
        strategy: Lightning's: "auto", "ddp", "ddp_find_unused_parameters_true".
        threads: CPU threads of PyTorch; None leaves them.
    """

    batch: int = 8
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    tf32: bool = False
    ema: float = 0.999
    max_minutes: float | None = None
    max_steps: int | None = None
    checkpoint_minutes: float = 5.0
    val_every_minutes: float = 10.0
    judge: Literal["registration", "forward"] = "registration"
    log_every_steps: int = 20
    pictures: int = 4
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int | tuple[int, ...] = 1
    num_nodes: int = 1
    strategy: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class TrainCfg:
    """A training run; with its data it determines every draw.

    Attributes:
        seed: of initial weights and of every draw.
        network, data, objective, optimiser, run: settings of these parts.
        initial: weights to start from, a name that ships ("compact") or a `.safetensors` file; parts that they lack
            start at random, and parts that the network lacks are left out. None starts all at random.
        frozen: parts of the network that are not trained, such as `encoder.branches.sar`.

    Raises:
        ConfigError: settings that contradict each other.
    """

    seed: int = 0
    network: NetworkCfg = field(default_factory=NetworkCfg)
    data: DataCfg = field(default_factory=DataCfg)
    objective: ObjectiveCfg = field(default_factory=ObjectiveCfg)
    optimiser: OptimiserCfg = field(default_factory=OptimiserCfg)
    run: RunCfg = field(default_factory=RunCfg)
    initial: str | None = None
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        data, optimiser, run = self.data, self.optimiser, self.run
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; give 0 to 2^63 - 1")
        if not 0 <= data.synthetic_share <= 1:
            raise ConfigError(f"data.synthetic_share is {data.synthetic_share}; it is a share, 0 to 1")
        for name in ("synthetic_pool", "synthetic_size", "synthetic_chunk"):
            if getattr(data, name) < 1:
                raise ConfigError(f"data.{name} is {getattr(data, name)}; give 1 or more")
        for name in ("batch", "log_every_steps", "num_nodes"):
            if getattr(run, name) < 1:
                raise ConfigError(f"run.{name} is {getattr(run, name)}; give 1 or more")
        limits = {f"run.{name}": getattr(run, name) for name in ("max_minutes", "max_steps")}
        limits |= {f"optimiser.{name}": getattr(optimiser, name) for name in ("total_minutes", "total_steps")}
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise ConfigError(f"{name} is {limit}; give more than 0, or null for no limit")
        if not 0 <= run.ema < 1:
            raise ConfigError(f"run.ema is {run.ema}; give 0 (no averaging) to below 1")
        if optimiser.lr <= 0 or optimiser.warmup_steps < 0 or optimiser.clip < 0:
            raise ConfigError("optimiser: lr is above 0, warmup_steps and clip are 0 or more")
        if optimiser.schedule == "cosine" and not (optimiser.total_steps or run.max_steps):
            raise ConfigError(
                "optimiser.schedule 'cosine' needs optimiser.total_steps or run.max_steps; or take 'time'"
            )


def load_config(
    path: str | Path | None, overrides: Sequence[str] = (), extra: Mapping[str, Any] | None = None
) -> TrainCfg:
    """Read a configuration; missing settings keep their defaults.

    A file may name another one that it differs from: `extends: ../base.yaml`, relative to itself. Mappings are merged
    key by key; any other value, null too, replaces the one below.

    Args:
        path: YAML file; None starts from the defaults.
        overrides: texts "key.sub=value", the value in YAML; they win over the file.
        extra: dotted key -> value, wins over both.

    Raises:
        ConfigError: a file is missing, not YAML or extends itself; an unknown key (with the nearest known one) or a
            bad value.
        UnsupportedError: PyYAML is not installed.
    """
    mapping = read_extended(Path(path)) if path is not None else {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text}: write it as key.sub=value, such as run.batch=16")
        _assign(mapping, key.strip(), parse(value, f"--set {text}"))
    for key, value in (extra or {}).items():
        _assign(mapping, key, value)
    return from_mapping(TrainCfg, mapping)


def save_config(cfg: TrainCfg, path: Path) -> None:
    """Write every setting, defaults too, as YAML that `load_config` reads back to an equal value.

    Raises:
        OutputError: the folder or disk refuses.
    """
    import yaml  # type: ignore[import-untyped,unused-ignore]

    text = yaml.safe_dump(to_mapping(cfg), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    write_text(path, text, overwrite=True)


def _assign(mapping: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `mapping["a"]["b"]` for "a.b"; a value on the way that is no mapping is replaced by one."""
    *path, last = dotted.split(".")
    for name in path:
        inner = mapping.get(name)
        mapping[name] = dict(inner) if isinstance(inner, dict) else {}
        mapping = mapping[name]
    mapping[last] = value
