"""Settings of a training run: nested frozen dataclasses, read from YAML, every value checked by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from somareg.config import from_mapping, to_mapping
from somareg.errors import ConfigError, UnsupportedError
from somareg.io.atomic import write_text
from somareg.lab.data.augment import AugmentCfg
from somareg.lab.data.draw import DrawCfg
from somareg.lab.data.synthetic.generator import SyntheticCfg
from somareg.lab.train.objective import ObjectiveCfg
from somareg.matching.network import NetworkCfg

INSTALL = "pip install 'somareg[train]'"
EXTENDS = "extends"

# YAML 1.1 takes 1e-4 for a text, because it has no dot; everybody who writes it means a number.
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)")


@dataclass(frozen=True)
class DataCfg:
    """What is trained on and what is validated on.

    Attributes:
        tiles: shards of tiles (`somareg.lab.data.tiles`): files, folders or glob patterns.
        synthetic_share: share of the steps whose batch is synthetic, 0-1.
        synthetic_pool: synthetic scenes held on the device.
        synthetic_size: side of a synthetic scene, pixels.
        synthetic_chunk: scenes that are replaced together.
        synthetic_refresh_steps: steps between two replacements; 0 keeps the first pool.
        synthetic: what synthetic scenes are made of.
        draw: how a pair is cut from a tile.
        augment: what its pixels go through.
        licences: set of tiles -> licence of its images, for the model's card.
        validation: file of protocol samples; None trains without validation.
        validation_limit: samples used of it; None uses all.
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
    """Where and for how long.

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
        devices: how many, or which.
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

    Raises:
        ConfigError: settings that contradict each other.
    """

    seed: int = 0
    network: NetworkCfg = field(default_factory=NetworkCfg)
    data: DataCfg = field(default_factory=DataCfg)
    objective: ObjectiveCfg = field(default_factory=ObjectiveCfg)
    optimiser: OptimiserCfg = field(default_factory=OptimiserCfg)
    run: RunCfg = field(default_factory=RunCfg)

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
        for name in ("max_minutes", "max_steps"):
            limit = getattr(run, name)
            if limit is not None and limit <= 0:
                raise ConfigError(f"run.{name} is {limit}; give more than 0, or null for no limit")
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
    """Read a configuration; what the file does not name keeps its default.

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
    mapping = _read_extended(Path(path)) if path is not None else {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text}: write it as key.sub=value, such as run.batch=16")
        _assign(mapping, key.strip(), _parse(value, f"--set {text}"))
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


def _read_extended(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file says, on top of what the file says that it extends; `above` are the files that extend this one."""
    if path.resolve() in above:
        raise ConfigError(f"configuration {path} extends itself; remove '{EXTENDS}' from one of the files")
    mapping = _read_yaml(path)
    base = mapping.pop(EXTENDS, None)
    if base is None:
        return mapping
    if not isinstance(base, str):
        raise ConfigError(f"{path}: {EXTENDS} is {base!r}; give one YAML file, relative to this one")
    below = path.parent / base
    if not below.is_file():
        raise ConfigError(f"{path}: {EXTENDS} names {below}, which is no file; give a path relative to {path.name}")
    return _merged(_read_extended(below, (*above, path.resolve())), mapping)


def _merged(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `below`, mappings key by key."""
    result = dict(below)
    for key, value in over.items():
        lower = result.get(key)
        if isinstance(lower, dict) and isinstance(value, dict):
            value = _merged(lower, value)
        result[key] = value
    return result


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} cannot be read ({error}); give a YAML file") from error
    mapping = _parse(text, str(path))
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise ConfigError(f"configuration {path} is not a mapping of names to values")
    return mapping


def _parse(text: str, where: str) -> Any:
    yaml, loader = _yaml()
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        first = " ".join(str(error).split())
        raise ConfigError(f"{where} is not YAML: {first}") from error


@lru_cache(maxsize=1)
def _yaml() -> tuple[Any, Any]:
    """PyYAML, and its safe loader with numbers such as 1e-4."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UnsupportedError(f"training is configured in YAML and PyYAML is not installed; {INSTALL}") from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^{_NUMBER.pattern}$"), list("-+0123456789."))
    return yaml, Loader


def _assign(mapping: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `mapping["a"]["b"]` for "a.b"; a value on the way that is no mapping is replaced by one."""
    *path, last = dotted.split(".")
    for name in path:
        inner = mapping.get(name)
        mapping[name] = dict(inner) if isinstance(inner, dict) else {}
        mapping = mapping[name]
    mapping[last] = value
