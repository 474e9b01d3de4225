"""Read tiles and samples from a bundle (`lab.data.bundle`), decoding on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from somareg.errors import InputError, ReadError
from somareg.lab.data.stacks import ProtocolSamples, SampleStack
from somareg.lab.data.store import read_tensors
from somareg.lab.data.tiles import TileSet

KIND = "somareg.bundle"
TILE_TEXTS = ("group", "source", "name")
SAMPLE_TEXTS = ("set", "split", "level", "index", "group", "quoted_from")

Bytes = NDArray[np.uint8]
T = TypeVar("T")

_Image = Callable[[int, int], Bytes]
"""(number of a stream, OpenCV's flag) -> image."""


def is_bundle(path: str | Path) -> bool:
    """Whether a file is a bundle, by its header."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            return (file.metadata() or {}).get("kind") == KIND
    except (OSError, SafetensorError):
        return False


def read_bundle_tiles(path: str | Path) -> tuple[TileSet, ...]:
    """The tiles of a bundle, on the CPU; images are decoded on all cores.

    Raises:
        ReadError: missing, damaged, or no bundle.
    """
    return _read(path, lambda *parts: tuple(_tiles(*parts)))


def read_bundle_samples(path: str | Path) -> ProtocolSamples:
    """The validation samples of a bundle, on the CPU.

    Raises:
        ReadError: missing, damaged, or no bundle.
    """
    return _read(path, lambda *parts: ProtocolSamples(tuple(_samples(*parts))))


def _read(path: str | Path, build: Callable[[Mapping[str, Tensor], dict[str, Any], _Image], T]) -> T:
    tensors, texts = read_tensors(path, KIND)
    try:
        content, ends = tensors["bytes"].numpy(), tensors["ends"].tolist()

        def image(number: int, flag: int) -> Bytes:
            decoded = cv2.imdecode(content[ends[number] : ends[number + 1]], flag)
            if decoded is None:
                raise ValueError(f"image {number} cannot be decoded")
            return np.asarray(decoded, np.uint8)

        return build(tensors, texts, image)
    except (InputError, KeyError, TypeError, ValueError, IndexError, cv2.error) as error:
        raise ReadError(f"{path} is damaged ({error}); make it again") from error


def _tiles(tensors: Mapping[str, Tensor], texts: dict[str, Any], image: _Image) -> Iterable[TileSet]:
    for i, text in enumerate(texts["tiles"]):
        size, where = int(text["size"]), tensors[f"tiles.{i}.where"]
        count = len(where)
        images = (
            torch.zeros(count, size, size, dtype=torch.uint8),
            torch.zeros(count, 3, size, size, dtype=torch.uint8),
            torch.ones(count, size, size, dtype=torch.bool),
        )
        cuts: dict[tuple[int, int], list[list[int]]] = {}  # (part of `held`, stream) -> tile and origin
        for index, row in enumerate(where.tolist()):
            for part in range(3):
                if row[part] >= 0:
                    cuts.setdefault((part, row[part]), []).append([index, *row[3:]])
        with ThreadPoolExecutor() as pool:
            done = [pool.submit(_cut, images[part], part, number, image, rows) for (part, number), rows in cuts.items()]
        for each in done:
            each.result()
        label, names = tensors[f"tiles.{i}.label"], (tuple(map(str, text[key])) for key in TILE_TEXTS)
        yield TileSet(*images, label, *names)


def _cut(into: Tensor, part: int, number: int, image: _Image, rows: Sequence[Sequence[int]]) -> None:
    """Cut the tiles (index, x, y) of one image: part 0 is SAR, 1 optical, 2 the masks, which are tiles already."""
    size = into.shape[-1]
    whole = image(number, cv2.IMREAD_COLOR if part == 1 else cv2.IMREAD_GRAYSCALE)
    for index, x, y in rows:
        if part == 2:
            into[index] = torch.from_numpy(whole > 127)
            continue
        window = whole[y : y + size, x : x + size]
        into[index] = torch.from_numpy(window if part == 0 else window[..., ::-1].transpose(2, 0, 1).copy())


def _samples(tensors: Mapping[str, Tensor], texts: dict[str, Any], image: _Image) -> Iterable[SampleStack]:
    for i, text in enumerate(texts["samples"]):
        count = len(text["index"])
        grey, colour = (
            np.concatenate([image(number, flag) for number in numbers])
            for numbers, flag in zip(text["streams"], (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR), strict=True)
        )
        side = grey.shape[1]
        reference = colour.reshape(count, side, side, 3)[..., ::-1].transpose(0, 3, 1, 2)
        yield SampleStack(
            set=str(text["set"]),
            split=str(text["split"]),
            level=str(text["level"]),
            moving=torch.from_numpy(grey.reshape(count, side, side).copy()),
            reference=torch.from_numpy(np.ascontiguousarray(reference)),
            matrix=tensors[f"samples.{i}.matrix"],
            index=tuple(map(int, text["index"])),
            group=tuple(map(str, text["group"])),
            quoted_from=float(text["quoted_from"]),
        )
