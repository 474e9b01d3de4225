"""Open a folder of SAR-optical pairs, whatever its layout."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from somareg.config import did_you_mean
from somareg.errors import ConfigError, InputError, ReadError
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
        kind: a key of `KINDS`, or "auto": a `pairs.csv` if there is one, else by the names of the files.

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
    """A folder with `pairs.csv`, see `somareg.lab.data.pairs`, and for a set that has them `<set>/corrections.csv` and
    `<set>_cross.csv`, pairs of one date's SAR image with another date's optical image.

    Raises:
        ReadError, InputError: see `list_pairs` and `read_corrections`; a cross pair names an unknown image.
    """
    files = {entry: _files_of(folder, entry) for entry in list_pairs(folder)}
    for name in dict.fromkeys(entry.set for entry in files):
        path = folder / f"{name}_cross.csv"
        if path.exists():
            files |= _cross_pairs(
                path, {entry.name: (entry, file) for entry, file in files.items() if entry.set == name}
            )
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


def _cross_pairs(path: Path, entries: dict[str, tuple[PairEntry, PairFiles]]) -> dict[PairEntry, PairFiles]:
    """Pairs without pixels of their own, columns sar_name, optical_name, dx, dy; both images are of one place.

    A pair is named `SAR+OPTICAL` and takes the group and the role of its SAR image. Masks belong to pairs as they are:
    images that have one are refused.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{path} cannot be read ({error})") from error
    crossed = {}
    for row in rows:
        try:
            (entry, sar), (other, optical) = entries[row["sar_name"]], entries[row["optical_name"]]
            offset = float(row["dx"]), float(row["dy"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: bad row ({error}); it needs sar_name, optical_name of known pairs, dx, dy"
            ) from error
        if entry.role != other.role or entry.group != other.group:
            raise InputError(f"{path}: {entry.name} and {other.name} differ in role or group; pair images of one place")
        if sar.mask or optical.mask:
            raise InputError(f"{path}: {entry.name} or {other.name} has a mask, which no cross pair can take over")
        name = f"{Path(entry.name).stem}+{other.name}"
        crossed[replace(entry, name=name, offset=offset)] = PairFiles(sar.sar, optical.optical)
    return crossed


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
