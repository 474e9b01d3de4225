"""Training tiles and validation samples in one small file, for a machine without the data: `lab.data.bundle`.

The tiles of a pair are pasted into one image again and compressed together, so that ground which several tiles or pairs
show is stored once; the rest is grey and costs nothing. Training images are WebP, lossy at the
quality that fits the requested size; masks and validation samples are lossless.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from somareg.errors import InputError, OutputError, SomaregError
from somareg.lab.data.bundle_read import KIND, SAMPLE_TEXTS, TILE_TEXTS, Bytes
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.data.store import write_tensors
from somareg.lab.data.tiles import TileSet

_LOSSLESS = 101  # OpenCV's WebP quality above 100
_QUALITIES = range(20, 96, 5)
_GREY = 128
_SUMMARY = "Put tiles with measured labels and validation samples into one compressed file."


@dataclass(frozen=True, slots=True)
class BundleReport:
    """The result of `write_bundle`.

    Attributes:
        path: the file.
        size: in bytes.
        quality: of the lossy WebP images, 0-100.
        images: number of them.
        tiles, samples: numbers of them.
    """

    path: Path
    size: int
    quality: int
    images: int
    tiles: int
    samples: int


def write_bundle(
    path: str | Path, tiles: Sequence[TileSet], samples: ProtocolSamples, *, max_mb: float = 55.0
) -> BundleReport:
    """Write tiles and validation samples as one file.

    Args:
        path: file to write.
        tiles: sets of one tile size each, named "<pair>@<x>,<y>" as `pack_tiles` names them.
        samples: kept without loss.
        max_mb: largest size of the file, 10^6 bytes; decides the quality of the training images.

    Raises:
        InputError: a tile's name does not say where it was cut.
        OutputError: the file would be too large even at the least quality, or the disk refuses.
    """
    streams = _Streams()
    placements = [_place(each, streams) for each in tiles]
    stacks = [
        [_index(streams, _stacked(image), _LOSSLESS) for image in (stack.moving, stack.reference)] for stack in samples
    ]
    tensors = {f"tiles.{i}.{key}": value for i, encoded in enumerate(placements) for key, value in encoded.items()}
    tensors |= {f"samples.{i}.matrix": stack.matrix for i, stack in enumerate(samples)}
    texts = {
        "tiles": [{"size": each.size, **{key: getattr(each, key) for key in TILE_TEXTS}} for each in tiles],
        "samples": [
            {**{key: getattr(stack, key) for key in SAMPLE_TEXTS}, "streams": numbers}
            for stack, numbers in zip(samples, stacks, strict=True)
        ],
    }
    beside = sum(t.numel() * t.element_size() for t in tensors.values()) + len(str(texts)) + 2**16
    quality, encoded = streams.fit(max_mb * 1e6 - beside)
    tensors["bytes"] = torch.from_numpy(np.concatenate(encoded))
    tensors["ends"] = torch.from_numpy(np.cumsum([0, *map(len, encoded)]))
    file = write_tensors(path, KIND, tensors, {**texts, "quality": quality})
    size = file.stat().st_size
    return BundleReport(file, size, quality, streams.lossy, sum(map(len, tiles)), len(samples))


class _Streams:
    """Images as streams of bytes, each content once."""

    def __init__(self) -> None:
        self._images: list[tuple[Bytes, int | None]] = []  # image, quality; None when it follows from the size limit
        self._known: dict[tuple[bytes, int | None], int] = {}

    @property
    def lossy(self) -> int:
        """Number of images whose quality follows from the size limit."""
        return sum(quality is None for _, quality in self._images)

    def add(self, image: Bytes, quality: int | None = None) -> int:
        """The number of the stream that will hold `image`, (h, w) or (h, w, 3)."""
        digest = blake2b(image.tobytes(), digest_size=16, person=str(image.shape).encode()[:16]).digest()
        number = self._known.setdefault((digest, quality), len(self._images))
        if number == len(self._images):
            self._images.append((image, quality))
        return number

    def fit(self, budget: float) -> tuple[int, list[Bytes]]:
        """The highest quality at which all streams fit into `budget` bytes, and the streams in order.

        Raises:
            OutputError: they do not fit at the least quality.
        """
        best: tuple[int, list[Bytes]] | None = None
        low, high = 0, len(_QUALITIES)
        while low < high:
            middle = (low + high) // 2
            encoded = self.encode(_QUALITIES[middle])
            if sum(map(len, encoded)) <= budget:
                best, low = (_QUALITIES[middle], encoded), middle + 1
            else:
                high = middle
        if best is None:
            raise OutputError(f"the tiles and samples do not fit into {budget / 1e6:.1f} MB; give fewer, or more room")
        return best

    def encode(self, quality: int) -> list[Bytes]:
        """All streams in order."""
        with ThreadPoolExecutor() as pool:  # OpenCV encodes outside of Python's lock
            return list(pool.map(lambda item: _compressed(item[0], item[1] or quality), self._images))


def _compressed(image: Bytes, quality: int) -> Bytes:
    done, stream = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise OutputError(f"an image of {image.shape} cannot be written as WebP; use an OpenCV that can")
    return np.asarray(stream, np.uint8).reshape(-1)


def _place(tiles: TileSet, streams: _Streams) -> dict[str, Tensor]:
    """Streams of SAR, optical and mask (-1: valid everywhere) and origin (x, y) of every tile, and the labels."""
    pairs: dict[str, list[tuple[int, int, int]]] = {}
    for index, name in enumerate(tiles.name):
        pair, _, at = name.rpartition("@")
        try:
            x, y = (int(value) for value in at.split(","))
        except ValueError:
            raise InputError(f"tile '{name}' does not say where it was cut; pack the tiles again") from None
        pairs.setdefault(f"{tiles.source[index]}/{pair}", []).append((index, x, y))
    where = torch.zeros(len(tiles), 5, dtype=torch.int32)
    for members in pairs.values():
        shape = (max(y for _, _, y in members) + tiles.size, max(x for _, x, _ in members) + tiles.size)
        sar, optical = np.full(shape, _GREY, np.uint8), np.full((*shape, 3), _GREY, np.uint8)
        for index, x, y in members:
            window = slice(y, y + tiles.size), slice(x, x + tiles.size)
            sar[window] = tiles.sar[index].numpy()
            optical[window] = tiles.optical[index].numpy()[::-1].transpose(1, 2, 0)  # OpenCV writes B, G, R
        numbers = streams.add(sar), streams.add(optical)
        for index, x, y in members:
            valid = tiles.valid[index].numpy()
            mask = -1 if valid.all() else streams.add(valid.astype(np.uint8) * 255, _LOSSLESS)
            where[index] = torch.tensor([*numbers, mask, x, y])
    return {"where": where, "label": tiles.label}


def _stacked(images: Tensor) -> Bytes:
    """(n, S, S) or (n, 3, S, S) as one tall image; OpenCV writes B, G, R."""
    values = images.numpy()
    if values.ndim == 4:
        values = values[:, ::-1].transpose(0, 2, 3, 1)
    return np.ascontiguousarray(values.reshape(-1, *values.shape[2:]))


def _index(streams: _Streams, tall: Bytes, quality: int, rows: int = 8192) -> list[int]:
    """Streams of a tall image in pieces that WebP can hold."""
    return [streams.add(tall[i : i + rows], quality) for i in range(0, len(tall), rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m somareg.lab.data.bundle", description=_SUMMARY)
    parser.add_argument("--tiles", nargs="+", required=True, help="folders of shards, or shards")
    parser.add_argument("--samples", nargs="+", required=True, help="files of validation samples")
    parser.add_argument("--out", required=True, help="file to write, .safetensors")
    parser.add_argument("--max-mb", type=float, default=55.0, help="largest size of the file, MB")
    parsed = parser.parse_args(arguments)
    try:
        by_size: dict[int, list[TileSet]] = {}
        for folder in parsed.tiles:
            loaded = TileSet.load(folder)
            by_size.setdefault(loaded.size, []).append(loaded)
        samples = ProtocolSamples(tuple(stack for file in parsed.samples for stack in ProtocolSamples.load(file)))
        scored = {group for stack in samples for group in stack.group}
        tiles = [_without(TileSet.concat(sets), scored) for _, sets in sorted(by_size.items())]
        report = write_bundle(parsed.out, tiles, samples, max_mb=parsed.max_mb)
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{report.path}: {report.size / 1e6:.1f} MB, {report.tiles} tiles of {report.images} images at WebP quality "
        f"{report.quality}, {report.samples} validation samples"
    )
    return 0


def _without(tiles: TileSet, groups: set[str]) -> TileSet:
    """The tiles of other places than `groups`, so that validation places are not trained on."""
    return tiles.select([i for i, group in enumerate(tiles.group) if group not in groups])


if __name__ == "__main__":
    raise SystemExit(main())
