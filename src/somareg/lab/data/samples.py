"""Cut the protocol's samples from a data folder: `python -m somareg.lab.data.samples`."""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from somareg.errors import ConfigError, SomaregError
from somareg.lab.data.pairs import PairEntry, StoredPair, list_pairs, load_pair
from somareg.lab.data.stacks import ProtocolSamples, SampleStack
from somareg.lab.evaluate.protocol import AFFINE_LEVELS, SetInfo, affine_levels
from somareg.lab.evaluate.sample import Sample, SampleList, load_sample

HELD_OUT = 8  # one of this many places is scored when a set has no validation pairs


def load_stacks(
    lists: Sequence[SampleList], data_dir: str | Path, levels: Collection[str], limit: int | None = None
) -> Iterator[SampleStack]:
    """The samples of an evaluation of these lists and levels, cut from the images one stack at a time.

    Args:
        lists: for example `committed_list(name, "test")`.
        data_dir: folder with the pairs.
        levels: of `AFFINE_LEVELS`; a list without one of them gives no stack for it.
        limit: the first samples of each list and level; None: all.

    Raises:
        ConfigError: an unknown level, one whose truth is no matrix, or pairs without labels.
        ReadError, InputError: see `load_pair`.
    """
    names = affine_levels(levels)
    for listed in lists:
        pairs = _PairCache(Path(data_dir))
        for level in names:
            first = listed.samples.get(level, [])[:limit]
            if first:
                yield _load(listed, level, first, pairs)


def pack_samples(
    lists: Sequence[SampleList],
    data_dir: str | Path,
    path: str | Path,
    levels: Collection[str] | None = None,
    limit: int | None = None,
) -> ProtocolSamples:
    """Cut the samples of committed lists and write them as one file.

    Args:
        lists: for validation, `committed_list(name, "val")`.
        data_dir: folder with the pairs.
        path: file to write.
        levels: of `AFFINE_LEVELS`; None: all of them that a list has.
        limit: at most this many samples per list and level, spread evenly over the list; None: all.

    Raises:
        ConfigError: an unknown level, one whose truth is no matrix, pairs without labels, or `limit` below 1.
        ReadError, InputError: see `load_pair`.
        OutputError: the file cannot be written.
    """
    names = affine_levels(AFFINE_LEVELS if levels is None else levels)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit} leaves no sample; give at least 1")
    stacks: list[SampleStack] = []
    for listed in lists:
        pairs = _PairCache(Path(data_dir))
        available = [level for level in names if listed.samples.get(level)]
        stacks += [_load(listed, level, _spread(listed.samples[level], limit), pairs) for level in available]
    packed = ProtocolSamples(tuple(stacks))
    packed.save(path)
    return packed


class _PairCache:
    """Cache of the last pair, because lists of few large images repeat them."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._held: tuple[PairEntry, StoredPair] | None = None

    def __call__(self, entry: PairEntry) -> StoredPair:
        if self._held is None or self._held[0] != entry:
            self._held = entry, load_pair(self.data_dir, entry)
        return self._held[1]


def _spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    count = len(samples) if limit is None else min(limit, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def _load(listed: SampleList, level: str, samples: Sequence[Sample], pairs: _PairCache) -> SampleStack:
    loaded = [load_sample(pairs.data_dir, sample, pairs(sample.pair)) for sample in samples]
    moving, reference, matrix = (
        torch.from_numpy(np.stack([getattr(sample, key) for sample in loaded]))
        for key in ("moving", "reference", "matrix")
    )
    if listed.quoted_from is None:
        raise ConfigError(f"pairs of set '{listed.set}' in role '{listed.role}' have no label; score by other roles")
    index, group = tuple(s.index for s in samples), tuple(s.pair.group for s in samples)
    return SampleStack(listed.set, listed.split, level, moving, reference, matrix, index, group, listed.quoted_from)


def held_out(data_dir: str | Path, name: str, count: int, levels: Collection[str]) -> SampleList:
    """Validation samples of a set with training pairs only, from an eighth of its places, chosen by their names.

    Training must leave those places out; `somareg.lab.data.bundle` does.

    Args:
        data_dir: folder with `pairs.csv`.
        name: of the set, whose pairs have role "train".
        count: samples per level.
        levels: of `AFFINE_LEVELS`.

    Raises:
        ConfigError: no such place, or an unknown level.
        InputError: see `make_list`.
    """
    from somareg.lab.evaluate.sampling import make_list

    groups = {entry.group for entry in list_pairs(data_dir, {name}, {"train"})}
    places = {group for group in groups if zlib.crc32(group.encode()) % HELD_OUT == 0}
    info = SetInfo(name, 160, "as published", 1.0, {"val": "train"}, {"val": count})
    return make_list(data_dir, info, "val", levels=levels, groups=places)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m somareg.lab.data.samples`: pack the committed lists of a split into one file."""
    from somareg.lab.evaluate.list_file import committed_list

    parser = argparse.ArgumentParser(prog="python -m somareg.lab.data.samples", description=main.__doc__)
    parser.add_argument("--data", required=True, help="folder with pairs.csv")
    parser.add_argument("--out", required=True, help="file to write, .safetensors")
    parser.add_argument("--sets", nargs="+", default=["ombria"])
    parser.add_argument("--levels", nargs="+", default=["m", "H"])
    parser.add_argument("--limit", type=int, help="samples of each set and level at most")
    parser.add_argument("--hold-out", nargs="+", default=[], help="sets that train, whose every eighth place is scored")
    parsed = parser.parse_args(arguments)
    try:
        # Only val: training scores them every few minutes, while test pairs are for final figures.
        lists = [committed_list(name, "val") for name in parsed.sets]
        lists += [held_out(parsed.data, name, parsed.limit or 100, parsed.levels) for name in parsed.hold_out]
        packed = pack_samples(lists, parsed.data, parsed.out, levels=parsed.levels, limit=parsed.limit)
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for stack in packed:
        print(f"{stack.set} {stack.split} {stack.level}: {len(stack)} samples")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
