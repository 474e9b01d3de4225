"""Open a folder of SAR-optical pairs, whatever its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.lab.data.labels import read_corrections
from somareg.lab.data.pair_dataset import PairDataset, PairFiles
from somareg.lab.data.pairs import PairEntry, find_mask, list_pairs
from somareg.lab.data.published import (
    detect,
    read_gfge_so,
    read_osdataset,
    read_pair_folders,
    read_sen12,
    read_sopatch,
    read_whu_sen_city,
)


def open_dataset(folder: str | Path, kind: str = "auto") -> PairDataset:
    """The pairs of a folder.

    Args:
        folder: the data.
        kind: a key of `KINDS`, or "auto": a `pairs.csv` if there is one, else what the names of the files say.

    Raises:
        ConfigError: unknown kind.
        ReadError, InputError: the folder does not have this layout (the message shows it), or a table is damaged.
    """
    place = Path(folder)
    if kind == "auto":
        kind = "pairs" if (place / "pairs.csv").exists() else detect(place)
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of data folder '{kind}'.{did_you_mean(kind, ('auto', *KINDS))}")
    return KINDS[kind](place)


def read_pairs_csv(folder: Path) -> PairDataset:
    """A folder with `pairs.csv`, see `somareg.lab.data.pairs`, and `<set>/corrections.csv` where a set has one.

    Raises:
        ReadError, InputError: see `list_pairs` and `read_corrections`.
    """
    files = {entry: _files_of(folder, entry) for entry in list_pairs(folder)}
    corrections = {}
    for name in dict.fromkeys(entry.set for entry in files):
        path = folder / name / "corrections.csv"
        if path.exists():
            corrections[name] = read_corrections(path)
    return PairDataset("pairs", folder, files, corrections)


def _files_of(folder: Path, entry: PairEntry) -> PairFiles:
    place = folder / entry.set
    mask = find_mask(place / "mask", entry.name)
    return PairFiles(place / "sar" / entry.name, place / "optical" / entry.name, mask)


KINDS: dict[str, Callable[[Path], PairDataset]] = {
    "pairs": read_pairs_csv,
    "folders": read_pair_folders,
    "sen1-2": read_sen12,
    "osdataset": read_osdataset,
    "gfge_so": read_gfge_so,
    "whu-sen-city": read_whu_sen_city,
    "sopatch": read_sopatch,
}
"""Layouts that `open_dataset` reads."""
