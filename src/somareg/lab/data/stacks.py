"""The protocol's samples in memory: stacks per set and level, batches for a network, one safetensors file.

The file allows validation without the data folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from somareg.errors import InputError, ReadError
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.standardise import standardise
from somareg.lab.data.store import read_tensors, write_tensors
from somareg.lab.evaluate.sample import LoadedSample

KIND = "somareg.protocol-samples"
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
            tensor: Tensor = getattr(self, key)
            dtype = torch.float64 if key == "matrix" else torch.uint8
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise InputError(f"samples: {key} is {shape} {dtype}, not {tuple(tensor.shape)} {tensor.dtype}")
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

    def batch(self, selection: slice, device: torch.device | str) -> PairBatch:
        """Some samples as a batch for a network: normalised as by registration, every pixel valid."""
        reference, moving = self.reference[selection].to(device), self.moving[selection, None].to(device)
        valid = torch.ones_like(moving, dtype=torch.float32)
        return PairBatch(
            reference=standardise(reference.float(), valid, "optical"),
            reference_mask=valid,
            moving=standardise(moving.float(), valid, "sar"),
            moving_mask=valid,
            truth=self.matrix[selection].float().to(device),
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
    """Each stack with the number of its first samples to use, at most `limit` in total, shared evenly."""
    if limit is None:
        yield from ((stack, len(stack)) for stack in stacks)
        return
    held = list(stacks)
    for number, stack in enumerate(held):
        count = min(len(stack), -(-limit // (len(held) - number)))
        limit -= count
        yield stack, count


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
