"""The folder of a run: its starting checkpoint, checks before use, and removal of an earlier run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from somareg.config import to_mapping
from somareg.errors import ConfigError, OutputError, ReadError
from somareg.lab.train.callbacks import BEST, DIAGNOSIS, LAST
from somareg.lab.train.config import TrainCfg, save_config
from somareg.lab.train.export import read_checkpoint
from somareg.lab.train.logs import EVENTS, PICTURES, TABLES

CONFIG = "config.yaml"
_FILES = (CONFIG, LAST, BEST, DIAGNOSIS, *TABLES)
_FOLDERS = (EVENTS, PICTURES)


def starting_point(folder: Path, resume: bool | str | Path) -> Path | None:
    """The checkpoint that a run goes on from; None for a new run. `resume` is that of `train`."""
    if isinstance(resume, str | Path):
        return Path(resume)
    last = folder / LAST
    return last if resume and last.exists() else None


def is_fresh(folder: Path, resume: bool | str | Path) -> bool:
    """Whether a new run begins in the folder, also one that goes on from the checkpoint of another folder."""
    elsewhere = isinstance(resume, str | Path) and Path(resume).resolve().parent != folder.resolve()
    return not resume or elsewhere


def check_checkpoint(path: Path, cfg: TrainCfg) -> dict[str, Any]:
    """The training record of a checkpoint that fits the configuration.

    Raises:
        ReadError: the file is not a checkpoint of somareg.
        ConfigError: it belongs to another network.
    """
    content = read_checkpoint(path)
    record = content.get("somareg")
    if not isinstance(record, dict) or "ema" not in content:
        raise ReadError(f"{path} is not a checkpoint of somareg; give one that 'somareg train' wrote")
    key = _difference(record["config"]["network"], to_mapping(cfg.network), "network")
    if key is not None:
        raise ConfigError(f"{path} was trained with another '{key}'; resume with its own configuration")
    return record


def _difference(one: Any, other: Any, name: str) -> str | None:
    """The first setting in which two mappings differ, None when they agree."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys((*one, *other)):
            difference = _difference(one.get(key), other.get(key), f"{name}.{key}")
            if difference is not None:
                return difference
        return None
    return None if one == other else name


def check_folder(folder: Path, *, fresh: bool, overwrite: bool) -> None:
    """Refuse a folder whose content would be lost or mixed up.

    Raises:
        OutputError: it is a file, holds a run that is neither resumed nor replaced, or holds something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a folder name")
    inside = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    strange = inside - {*_FILES, *_FOLDERS}
    if fresh and not overwrite and (strange or LAST in inside):
        raise OutputError(f"{folder} is not empty; continue with --resume, replace its run with --overwrite")
    if not fresh and strange and CONFIG not in inside:
        raise OutputError(f"{folder} holds no run of somareg to resume; give its folder, or a new one")


def claim(folder: Path, cfg: TrainCfg, *, fresh: bool) -> None:
    """Make the folder, clear an earlier run out of it, write the configuration.

    Raises:
        OutputError: the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                shutil.rmtree(folder / name, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be used ({error}); give another output folder") from error
    save_config(cfg, folder / CONFIG)
