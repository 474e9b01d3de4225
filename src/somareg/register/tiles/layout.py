"""Division of a scene: overview, tiles, nodes of the displacement."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from somareg.io.source import Block

PRESET_TILES: Mapping[str, int] = {"fast": 256, "base": 1024, "precise": 4096}

MIN_FIRST = 16
"""Least tiles of a first round; a scene with fewer in every second row and column is matched in one round."""


@dataclass(frozen=True)
class SceneCfg:
    """Settings of a scene.

    Attributes:
        tile_px: side of a tile.
        overlap_px: overlap of neighbouring tiles, as long as there are not too many tiles.
        tiles: most tiles per preset; in a larger scene they lie further apart.
        overview_px: most pixels of the overview's longer side.
        radius_px: search radius of a tile around the global affine; 3 px are added for each pixel of the overview.
        step_px: reference pixels between the nodes of the displacement.
    """

    tile_px: int = 512
    overlap_px: int = 64
    tiles: Mapping[str, int] = field(default_factory=lambda: dict(PRESET_TILES))
    overview_px: int = 1280
    radius_px: float = 16.0
    step_px: int = 16

    def factor(self, shape: tuple[int, int]) -> int:
        """Reference pixels per pixel of the overview."""
        return max(1, math.ceil(max(shape) / self.overview_px))

    def search_px(self, factor: int) -> float:
        """Search radius of a tile around the global affine, reference pixels."""
        return min(self.radius_px + 3.0 * factor, 96.0)


@dataclass(frozen=True)
class Layout:
    """The tiles of a scene.

    Attributes:
        blocks: row by row.
        rows, columns: of the pattern.
        spacing: reference pixels from one tile to the next (the larger of x and y).
    """

    blocks: tuple[Block, ...]
    rows: int
    columns: int
    spacing: float

    @cached_property
    def first(self) -> tuple[int, ...]:
        """Tiles of the first round: of every second row and column, with the outermost ones, so that nothing
        is extrapolated; all tiles when those would be too few to check each other.
        """
        rows, columns = _every_second(self.rows), _every_second(self.columns)
        if len(rows) * len(columns) < MIN_FIRST:
            return tuple(range(len(self.blocks)))
        return tuple(row * self.columns + column for row in rows for column in columns)

    def beside(self, index: int) -> tuple[int, ...]:
        """The tiles around a tile, up to eight."""
        row, column = divmod(index, self.columns)
        rows = range(max(0, row - 1), min(self.rows, row + 2))
        columns = range(max(0, column - 1), min(self.columns, column + 2))
        return tuple(other for r in rows for c in columns if (other := r * self.columns + c) != index)

    def worth(self, tiles: Collection[int]) -> float:
        """The number of whole tiles whose pixels some tiles show: fewer than they are, where they overlap.

        Tiles that overlap see the same pixels, and err together.
        """
        blocks = [self.blocks[index] for index in tiles]
        if not blocks:
            return 0.0
        edges_x = np.unique([edge for block in blocks for edge in (block.x, block.x + block.width)])
        edges_y = np.unique([edge for block in blocks for edge in (block.y, block.y + block.height)])
        seen = np.zeros((len(edges_y) - 1, len(edges_x) - 1), bool)
        for block in blocks:
            left, right = np.searchsorted(edges_x, (block.x, block.x + block.width))
            top, bottom = np.searchsorted(edges_y, (block.y, block.y + block.height))
            seen[top:bottom, left:right] = True
        area = np.diff(edges_y)[:, None] * np.diff(edges_x)
        return float(area[seen].sum()) / (blocks[0].width * blocks[0].height)

    def middle(self, index: int) -> tuple[float, float]:
        """(x, y) of a tile's centre, reference pixels."""
        block = self.blocks[index]
        return block.x + (block.width - 1) / 2, block.y + (block.height - 1) / 2


def side_by_side(shape: tuple[int, int], cfg: SceneCfg) -> int:
    """The number of tiles that (height, width) holds without overlap, at least 1."""
    return math.prod(max(1, side // cfg.tile_px) for side in shape)


def lay_tiles(shape: tuple[int, int], cfg: SceneCfg, limit: int) -> Layout:
    """Spread tiles evenly over (height, width), overlapping, or apart when there would be more than `limit`."""
    side = cfg.tile_px
    stride = float(side - cfg.overlap_px)
    while _count(shape[0], side, stride) * _count(shape[1], side, stride) > limit:
        stride *= 1.02
    tops, lefts = (_starts(n, side, _count(n, side, stride)) for n in shape)
    blocks = tuple(Block(x, y, min(side, shape[1]), min(side, shape[0])) for y in tops for x in lefts)
    spacing = max((steps[-1] - steps[0]) / (len(steps) - 1) if len(steps) > 1 else side for steps in (tops, lefts))
    return Layout(blocks, len(tops), len(lefts), float(spacing))


def _count(length: int, side: int, stride: float) -> int:
    return 1 if length <= side else math.ceil((length - side) / stride) + 1


def _starts(length: int, side: int, count: int) -> list[int]:
    return [0] if count == 1 else [round(i * (length - side) / (count - 1)) for i in range(count)]


def _every_second(count: int) -> list[int]:
    """About every second of `count` numbers, the first and the last among them, no two more than 2 apart."""
    steps = count // 2
    return [round(i * (count - 1) / steps) for i in range(steps + 1)] if steps else [0]
