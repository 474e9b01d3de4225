"""Sources of batches: tiles on the device and a pool of synthetic scenes, with draws fixed by the step number.

Every random number of step k on rank r comes from a generator seeded by (seed, k, r). A resumed run therefore draws
the same as the killed run would have, and a checkpoint contains no state of generators.
"""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import IterableDataset

from somareg.errors import ConfigError
from somareg.lab.data.augment import make_batch
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.bundle_read import is_bundle, read_bundle_tiles
from somareg.lab.data.judged import refuse_judged
from somareg.lab.data.synthetic.generator import SyntheticSource
from somareg.lab.data.tiles import TileSet
from somareg.lab.train.config import DataCfg

NO_LICENCE = "not stated"
# Purpose of a generator; part of its seed, so that no two purposes share their numbers.
_BATCH, _CHOICE, _POOL, NETWORK = range(4)


class Source(Protocol):
    """Protocol of a source of batches."""

    def batch(self, step: int) -> PairBatch:
        """The batch of step number `step`, on the training device; equal for equal steps."""

    def summary(self) -> dict[str, Any]:
        """Description of the data, JSON-ready: at least "data" (set, role, pairs, licence) and "synthetic_share"."""


class SceneMaker(Protocol):
    """Protocol of a generator of synthetic scenes."""

    def scenes(self, count: int, size: int, generator: torch.Generator, device: torch.device) -> TileSet:
        """`count` new scenes of side `size`."""


def seed_of(*numbers: int) -> int:
    """Hash several numbers (0 or more) to a 63-bit seed; neighbouring numbers give unrelated seeds."""
    word = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return int(word) >> 1


def generator_for(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator on `device` seeded by `numbers`."""
    return torch.Generator(device).manual_seed(seed_of(*numbers))


class Ticks(IterableDataset[int]):
    """The numbers 0, 1, 2, ...: the data loader only drives the loop, and the task knows its step."""

    def __iter__(self) -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1


class SyntheticPool:
    """Synthetic scenes on the device, replaced chunk by chunk.

    The scenes of a chunk depend on (seed, rank, chunk, generation) only and its generation on the step only, so the
    pool of any step can be reproduced.

    Args:
        maker: of scenes.
        cfg: sizes and pace.
        seed, rank: of the draws.
        device: where scenes are made and kept.
    """

    def __init__(self, maker: SceneMaker, cfg: DataCfg, seed: int, rank: int, device: torch.device) -> None:
        self.maker, self.cfg, self.seed, self.rank, self.device = maker, cfg, seed, rank, device
        self.chunks = -(-cfg.synthetic_pool // cfg.synthetic_chunk)
        self._held: dict[int, tuple[int, TileSet]] = {}

    def __len__(self) -> int:
        return self.chunks * self.cfg.synthetic_chunk

    def generation(self, chunk: int, step: int) -> int:
        """Number of replacements of `chunk` before `step`; chunks are replaced in turn."""
        pace = self.cfg.synthetic_refresh_steps
        return (step // pace + self.chunks - 1 - chunk) // self.chunks if pace > 0 else 0

    def chunk(self, number: int, step: int) -> TileSet:
        """The scenes of a chunk at `step`, generated on first use."""
        due = self.generation(number, step)
        cached = self._held.get(number)
        if cached is None or cached[0] != due:
            generator = generator_for(self.device, self.seed, self.rank, _POOL, number, due)
            cfg = self.cfg
            scenes = self.maker.scenes(cfg.synthetic_chunk, cfg.synthetic_size, generator, self.device)
            cached = self._held[number] = (due, scenes)
        return cached[1]


class PairSource:
    """Batches from tiles and synthetic scenes, all on one device.

    A step takes all its pairs from one set: the synthetic pool with probability `synthetic_share`, else one of the
    tile sizes in proportion to its number of tiles.

    Args:
        tiles: sets of different tile sizes, already on `device`.
        pool: of synthetic scenes, None without.
        cfg: how pairs are drawn.
        batch: pairs per step.
        seed, rank: of the draws.
        device: of the draws.

    Raises:
        ConfigError: nothing to draw from.
    """

    def __init__(
        self,
        tiles: Sequence[TileSet],
        pool: SyntheticPool | None,
        cfg: DataCfg,
        *,
        batch: int,
        seed: int,
        rank: int,
        device: torch.device,
    ) -> None:
        share = cfg.synthetic_share if pool is not None else 0.0
        if not tiles and share <= 0:
            raise ConfigError("nothing to train on; give data.tiles or a data.synthetic_share above 0")
        self.tiles, self.pool, self.cfg = tuple(tiles), pool, cfg
        self.count, self.seed, self.rank, self.device = batch, seed, rank, device
        numbers = np.array([len(each) for each in tiles], float)
        self.share = share if len(tiles) else 1.0
        self.weights = numbers / numbers.sum() if len(tiles) else numbers

    @torch.no_grad()
    def batch(self, step: int) -> PairBatch:
        """The pairs of step number `step`: the same for the same (seed, step, rank)."""
        scenes = self._scenes(step)
        generator = generator_for(self.device, self.seed, self.rank, _BATCH, step)
        index = torch.randint(len(scenes), (self.count,), generator=generator, device=self.device)
        return make_batch(scenes, index, self.cfg.draw, self.cfg.augment, generator)

    def _scenes(self, step: int) -> TileSet:
        """The set of a step, chosen on the CPU to avoid waiting for the device."""
        rng = np.random.default_rng(seed_of(self.seed, self.rank, _CHOICE, step))
        if self.pool is not None and rng.random() < self.share:
            return self.pool.chunk(int(rng.integers(self.pool.chunks)), step)
        return self.tiles[int(rng.choice(len(self.tiles), p=self.weights))]

    def summary(self) -> dict[str, Any]:
        """Pairs per set, tiles, and the share of synthetic steps; JSON-ready."""
        pairs: dict[str, set[str]] = defaultdict(set)
        for each in self.tiles:
            for name, tile in zip(each.source, each.name, strict=True):
                pairs[name].add(tile.rpartition("@")[0] or tile)
        licences = self.cfg.licences
        return {
            "data": [
                {"set": name, "role": "train", "pairs": len(pairs[name]), "licence": licences.get(name, NO_LICENCE)}
                for name in sorted(pairs)
            ],
            "tiles": {str(each.size): len(each) for each in self.tiles},
            "synthetic_share": self.share,
        }


def load_tiles(patterns: Iterable[str]) -> list[TileSet]:
    """All tiles that the patterns name, one set per tile size, on the CPU.

    Args:
        patterns: shards, bundles (`somareg.lab.data.bundle`), folders of shards, or glob patterns.

    Raises:
        ConfigError: a pattern matches nothing, or tiles are of a set that is for judging only.
        ReadError: a file is not a shard of tiles.
    """
    by_size: dict[int, list[TileSet]] = defaultdict(list)
    for path in _paths(patterns):
        for loaded in read_bundle_tiles(path) if is_bundle(path) else (TileSet.load(path),):
            refuse_judged(loaded.source, where=str(path))
            by_size[loaded.size].append(loaded)
    return [TileSet.concat(by_size[size]) for size in sorted(by_size)]


def _paths(patterns: Iterable[str]) -> list[Path]:
    """Existing paths in a fixed order, each once."""
    paths: dict[Path, None] = {}
    for pattern in patterns:
        plain = Path(pattern).expanduser()
        matches = [plain] if plain.exists() else sorted(map(Path, glob.glob(str(plain), recursive=True)))  # noqa: PTH207 - pattern may be absolute
        if not matches:
            raise ConfigError(f"data.tiles: {pattern} matches no file; make tiles with python -m somareg.lab.data.pack")
        paths.update(dict.fromkeys(path.resolve() for path in matches))
    return list(paths)


def open_source(cfg: DataCfg, *, batch: int, seed: int, rank: int, device: torch.device) -> PairSource:
    """The source that a configuration describes, its tiles moved to the device.

    Raises:
        ConfigError, ReadError: see `load_tiles` and `PairSource`.
    """
    tiles = [each.to(device) for each in load_tiles(cfg.tiles)]
    pool = SyntheticPool(SyntheticSource(cfg.synthetic), cfg, seed, rank, device) if cfg.synthetic_share > 0 else None
    return PairSource(tiles, pool, cfg, batch=batch, seed=seed, rank=rank, device=device)
