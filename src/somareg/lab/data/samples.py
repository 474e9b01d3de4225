"""The protocol's samples in memory: stacks per set and level, batches that a network takes, one safetensors file.

The file serves to validate where the data folder is not at hand.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from somareg.errors import ConfigError, InputError, ReadError, SomaregError
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.pairs import PairEntry, StoredPair, list_pairs, load_pair
from somareg.lab.data.standardise import standardise
from somareg.lab.data.store import read_tensors, write_tensors
from somareg.lab.evaluate.protocol import (
    LEVELS,
    LoadedSample,
    Sample,
    SampleList,
    SetInfo,
    check_names,
    load_sample,
)

KIND = "somareg.protocol-samples"
HELD_OUT = 8  # one place in so many is scored where a set has no validation pairs of its own
TOGETHER = 4  # samples of a batch: enough for a CPU, and 512 px fit everywhere


@dataclass(frozen=True, slots=True, eq=False)
class SampleStack:
    """n samples of one set, split and level.

    Attributes:
        set, split, level: what they are.
        moving: (n, S, S) uint8 SAR.
        reference: (n, 3, S, S) uint8 optical, RGB.
        matrix: (n, 2, 3) float64 truth, reference-crop to moving-crop pixel centres.
        index: places in the committed list.
        group: places on the ground.
        quoted_from: smallest CMR threshold (pixels) that the set's labels allow to quote.
    """

    set: str
    split: str
    level: str
    moving: Tensor
    reference: Tensor
    matrix: Tensor
    index: tuple[int, ...]
    group: tuple[str, ...]
    quoted_from: float

    def __post_init__(self) -> None:
        count = len(self.index)
        side = self.moving.shape[-1]
        shapes = {"moving": (count, side, side), "reference": (count, 3, side, side), "matrix": (count, 2, 3)}
        for key, shape in shapes.items():
            found: Tensor = getattr(self, key)
            dtype = torch.float64 if key == "matrix" else torch.uint8
            if tuple(found.shape) != shape or found.dtype != dtype:
                raise InputError(f"samples: {key} is {shape} {dtype}, not {tuple(found.shape)} {found.dtype}")
        if len(self.group) != count:
            raise InputError(f"samples: group has {len(self.group)} entries for {count} samples")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> LoadedSample:
        """Sample `i` as the protocol's own `load_sample` gives it."""
        return LoadedSample(*(getattr(self, key)[i].cpu().numpy() for key in ("moving", "reference", "matrix")))

    def to(self, device: torch.device | str) -> SampleStack:
        """The same samples on another device."""
        moving, reference, matrix = (tensor.to(device) for tensor in (self.moving, self.reference, self.matrix))
        return replace(self, moving=moving, reference=reference, matrix=matrix)

    def batch(self, chosen: slice, device: torch.device | str) -> PairBatch:
        """Some samples as a network takes them: normalised as registration normalises, every pixel valid."""
        reference, moving = self.reference[chosen].to(device), self.moving[chosen, None].to(device)
        seen = torch.ones_like(moving, dtype=torch.float32)
        return PairBatch(
            reference=standardise(reference.float(), seen, "optical"),
            reference_mask=seen,
            moving=standardise(moving.float(), seen, "sar"),
            moving_mask=seen,
            truth=self.matrix[chosen].float().to(device),
            flow=None,
            modalities=("optical", "sar"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ProtocolSamples:
    """Samples of several sets and levels.

    Attributes:
        stacks: one per set, split and level, in the order of the lists.
    """

    stacks: tuple[SampleStack, ...]

    def __len__(self) -> int:
        return sum(map(len, self.stacks))

    def __iter__(self) -> Iterator[SampleStack]:
        return iter(self.stacks)

    @property
    def device(self) -> torch.device:
        """Where the samples lie."""
        return self.stacks[0].moving.device if self.stacks else torch.device("cpu")

    def to(self, device: torch.device | str) -> ProtocolSamples:
        """The same samples on another device."""
        return ProtocolSamples(tuple(stack.to(device) for stack in self.stacks))

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file in one step.

        Raises:
            OutputError: the folder or the disk refuses.
        """
        tensors = {
            f"{i}.{key}": getattr(stack, key)
            for i, stack in enumerate(self.stacks)
            for key in ("moving", "reference", "matrix")
        }
        keys = ("set", "split", "level", "index", "group", "quoted_from")
        return write_tensors(
            path, KIND, tensors, {"stacks": [{key: getattr(stack, key) for key in keys} for stack in self.stacks]}
        )

    @classmethod
    def load(cls, path: str | Path) -> ProtocolSamples:
        """Read a file that `save` wrote, onto the CPU.

        Raises:
            ReadError: missing, damaged, or not a file of samples.
        """
        tensors, texts = read_tensors(path, KIND)
        try:
            return cls(tuple(_stack(tensors, i, text) for i, text in enumerate(texts["stacks"])))
        except (InputError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ReadError(f"{path} is not a file of samples ({error}); pack them again") from error


def batches(stacks: Iterable[SampleStack], device: torch.device | str, limit: int | None = None) -> Iterator[PairBatch]:
    """Samples as batches of at most `TOGETHER`, each from one stack.

    Args:
        stacks: one after another; with a limit all are needed at once.
        device: where the batches go.
        limit: samples used, shared among the stacks; None for all.
    """
    for stack, count in shares(stacks, limit):
        for first in range(0, count, TOGETHER):
            yield stack.batch(slice(first, min(first + TOGETHER, count)), device)


def shares(stacks: Iterable[SampleStack], limit: int | None) -> Iterator[tuple[SampleStack, int]]:
    """Each stack and how many of its first samples are used, at most `limit` in all; short ones leave more to later."""
    if limit is None:
        yield from ((stack, len(stack)) for stack in stacks)
        return
    held = list(stacks)
    for number, stack in enumerate(held):
        count = min(len(stack), -(-limit // (len(held) - number)))
        limit -= count
        yield stack, count


def load_stacks(
    lists: Sequence[SampleList], data_dir: str | Path, levels: Collection[str], limit: int | None = None
) -> Iterator[SampleStack]:
    """The samples that an evaluation of these lists and levels looks at, cut from the images one stack at a time.

    Args:
        lists: for example `committed_list(name, "test")`.
        data_dir: folder with the pairs.
        levels: keys of `LEVELS`; a list without one of them gives no stack for it.
        limit: the first samples of each list and level; None: all.

    Raises:
        ConfigError: unknown level.
        ReadError, InputError: see `load_pair`.
    """
    wanted = check_names(levels, LEVELS, "level")
    for made in lists:
        pairs = _PairCache(Path(data_dir))
        for level in wanted:
            chosen = made.samples.get(level, [])[:limit]
            if chosen:
                yield _load(made, level, chosen, pairs)


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
        levels: keys of `LEVELS`; None: all that a list has.
        limit: at most this many samples per list and level, spread evenly over the list; None: all.

    Raises:
        ConfigError: unknown level, or `limit` below 1.
        ReadError, InputError: see `load_pair`.
        OutputError: the file cannot be written.
    """
    wanted = check_names(levels if levels is not None else LEVELS, LEVELS, "level")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit} leaves no sample; give at least 1")
    stacks: list[SampleStack] = []
    for made in lists:
        pairs = _PairCache(Path(data_dir))
        asked = [level for level in wanted if made.samples.get(level)]
        stacks += [_load(made, level, _spread(made.samples[level], limit), pairs) for level in asked]
    packed = ProtocolSamples(tuple(stacks))
    packed.save(path)
    return packed


class _PairCache:
    """The pair read last: lists that use few large images repeat them."""

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


def _load(made: SampleList, level: str, samples: Sequence[Sample], pairs: _PairCache) -> SampleStack:
    loaded = [load_sample(pairs.data_dir, sample, pairs(sample.pair)) for sample in samples]
    moving, reference, matrix = (
        torch.from_numpy(np.stack([getattr(sample, key) for sample in loaded]))
        for key in ("moving", "reference", "matrix")
    )
    index, group = tuple(s.index for s in samples), tuple(s.pair.group for s in samples)
    return SampleStack(made.set, made.split, level, moving, reference, matrix, index, group, made.quoted_from)


def _stack(tensors: Mapping[str, Tensor], i: int, text: Mapping[str, Any]) -> SampleStack:
    moving, reference, matrix = (tensors[f"{i}.{key}"] for key in ("moving", "reference", "matrix"))
    return SampleStack(
        set=str(text["set"]),
        split=str(text["split"]),
        level=str(text["level"]),
        moving=moving,
        reference=reference,
        matrix=matrix,
        index=tuple(int(k) for k in text["index"]),
        group=tuple(str(g) for g in text["group"]),
        quoted_from=float(text["quoted_from"]),
    )


def held_out(data_dir: str | Path, name: str, count: int, levels: Collection[str]) -> SampleList:
    """Validation samples of a set that only trains: of every eighth of its places, chosen by their names.

    Training must leave those places out; `somareg.lab.data.bundle` does.

    Args:
        data_dir: folder with `pairs.csv`.
        name: of the set, whose pairs have role "train".
        count: samples per level.
        levels: keys of `LEVELS`.

    Raises:
        ConfigError: no such place, or an unknown level.
        InputError: see `make_list`.
    """
    from somareg.lab.evaluate.sampling import make_list

    groups = {entry.group for entry in list_pairs(data_dir, {name}, {"train"})}
    chosen = {group for group in groups if zlib.crc32(group.encode()) % HELD_OUT == 0}
    info = SetInfo(name, 160, "as published", 1.0, {"val": "train"}, {"val": count})
    return make_list(data_dir, info, "val", levels=levels, groups=chosen)


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
    asked = parser.parse_args(arguments)
    try:
        # Only val: training may look at these every few minutes, test pairs are for final figures.
        lists = [committed_list(name, "val") for name in asked.sets]
        lists += [held_out(asked.data, name, asked.limit or 100, asked.levels) for name in asked.hold_out]
        packed = pack_samples(lists, asked.data, asked.out, levels=asked.levels, limit=asked.limit)
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for stack in packed:
        print(f"{stack.set} {stack.split} {stack.level}: {len(stack)} samples")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
