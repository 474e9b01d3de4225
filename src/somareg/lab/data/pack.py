"""Cut the pairs of a data folder into square tiles and write them as shards: `python -m somareg.lab.data.pack`.

Both tiles of a pair are cut at the same pixels; the misregistration in the pair's label becomes the tile's
affine. The shards need nothing else: no data folder, no image codecs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.errors import ConfigError, InputError, OutputError, SomaregError
from somareg.lab.data.datasets import KINDS, open_dataset
from somareg.lab.data.judged import is_judged, refuse_judged
from somareg.lab.data.labels import shift_label
from somareg.lab.data.pair_dataset import PairDataset
from somareg.lab.data.pairs import StoredPair
from somareg.lab.data.tiles import SHARD_GLOB, TileSet

TRAIN_ROLES = ("train", "train-unaligned")

_HEADER_BYTES = 4096
_TEXT_BYTES = 512  # bytes for group, source and name of a tile in the header, with a margin
_SUMMARY = "Cut SAR-optical pairs into square tiles with their known misregistration, written as safetensors shards."


@dataclass(frozen=True, slots=True)
class CutCfg:
    """Settings of the cut from pairs to tiles.

    Attributes:
        size: side of the tiles, pixels.
        overlap: least overlap of neighbouring tiles, pixels.
        min_valid: least share of a tile that holds imagery.
        max_residual_px: scenes whose smooth correction leaves more than this (or an unknown amount), pixels, are left
            out; None: keep all. Pairs of sets without corrections are always kept.
    """

    size: int = 256
    overlap: int = 64
    min_valid: float = 0.6
    max_residual_px: float | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise ConfigError(f"size {self.size}, overlap {self.overlap}: needs 0 <= overlap < size")
        if not 0 <= self.min_valid <= 1:
            raise ConfigError(f"min_valid {self.min_valid} is a share between 0 and 1")


@dataclass(frozen=True, slots=True)
class PackReport:
    """The result of `pack_tiles`.

    Attributes:
        shards: files in order.
        tiles: number of tiles per set.
        skipped: set -> counts of pairs that are "small" (below the tile size) or "residual" (see `CutCfg`) and of tiles
            with too much "nodata".
    """

    shards: tuple[Path, ...]
    tiles: dict[str, int]
    skipped: dict[str, dict[str, int]]


def pack_tiles(
    data_dir: str | Path | PairDataset,
    out_dir: str | Path,
    *,
    sets: Collection[str] | None = None,
    roles: Collection[str] | None = TRAIN_ROLES,
    size: int = 256,
    overlap: int | None = None,
    shard_mb: float = 64.0,
    min_valid: float = 0.6,
    max_residual_px: float | None = None,
    kind: str = "auto",
    overwrite: bool = False,
) -> PackReport:
    """Write the tiles of a data folder as `out_dir/tiles-00000.safetensors` and so on, in the order of its list.

    Args:
        data_dir: a folder that `open_dataset` reads, or an open data set.
        out_dir: made if missing.
        sets, roles: which pairs (None: all but those whose role is for scoring only, see `judged`).
        size, overlap, min_valid, max_residual_px: see `CutCfg`; overlap None: a quarter of the size.
        shard_mb: largest size of a shard, MiB.
        kind: layout of the folder, see `open_dataset`.
        overwrite: replace the shards that `out_dir` already holds.

    Raises:
        ConfigError: an impossible size, an unknown set or role, or one that is for judging only.
        ReadError, InputError: the data cannot be read, or no tile remains.
        OutputError: `out_dir` holds shards and not `overwrite`, or the disk refuses.
    """
    cfg = CutCfg(size, size // 4 if overlap is None else overlap, min_valid, max_residual_px)
    per_shard = int(shard_mb * 2**20 - _HEADER_BYTES) // _tile_bytes(size)
    if per_shard < 1:
        least = (_tile_bytes(size) + _HEADER_BYTES) / 2**20
        raise ConfigError(f"shard_mb {shard_mb:g} holds no tile of {size} px; give at least {least:.2f}")
    dataset = _chosen(data_dir, kind, sets, roles)
    out = Path(out_dir)
    earlier = sorted(out.glob(SHARD_GLOB))
    if earlier and not overwrite:
        raise OutputError(f"{out} already holds tiles; give another folder or allow replacing with --overwrite")
    skipped: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    fresh: list[Path] = []
    try:
        for shard in shards(cut_tiles(dataset, cfg, skipped), per_shard):
            fresh.append(shard.save(out / f".new-{len(fresh):05d}.safetensors.part"))
            counts.update(shard.source)
        if not fresh:
            raise InputError(f"no tile of {size} px in {dataset.root} ({_reasons(skipped)}); give a smaller --size")
        published = _publish(fresh, earlier, out)
    finally:
        for path in fresh:
            path.unlink(missing_ok=True)
    return PackReport(published, dict(counts), {name: dict(+count) for name, count in skipped.items()})


def cut_tiles(dataset: PairDataset, cfg: CutCfg, skipped: dict[str, Counter[str]] | None = None) -> Iterator[TileSet]:
    """The tiles of every pair in order, one `TileSet` per pair that has any; `skipped` is counted up on the way."""
    for entry in dataset.entries:
        losses = skipped.setdefault(entry.set, Counter()) if skipped is not None else Counter()
        correction = dataset.correction(entry)
        if cfg.max_residual_px is not None and entry.set in dataset.corrections:
            residual = correction.residual_px if correction else None
            if residual is None or residual >= cfg.max_residual_px:
                losses["residual"] += 1
                continue
        pair = dataset.load(entry)
        if min(pair.sar.shape) < cfg.size:
            losses["small"] += 1
            continue
        origins = tile_origins(pair.sar.shape, cfg.size, cfg.overlap)
        corners = [xy for xy in origins if _window(pair.valid, xy, cfg.size).mean() >= cfg.min_valid]
        losses["nodata"] += len(origins) - len(corners)
        if corners:
            shape, side = (pair.sar.shape[0], pair.sar.shape[1]), (cfg.size, cfg.size)
            labels = [
                correction.tile_label(shape, xy, side) if correction else shift_label(entry.offset) for xy in corners
            ]
            yield _cut(pair, corners, cfg.size, np.stack(labels))


def tile_origins(shape: tuple[int, ...], size: int, overlap: int) -> list[tuple[int, int]]:
    """(x, y) of the first pixel of the tiles that cover an image of `shape` (height, width), row by row.

    The tiles are spread evenly, reach both edges and overlap by at least `overlap` pixels.
    """
    ys, xs = (_starts(length, size, overlap) for length in shape)
    return [(x, y) for y in ys for x in xs]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    count = math.ceil((length - overlap) / (size - overlap))
    if count <= 1:
        return [0]
    return [i * (length - size) // (count - 1) for i in range(count)]


def _cut(pair: StoredPair, origins: Sequence[tuple[int, int]], size: int, labels: NDArray[np.float64]) -> TileSet:
    count, entry = len(origins), pair.entry
    sar, optical, valid = (
        torch.from_numpy(np.stack([_window(image, xy, size) for xy in origins]))
        for image in (pair.sar, pair.optical, pair.valid)
    )
    names = tuple(f"{entry.set}/{entry.name}@{x},{y}" for x, y in origins)
    label = torch.from_numpy(labels.astype(np.float32))
    return TileSet(sar, optical, valid, label, (entry.group,) * count, (entry.set,) * count, names)


def _window(image: NDArray[Any], xy: tuple[int, int], size: int) -> NDArray[Any]:
    return image[..., xy[1] : xy[1] + size, xy[0] : xy[0] + size]


def _chosen(
    data: str | Path | PairDataset, kind: str, sets: Collection[str] | None, roles: Collection[str] | None
) -> PairDataset:
    """The data set without the pairs that are for scoring only."""
    refuse_judged(sets or (), roles or ())
    dataset = data if isinstance(data, PairDataset) else open_dataset(data, kind)
    if roles is None:
        roles = {entry.role for entry in dataset.entries if not is_judged(entry.role)}
    elif roles is TRAIN_ROLES:  # a default may name missing sets
        roles = set(roles) & {entry.role for entry in dataset.entries}
    selection = dataset.select(sets, roles)
    refuse_judged({entry.set for entry in selection.entries}, where=str(dataset.root))
    return selection


def shards(parts: Iterable[TileSet], per_shard: int) -> Iterator[TileSet]:
    """Divide tiles into pieces of `per_shard`, the last one shorter."""
    waiting: list[TileSet] = []
    for part in parts:
        waiting.append(part)
        while sum(map(len, waiting)) >= per_shard:
            joined = TileSet.concat(waiting)
            yield joined.select(range(per_shard))
            waiting = [joined.select(range(per_shard, len(joined)))]
    if sum(map(len, waiting)):
        yield TileSet.concat(waiting)


def _tile_bytes(size: int) -> int:
    return size * (4 * size + (size + 7) // 8) + 2 * 3 * 4 + _TEXT_BYTES


def _publish(fresh: Sequence[Path], earlier: Sequence[Path], out: Path) -> tuple[Path, ...]:
    """Give the shards their names, once all are written, and remove those of the run before."""
    shards = tuple(out / f"tiles-{i:05d}.safetensors" for i in range(len(fresh)))
    for source, final in zip(fresh, shards, strict=True):
        source.replace(final)
    for path in set(earlier) - set(shards):
        path.unlink()
    return shards


def _reasons(skipped: dict[str, Counter[str]]) -> str:
    total = sum(skipped.values(), Counter())
    return ", ".join(f"left out as {why}: {count}" for why, count in total.items()) or "no pair chosen"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m somareg.lab.data.pack", description=_SUMMARY)
    parser.add_argument("--data", required=True, help="data folder")
    parser.add_argument("--out", required=True, help="folder for the shards")
    parser.add_argument("--kind", default="auto", choices=("auto", *KINDS), help="layout of the data folder")
    parser.add_argument("--sets", nargs="+", help="default: all")
    parser.add_argument("--roles", nargs="+", help=f"default: {' '.join(TRAIN_ROLES)}")
    parser.add_argument("--size", type=int, default=256, help="side of the tiles, pixels")
    parser.add_argument(
        "--overlap", type=int, help="least overlap of neighbours, pixels; default: a quarter of the size"
    )
    parser.add_argument("--min-valid", type=float, default=0.6, help="least share of imagery in a tile")
    parser.add_argument("--max-residual", type=float, help="leave out corrected scenes with this residual or more, px")
    parser.add_argument("--shard-mb", type=float, default=64.0, help="largest size of a shard, MiB")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier shards")
    parsed = parser.parse_args(arguments)
    try:
        dataset = open_dataset(parsed.data, parsed.kind)
        report = pack_tiles(
            dataset,
            parsed.out,
            sets=parsed.sets,
            roles=parsed.roles or TRAIN_ROLES,
            size=parsed.size,
            overlap=parsed.overlap,
            shard_mb=parsed.shard_mb,
            min_valid=parsed.min_valid,
            max_residual_px=parsed.max_residual,
            overwrite=parsed.overwrite,
        )
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, count in report.tiles.items():
        left_out = ", ".join(f"{why} {n}" for why, n in report.skipped.get(name, {}).items())
        print(f"{name}: {count} tiles" + (f" (left out: {left_out})" if left_out else ""))
    if dataset.unpaired:
        print(f"{len(dataset.unpaired)} images without a partner passed over, such as {dataset.unpaired[0]}")
    print(f"{len(report.shards)} shards in {parsed.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
