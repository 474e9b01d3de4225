"""Find the pairs of a folder tree by name: two files whose paths differ only in the word for the sensor are a pair.

`sar/a.png` and `opt/a.png`, `train/sar7.png` and `train/opt7.png`, `s1_3/ROIs1_s1_3_p5.png` and
`s2_3/ROIs1_s2_3_p5.png` are pairs; case and file extension do not matter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from somareg.errors import ReadError
from somareg.lab.data.pair_dataset import PairDataset, PairFiles
from somareg.lab.data.pairs import PairEntry

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
ROLES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_SENSORS = {
    **dict.fromkeys(("sar", "s1"), "sar"),
    **dict.fromkeys(("optical", "opt", "rgb", "s2"), "optical"),
    "mask": "mask",
}
# a word of its own, or with a running number behind it; "s1" only on its own, as "s12" is no sensor
_SENSOR = re.compile(r"(?<![a-z0-9])(?:(sar|optical|opt|rgb|mask)(?![a-z])|(s1|s2)(?![a-z0-9]))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """A pair by name.

    Attributes:
        key: the common part of the paths, the word for the sensor replaced by "*", without extension.
        files: absolute paths.
        name: path of the SAR file in the folder, with "/".
    """

    key: str
    files: PairFiles
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class FolderTree:
    """Rules for reading a folder tree.

    Attributes:
        kind: key of `somareg.lab.data.datasets.KINDS`.
        expected: the tree in one line, for errors.
        set_of: set of a pair.
        group_of: place of a pair, or None when the names do not tell; then all pairs of one role are one place.
    """

    kind: str
    expected: str
    set_of: Callable[[Found], str]
    group_of: Callable[[Found], str | None] = field(default=lambda _: None)


def read_tree(folder: Path, tree: FolderTree) -> PairDataset:
    """The pairs of a folder tree.

    The role is the part of the path that says train, val or test; else the list `train.txt`, `val.txt` or `test.txt`
    that names the file; else "train". Width and height are not known before a pair is loaded.

    Raises:
        ReadError: no such folder, no pair in it, or two files claim one place in a pair.
    """
    pairs, unpaired = find_pairs(folder, tree.expected)
    listed = _listed_roles(folder)
    files: dict[PairEntry, PairFiles] = {}
    for pair in pairs:
        role = role_of(pair.key) or listed.get(PurePosixPath(pair.name).stem, "train")
        name = tree.set_of(pair)
        group = tree.group_of(pair)
        place = f"{name}-{role}" if group is None else f"{name}-{group}"
        files[PairEntry(name, pair.name, role, place, 0, 0, (0.0, 0.0))] = pair.files
    return PairDataset(tree.kind, folder, files, unpaired=unpaired)


def find_pairs(folder: Path, tree: str) -> tuple[list[Found], tuple[str, ...]]:
    """Pairs in the order of their paths, and the images (paths in the folder) that have no partner.

    Raises:
        ReadError: see `read_tree`.
    """
    if not folder.is_dir():
        raise ReadError(f"{folder} is not a folder; give one laid out as {tree}")
    files_of: dict[str, dict[str, str]] = {}
    for name in image_names(folder):
        sensor, key = split_sensor(name)
        if sensor:
            roles = files_of.setdefault(key.lower(), {})
            if sensor in roles:
                raise ReadError(f"{folder}: '{roles[sensor]}' and '{name}' claim the same place; remove one of them")
            roles[sensor] = name
    whole = {key: names for key, names in files_of.items() if {"sar", "optical"} <= names.keys()}
    if not whole:
        raise ReadError(f"{folder} holds no pair of images; expected {tree}")
    pairs = [
        Found(split_sensor(names["sar"])[1], PairFiles(**{k: folder / v for k, v in names.items()}), names["sar"])
        for names in whole.values()
    ]
    lone = (name for key, names in files_of.items() if key not in whole for name in names.values())
    return sorted(pairs, key=lambda pair: pair.name), tuple(sorted(lone))


def image_names(folder: Path) -> Iterator[str]:
    """Paths of all images below a folder, relative, with "/"; hidden files and folders are passed over."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        inside = Path(place).relative_to(folder)
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield (inside / name).as_posix()


def split_sensor(name: str) -> tuple[str | None, str]:
    """The sensor that a path names ("sar", "optical", "mask" or None) and the path with all such words as "*".

    A folder that names two sensors ("sar-optical") is ignored; of several parts that name one, the last counts.
    """
    parts = PurePosixPath(name).with_suffix("").parts
    sensor = None
    for part in parts:
        kinds = {_SENSORS[match[0].lower()] for match in _SENSOR.finditer(part)}
        sensor = kinds.pop() if len(kinds) == 1 else sensor
    return sensor, "/".join(_SENSOR.sub("*", part) for part in parts)


def role_of(key: str) -> str | None:
    """Train, val or test, from the last folder of a pair that says so: `train`, `train_*`, `*-test`."""
    roles = (_role(part) for part in reversed(PurePosixPath(key).parts[:-1]))
    return next((role for role in roles if role), None)


def places(key: str) -> list[str]:
    """The folders of a pair that are neither a sensor nor a role."""
    return [part for part in PurePosixPath(key).parts[:-1] if "*" not in part and not _role(part)]


def _role(part: str) -> str | None:
    return ROLES.get(re.sub("[^a-z]", "", part.lower()))


def _listed_roles(folder: Path) -> dict[str, str]:
    """File name without extension -> role, from train.txt, val.txt and test.txt."""
    listed: dict[str, str] = {}
    for role in ("train", "val", "test"):
        path = folder / f"{role}.txt"
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                raise ReadError(f"{path} cannot be read ({error})") from error
            listed.update((PurePosixPath(line).stem, role) for line in lines)
    return listed
