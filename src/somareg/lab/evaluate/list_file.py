"""Lists of samples as JSON: pairs once, then one row per sample; and the lists that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np

from somareg.errors import ConfigError, InputError
from somareg.lab.data.pairs import PairEntry
from somareg.lab.evaluate.protocol import PROTOCOL_VERSION, SETS, Sample, SampleList, Split, check_names

_BIAS = (
    "rejected counts draws thrown away per level: 'size', the affine fits nowhere in the image; 'nodata', no position"
    " free of nodata was found. Many 'size' rejections bias a level: in 256 px sets level R keeps rotations near"
    " multiples of 90 degrees and larger scales, so compare level R between methods, not between sets."
)


def dump_list(made: SampleList) -> str:
    """The JSON text of a list: pairs once, then one row per sample."""
    names = sorted({sample.pair.name for rows in made.samples.values() for sample in rows})
    entries = {sample.pair.name: sample.pair for rows in made.samples.values() for sample in rows}
    number = {name: i for i, name in enumerate(names)}
    lines = [
        f'"{level}": [\n'
        + ",\n".join(
            json.dumps([number[s.pair.name], *s.origin, *s.matrix.ravel().tolist()], separators=(",", ":"))
            for s in rows
        )
        + "\n]"
        for level, rows in made.samples.items()
    ]
    pairs = ",\n".join(
        json.dumps([e.name, e.group, e.width, e.height, *e.offset]) for e in (entries[name] for name in names)
    )
    header: dict[str, Any] = {
        "protocol": PROTOCOL_VERSION,
        "seed": made.seed,
        "set": made.set,
        "role": made.role,
        "split": made.split,
        "crop": made.crop,
        "residual": made.residual,
        "quoted_from": made.quoted_from,
        "rejected": made.rejected,
        "bias": _BIAS,
        "pair_columns": ["name", "group", "width", "height", "dx", "dy"],
        "sample_columns": ["pair", "x", "y", "a", "b", "c", "d", "e", "f"],
    }
    head = "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in header.items())
    rows = ",\n".join(lines)
    return f'{head},\n "pairs": [\n{pairs}\n],\n "samples": {{\n{rows}\n}}}}\n'


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
            level: [
                Sample(pairs[r[0]], level, i, raw["crop"], (r[1], r[2]), np.array(r[3:], float).reshape(2, 3))
                for i, r in enumerate(rows)
            ]
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
    except (KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{name} is not a list of samples ({type(error).__name__}: {error})") from error


def committed_list(set_name: str, split: Split) -> SampleList:
    """The list that ships with the package.

    A set without test pairs is served in split "test" by its val list (`vhr`); the opposite never happens.

    Raises:
        ConfigError: unknown set, or no list of this set for the split.
    """
    check_names([set_name], SETS, "set")
    known = SETS[set_name].roles
    if split == "val" and split not in known:
        raise ConfigError(f"set '{set_name}' has only test pairs; they are used for nothing but the final figure")
    name = f"{set_name}-{split if split in known else 'val'}.json"
    return parse_list((files("somareg.lab.evaluate") / "lists" / name).read_text(encoding="utf-8"), name)
