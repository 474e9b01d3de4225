"""Square tiles of image pairs in memory: what training draws from, and their safetensors files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from somareg.errors import InputError, ReadError
from somareg.lab.data.store import read_tensors, write_tensors

KIND = "somareg.tiles"
SHARD_GLOB = "tiles-*.safetensors"

_TENSORS = ("sar", "optical", "valid", "label")
_TEXTS = ("group", "source", "name")


@dataclass(frozen=True, slots=True, eq=False)
class TileSet:
    """N tiles of side S, each a SAR and an optical cut of the same pixels of its pair.

    Attributes:
        sar: (N, S, S) uint8.
        optical: (N, 3, S, S) uint8, RGB.
        valid: (N, S, S) bool, True where both images hold imagery.
        label: (N, 2, 3) float32 affine, optical pixel centres -> SAR pixel centres of the tile: the pair's known
            residual misregistration.
        group: tiles of one group show the same place; split by it.
        source: set that the tile comes from.
        name: set, file and origin, unique for a tile.

    Raises:
        InputError: a shape, a dtype or a length does not fit.
    """

    sar: Tensor
    optical: Tensor
    valid: Tensor
    label: Tensor
    group: tuple[str, ...]
    source: tuple[str, ...]
    name: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.sar.ndim != 3 or self.sar.shape[1] != self.sar.shape[2]:
            raise InputError(f"tiles: sar is (N, S, S), not {tuple(self.sar.shape)}")
        count, size, _ = self.sar.shape
        expected = {
            "sar": ((count, size, size), torch.uint8),
            "optical": ((count, 3, size, size), torch.uint8),
            "valid": ((count, size, size), torch.bool),
            "label": ((count, 2, 3), torch.float32),
        }
        for key, (shape, dtype) in expected.items():
            tensor: Tensor = getattr(self, key)
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise InputError(f"tiles: {key} is {shape} {dtype}, not {tuple(tensor.shape)} {tensor.dtype}")
        for key in _TEXTS:
            if len(getattr(self, key)) != count:
                raise InputError(f"tiles: {key} has {len(getattr(self, key))} entries for {count} tiles")

    def __len__(self) -> int:
        return int(self.sar.shape[0])

    @property
    def size(self) -> int:
        """Side S of the tiles, pixels."""
        return int(self.sar.shape[1])

    def to(self, device: torch.device | str) -> TileSet:
        """The same tiles on another device."""
        sar, optical, valid, label = (getattr(self, key).to(device) for key in _TENSORS)
        return replace(self, sar=sar, optical=optical, valid=valid, label=label)

    def select(self, indices: Sequence[int] | Tensor) -> TileSet:
        """The tiles of these indices, in this order."""
        if isinstance(indices, Tensor):
            indices = indices.flatten().tolist()
        # as_tensor would make an empty list float, which cannot index
        rows = torch.tensor(list(indices), dtype=torch.long, device=self.sar.device)
        sar, optical, valid, label = (getattr(self, key)[rows] for key in _TENSORS)
        group, source, name = (tuple(getattr(self, key)[i] for i in indices) for key in _TEXTS)
        return TileSet(sar, optical, valid, label, group, source, name)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file in one step; `valid` takes one bit per pixel.

        Raises:
            OutputError: the folder or the disk refuses.
        """
        bits = torch.from_numpy(np.packbits(self.valid.cpu().numpy(), axis=-1))
        tensors = {"sar": self.sar, "optical": self.optical, "valid": bits, "label": self.label}
        return write_tensors(path, KIND, tensors, {key: getattr(self, key) for key in _TEXTS})

    @classmethod
    def load(cls, path: str | Path) -> TileSet:
        """Read one file, or every shard (`tiles-*.safetensors`) of a folder, onto the CPU.

        Raises:
            ReadError: nothing there, or a file is damaged or holds something else.
        """
        place = Path(path)
        if not place.is_dir():
            return _read(place)
        shards = sorted(place.glob(SHARD_GLOB))
        if not shards:
            raise ReadError(f"{place} holds no {SHARD_GLOB}; make them with python -m somareg.lab.data.pack")
        return cls.concat([_read(shard) for shard in shards])

    @classmethod
    def concat(cls, sets: Sequence[TileSet]) -> TileSet:
        """All tiles of `sets` in order; they have one size and lie on one device.

        Raises:
            InputError: no set, or different tile sizes.
        """
        if not sets:
            raise InputError("tiles: nothing to join; give at least one set of tiles")
        if len(sets) == 1:
            return sets[0]
        sizes = sorted({tiles.size for tiles in sets})
        if len(sizes) > 1:
            raise InputError(f"tiles: sizes {sizes} cannot be joined; pack them with one --size")
        sar, optical, valid, label = (torch.cat([getattr(tiles, key) for tiles in sets]) for key in _TENSORS)
        group, source, name = (tuple(text for tiles in sets for text in getattr(tiles, key)) for key in _TEXTS)
        return cls(sar, optical, valid, label, group, source, name)


def _read(path: Path) -> TileSet:
    tensors, texts = read_tensors(path, KIND)
    try:
        sar = tensors["sar"]
        bits = tensors["valid"].numpy()
        valid = torch.from_numpy(np.unpackbits(bits, axis=-1, count=sar.shape[-1]).astype(bool))
        group, source, name = (_texts(texts[key]) for key in _TEXTS)
        return TileSet(sar, tensors["optical"], valid, tensors["label"], group, source, name)
    except (InputError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ReadError(f"{path} is not a file of tiles ({error}); pack the data again") from error


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError("group, source and name are lists of texts")
    return tuple(value)
