"""Correct the labels of tiles from the images: `python -m somareg.lab.data.clean`.

Published pairs have a constant shift, which their lists give for a whole subset at best. All windows of a group of
tiles vote on one more shift, with weight-free features or a model's: many weak votes for one unknown are precise when
a single window is not. Tiles without a measurable shift keep their label or are dropped.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from somareg.errors import ConfigError, OutputError, SomaregError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.lab.data.pack import shards
from somareg.lab.data.standardise import standardise
from somareg.lab.data.tiles import SHARD_GLOB, TileSet
from somareg.matching.describe import Describe, OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.posterior import between_cells
from somareg.matching.posterior import standardise as deviations
from somareg.matching.windows import WindowCfg
from somareg.register.choose import load_model
from somareg.soma.features import LearnedFeatures

QUARTERS = 4
BY = ("group", "pair", "tile")
PER_SHARD = 248  # of 256 px: 64 MiB
_SUMMARY = "Measure the constant shift that is left in the labels of each group of tiles, and take it out."


@dataclass(frozen=True)
class CleanCfg:
    """Settings of the measurement of shifts.

    Attributes:
        window: windows, in cells of the finest features; the margin bounds the shift that can be found.
        by: tiles that share one shift: those of a "group" (a place, a scene), of a "pair", or each "tile" by itself.
        precise_px: a shift is taken when its standard error is below this.
        spread_px: ... and when the quarters of the ground differ by less than this (rms) from it: beyond it the shift
            is not constant, for instance because of relief.
        largest_px: ... and when it is no longer than this.
        drop: drop tiles without a measurable shift; otherwise they keep their labels.
    """

    window: WindowCfg = field(default_factory=lambda: WindowCfg(size=28, margin=6, stride=12))
    by: str = "group"
    precise_px: float = 0.4
    spread_px: float = 1.2
    largest_px: float = 3.0
    drop: bool = False

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise ConfigError(f"--by is '{self.by}'; give {', '.join(BY)}")

    def takes(self, shift: Shift | None) -> bool:
        """Whether a shift is accurate enough."""
        if shift is None or math.hypot(*shift.xy) > self.largest_px:
            return False
        return shift.error_px < self.precise_px and shift.spread_px < self.spread_px


@dataclass(frozen=True, eq=False)
class Shift:
    """The shift that remains in the labels of some tiles.

    Attributes:
        xy: (dx, dy), pixels: optical pixel x lies at `label(x + xy)` in the SAR tile.
        error_px: standard error of the shift, from the scatter of the quarters; infinite with one quarter only.
        spread_px: rms distance of the quarters from it.
        height: of the common correlation at the shift, in deviations of a window's background.
    """

    xy: tuple[float, float]
    error_px: float
    spread_px: float
    height: float


def quarter_votes(tiles: TileSet, index: int, describe: Describe, cfg: CleanCfg) -> tuple[Tensor, Tensor]:
    """Sums of the correlation surfaces of one tile's windows, by quarter of its ground.

    Returns:
        (4, n, n) surfaces in deviations of each window's background, added up, and (4,) numbers of windows.
    """
    one = tiles.select([index])
    mask = one.valid[:, None].float()
    pair = Pair(
        standardise(one.optical.float(), mask, "optical"),
        mask,
        standardise(one.sar[:, None].float(), mask, "sar"),
        mask,
        ("optical", "sar"),
    )
    label = AffineTransform(one.label[0].double().numpy())
    windows = Matcher(pair, describe).correlate(label, cfg.window)
    side, middle = 2 * cfg.window.margin + 1, tiles.size / describe.strides[0] / 2
    sums, counts = torch.zeros(QUARTERS, side, side), torch.zeros(QUARTERS)
    if len(windows.surfaces):
        quarter = ((windows.centres > middle).long() * torch.tensor([1, 2])).sum(1)
        sums.index_add_(0, quarter, deviations(windows.surfaces))
        counts.index_add_(0, quarter, torch.ones(len(quarter)))
    return sums, counts


def common_shift(sums: Tensor, counts: Tensor, cell: float) -> Shift | None:
    """The shift that all windows vote for; None when the highest vote lies on the rim or there are no votes.

    Args:
        sums: (4, n, n) added surfaces of the quarters.
        counts: (4,) windows in them.
        cell: pixels per cell.
    """
    if counts.sum() == 0:
        return None
    everything = sums.sum(0) / counts.sum()
    top = _top(everything)
    if top is None:
        return None
    away = []
    for quarter, count in zip(sums, counts, strict=True):
        if count > 0:
            own = _top(quarter, near=top)
            away.append(float("inf") if own is None else float((own - top).norm()) * cell)
    spread = (sum(a * a for a in away) / len(away)) ** 0.5
    x, y = (top * cell).tolist()
    # Two axes share the distance, and the mean of k quarters is sqrt(k) times better than one of them.
    error = spread / 2**0.5 / (len(away) - 1) ** 0.5 if len(away) > 1 else math.inf
    return Shift((x, y), error, spread, float(everything.max()))


def _top(surface: Tensor, near: Tensor | None = None, reach: float = 2.5) -> Tensor | None:
    """(x, y) of the highest place in cells from the middle, between the cells by a parabola; None on the rim.

    Args:
        surface: (n, n).
        near: (x, y) around which it is searched, within `reach` cells.
        reach: cells.
    """
    side, margin = surface.shape[-1], surface.shape[-1] // 2
    seen = surface
    if near is not None:
        axis = torch.arange(-margin, margin + 1)
        apart = (axis[None, :] - near[0]).square() + (axis[:, None] - near[1]).square()
        seen = torch.where(apart <= reach**2, surface, -torch.inf)
    row, column = divmod(int(seen.argmax()), side)
    if not (0 < row < side - 1 and 0 < column < side - 1):
        return None
    top = torch.tensor([[column, row]])
    return (top - margin + between_cells(surface[None], top[:, 1], top[:, 0]))[0]


@torch.inference_mode()
def clean(
    tiles: TileSet, describe: Describe, cfg: CleanCfg, progress: Callable[[int], None] = lambda done: None
) -> tuple[TileSet, dict[str, Shift | None]]:
    """Correct the labels of tiles.

    Args:
        tiles: on the CPU.
        describe: features.
        cfg: settings.
        progress: called with the number of finished tiles.

    Returns:
        The tiles (fewer with `cfg.drop`), and the shift of each group, pair or tile by name; None when not measurable.
    """
    pairs = tuple(name.rpartition("@")[0] or name for name in tiles.name)
    names = {"group": tiles.group, "pair": pairs, "tile": tiles.name}[cfg.by]
    votes: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for index, name in enumerate(names):
        votes[name].append(quarter_votes(tiles, index, describe, cfg))
        progress(index + 1)
    cell = float(describe.strides[0])
    shifts = {
        name: common_shift(
            torch.stack([sums for sums, _ in parts]).sum(0), torch.stack([counts for _, counts in parts]).sum(0), cell
        )
        for name, parts in votes.items()
    }
    label, indices = tiles.label.clone(), []
    for index, name in enumerate(names):
        shift = shifts[name]
        if shift is not None and cfg.takes(shift):
            move = torch.tensor(shift.xy, dtype=torch.float32)
            label[index, :, 2] += label[index, :, :2] @ move
            indices.append(index)
        elif not cfg.drop:
            indices.append(index)
    return replace(tiles, label=label).select(indices), shifts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m somareg.lab.data.clean", description=_SUMMARY)
    parser.add_argument("--tiles", required=True, help="folder of shards")
    parser.add_argument("--out", required=True, help="folder for the new shards")
    parser.add_argument("--model", default="orientation", help="features: orientation, a shipped model, or a file")
    parser.add_argument(
        "--dinov2", help="the frozen DINOv2 that the model needs: folder, or hub name in the local cache"
    )
    parser.add_argument("--by", default="group", choices=BY, help="what shares one shift")
    parser.add_argument("--precise", type=float, default=CleanCfg.precise_px, help="largest standard error taken, px")
    parser.add_argument("--spread", type=float, default=CleanCfg.spread_px, help="largest spread of quarters taken, px")
    parser.add_argument("--largest", type=float, default=CleanCfg.largest_px, help="longest shift taken, px")
    parser.add_argument("--drop", action="store_true", help="leave out what could not be measured")
    parsed = parser.parse_args(arguments)
    try:
        out = Path(parsed.out)
        if any(out.glob(SHARD_GLOB)):
            raise OutputError(f"{out} already holds tiles; give another folder")
        network = load_model(parsed.model, device="cpu", dinov2=parsed.dinov2)
        describe = LearnedFeatures(network) if network else OrientationFeatures(OrientationCfg())
        tiles = TileSet.load(parsed.tiles)
        cfg = CleanCfg(
            by=parsed.by,
            precise_px=parsed.precise,
            spread_px=parsed.spread,
            largest_px=parsed.largest,
            drop=parsed.drop,
        )
        better, shifts = clean(tiles, describe, cfg)
        for number, shard in enumerate(shards([better], PER_SHARD)):
            shard.save(out / f"tiles-{number:05d}.safetensors")
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    good = [shift for shift in shifts.values() if shift and cfg.takes(shift)]
    print(f"{len(good)} of {len(shifts)} {cfg.by}s measured; {len(better)} of {len(tiles)} tiles in {out}")
    if good:
        lengths = torch.tensor([s.xy for s in good]).norm(dim=1)
        errors = torch.tensor([s.error_px for s in good])
        print(f"shift: median {float(lengths.median()):.2f} px, largest {float(lengths.max()):.2f} px")
        print(f"standard error: median {float(errors.median()):.2f} px")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
