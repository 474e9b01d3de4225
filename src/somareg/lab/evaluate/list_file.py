"""Lists of samples as JSON: pairs once, then one row per sample; shipped lists, and lists of whole pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from somareg.errors import ConfigError, InputError
from somareg.lab.data.pairs import PairEntry
from somareg.lab.evaluate.protocol import PROTOCOL_VERSION, SETS, WHOLE_SETS, SetInfo, Split, check_names
from somareg.lab.evaluate.sample import Sample, SampleList
from somareg.lab.evaluate.warp import SmoothWarp
from somareg.lab.evaluate.whole import read_whole

_BIAS = (
    "rejected counts draws thrown away per level: 'size', the affine fits nowhere in the image; 'nodata', no position"
    " free of nodata was found; 'steep', at level N, the strongest warp nearly folds. Many 'size' rejections bias a"
    " level: in 256 px sets level R keeps rotations near multiples of 90 degrees and larger scales, so compare level R"
    " between methods, not between sets."
)
_COLUMNS = ("pair", "x", "y", "a", "b", "c", "d", "e", "f")
_WARP_COLUMNS = ("rms_px", "length_px", "seed")


def dump_list(listed: SampleList) -> str:
    """The JSON text of a list: pairs once, then one row per sample."""
    entries = {sample.pair.name: sample.pair for rows in listed.samples.values() for sample in rows}
    names = sorted(entries)
    number = {name: i for i, name in enumerate(names)}
    lines = [
        f'"{level}": [\n' + ",\n".join(_row(sample, number[sample.pair.name]) for sample in rows) + "\n]"
        for level, rows in listed.samples.items()
    ]
    pairs = ",\n".join(
        json.dumps([e.name, e.group, e.width, e.height, *e.offset]) for e in (entries[name] for name in names)
    )
    header: dict[str, Any] = {
        "protocol": PROTOCOL_VERSION,
        "seed": listed.seed,
        "set": listed.set,
        "role": listed.role,
        "split": listed.split,
        "crop": listed.crop,
        "residual": listed.residual,
        "quoted_from": listed.quoted_from,
        "rejected": listed.rejected,
        "bias": _BIAS,
        "pair_columns": ["name", "group", "width", "height", "dx", "dy"],
        "sample_columns": _COLUMNS,
        "warp_columns": _WARP_COLUMNS,
    }
    head = "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in header.items())
    rows = ",\n".join(lines)
    return f'{head},\n "pairs": [\n{pairs}\n],\n "samples": {{\n{rows}\n}}}}\n'


def _row(sample: Sample, pair: int) -> str:
    warp = sample.warp
    numbers = [] if warp is None else [warp.rms_px, warp.length_px, warp.seed]
    return json.dumps([pair, *sample.origin, *sample.matrix.ravel().tolist(), *numbers], separators=(",", ":"))


def parse_list(text: str, name: str = "list") -> SampleList:
    """The inverse of `dump_list`.

    Raises:
        InputError: not a list of this protocol version.
    """
    try:
        raw = json.loads(text)
        if raw["protocol"] != PROTOCOL_VERSION:
            raise InputError(f"{name} is of protocol {raw['protocol']}, this version reads {PROTOCOL_VERSION}")
        pairs = [PairEntry(raw["set"], p[0], raw["role"], p[1], p[2], p[3], (p[4], p[5])) for p in raw["pairs"]]
        samples = {
            level: [_sample(row, i, level, raw["crop"], pairs) for i, row in enumerate(rows)]
            for level, rows in raw["samples"].items()
        }
        return SampleList(
            set=raw["set"],
            role=raw["role"],
            split=raw["split"],
            crop=raw["crop"],
            seed=raw["seed"],
            samples=samples,
            rejected=raw["rejected"],
            residual=raw["residual"],
            quoted_from=raw["quoted_from"],
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{name} is not a list of samples ({type(error).__name__}: {error})") from error


def _sample(row: Sequence[Any], index: int, level: str, crop: int, pairs: Sequence[PairEntry]) -> Sample:
    affine, numbers = row[3 : len(_COLUMNS)], row[len(_COLUMNS) :]
    warp = SmoothWarp(float(numbers[0]), float(numbers[1]), int(numbers[2]), crop) if numbers else None
    return Sample(pairs[row[0]], level, index, crop, (row[1], row[2]), np.array(affine, float).reshape(2, 3), warp)


def set_lists(data_dir: str | Path, set_name: str, split: Split) -> list[SampleList]:
    """All lists of a set: the shipped ones, one per role; for a set of whole pairs the one from its table.

    Raises:
        ConfigError: unknown set, or no list of it for the split.
        ReadError, InputError: see `read_whole`.
    """
    check_names([set_name], (*SETS, *WHOLE_SETS), "set")
    if set_name in WHOLE_SETS:
        return [read_whole(data_dir, set_name, split)]
    return [_committed(info, split) for info in SETS[set_name]]


def committed_list(set_name: str, split: Split) -> SampleList:
    """The shipped list of a set's first role.

    For a set without test pairs (`vhr`), split "test" uses the val list; the opposite never happens.

    Raises:
        ConfigError: unknown set, or no list of this set for the split.
    """
    check_names([set_name], SETS, "set")
    return _committed(SETS[set_name][0], split)


def _committed(info: SetInfo, split: Split) -> SampleList:
    if split == "val" and split not in info.roles:
        raise ConfigError(f"set '{info.name}' has only test pairs; they are used for nothing but the final figure")
    name = list_name(info, split if split in info.roles else "val")
    return parse_list((files("somareg.lab.evaluate") / "lists" / name).read_text(encoding="utf-8"), name)


def list_name(info: SetInfo, split: Split) -> str:
    """File name of a list: set and split, and the role if the set has several for the split."""
    several = sum(split in other.roles for other in SETS.get(info.name, ())) > 1
    return f"{info.name}-{info.roles[split] if several else split}.json"
