"""Random draws of the samples of a list.

For each sample an affine is drawn and then placed anywhere in the pair where both crops lie inside imagery; only an
affine that fits nowhere is drawn again. Such rejections change the distribution: in images barely larger than the crop,
level R keeps the rotations near multiples of 90 degrees and the scales near or above 1. Each list counts them.

Level N draws the affines of level m and one warp for each, in turns of either correlation length. The same places,
affines and warps serve all its strengths, so that its rows differ in nothing but the strength.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.errors import ConfigError, InputError
from somareg.geometry import AffineTransform
from somareg.lab.data.pairs import PairEntry, StoredPair, list_pairs, load_pair
from somareg.lab.evaluate.list_file import dump_list, list_name
from somareg.lab.evaluate.protocol import (
    AFFINE_LEVELS,
    LEVELS,
    SETS,
    WARP_LENGTHS_PX,
    WARP_PX,
    WARPED,
    Level,
    SetInfo,
    Split,
    check_names,
)
from somareg.lab.evaluate.sample import KERNEL_MARGIN_PX, Sample, SampleList, footprint_outline, shrinkage
from somareg.lab.evaluate.warp import SmoothWarp

_AFFINES_PER_PAIR = 200
_ORIGINS_PER_AFFINE = 10
_STEEPEST = 0.5  # slope of the strongest warp; beyond it the map nearly folds, and its inversion is slow
_SEEDS = 2**31


def draw_affine(level: Level, crop: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A (2, 3) reference-to-moving matrix from the ranges of `level`, about the crop's centre, rounded to 1e-6."""
    scale = math.exp(rng.uniform(math.log(level.scale[0]), math.log(level.scale[1])))
    rotation = rng.uniform(-level.rotation_deg, level.rotation_deg)
    shift = rng.uniform(-level.shift, level.shift, 2) * crop
    half, lean = 0.0, 0.0
    if level.aspect != (1.0, 1.0) or level.shear:  # other levels keep their earlier draws
        half = rng.uniform(math.log(level.aspect[0]), math.log(level.aspect[1])) / 2
        lean = math.degrees(math.atan(rng.uniform(-level.shear, level.shear)))
    middle = (crop - 1) / 2
    affine = AffineTransform.from_parameters(
        rotation_deg=rotation,
        scale=(scale * math.exp(half), scale * math.exp(-half)),
        shear_deg=lean,
        shift=(float(shift[0]), float(shift[1])),
        centre=(middle, middle),
    )
    return np.round(affine.matrix, 6)


def make_list(
    data_dir: str | Path,
    info: SetInfo,
    split: Split,
    *,
    count: int | None = None,
    levels: Collection[str] = AFFINE_LEVELS,
    seed: int = 0,
    groups: Collection[str] | None = None,
) -> SampleList:
    """Draw the samples of one set and split.

    Args:
        data_dir: folder with `pairs.csv`.
        info: the set.
        split: "test" or "val".
        count: samples per level (None: the set's own number, see `SetInfo.count_of`).
        levels: keys of `LEVELS`; those with a warp take crops of about 128 px and more.
        seed: the same seed and data give the same list.
        groups: allowed places; None for all.

    Raises:
        ConfigError: the set has no pairs for this split (and groups), or a level is unknown.
        InputError: no pair of the set can hold the crops.
    """
    role = info.roles.get(split)
    pairs = list_pairs(data_dir, {info.name}, {role}) if role else []
    pairs = [pair for pair in pairs if groups is None or pair.group in groups]
    if role is None or not pairs:
        raise ConfigError(f"set '{info.name}' has no pairs for split '{split}' in {data_dir}")
    samples: dict[str, list[Sample]] = {}
    rejected: dict[str, dict[str, int]] = {}
    maker = _Maker(Path(data_dir), info.crop, pairs)
    samples_of: dict[str, tuple[list[Sample], dict[str, int]]] = {}
    for level in check_names(levels, LEVELS, "level"):
        number = count or info.count_of(level, split)
        if not number:
            continue
        word = WARPED if LEVELS[level].warp_px else level
        if word not in samples_of:
            rng = np.random.default_rng([seed, *(zlib.crc32(each.encode()) for each in (info.name, role, word))])
            samples_of[word] = maker.draw(level, number, rng)
        samples[level] = [_at_level(sample, level) for sample in samples_of[word][0]]
        rejected[level] = samples_of[word][1]
    return SampleList(info.name, role, split, info.crop, seed, samples, rejected, info.residual, info.quoted_from)


def _at_level(sample: Sample, level: str) -> Sample:
    """The same sample at another strength of its warp."""
    warp = sample.warp and replace(sample.warp, rms_px=LEVELS[level].warp_px)
    return replace(sample, level=level, warp=warp)


class _Maker:
    """Draws samples from pairs, decoding each once."""

    def __init__(self, data_dir: Path, crop: int, pairs: list[PairEntry]) -> None:
        self.data_dir, self.crop, self.pairs = data_dir, crop, pairs
        self.valid: dict[str, NDArray[np.bool_]] = {}

    def draw(self, level: str, number: int, rng: np.random.Generator) -> tuple[list[Sample], dict[str, int]]:
        rejected = {"size": 0, "nodata": 0, **({"steep": 0} if LEVELS[level].warp_px else {})}
        # shuffled, so that the first samples of a list (`limit`) are spread over the places
        order = [self.pairs[i] for i in rng.permutation(len(self.pairs))]
        samples: list[Sample] = []
        turn = failures = 0
        while len(samples) < number:
            sample = self._try_pair(order[turn % len(order)], level, len(samples), rng, rejected)
            turn += 1
            if sample is None:
                failures += 1
                if failures >= len(order):
                    raise InputError(self._why_none(order[0].set, level, rejected))
                continue
            failures = 0
            samples.append(sample)
        return samples, rejected

    def _why_none(self, name: str, level: str, rejected: dict[str, int]) -> str:
        if rejected.get("steep", 0) > rejected["size"] + rejected["nodata"]:
            return f"level '{level}': warps are too steep for {self.crop} px crops; take larger crops or leave it out"
        return f"no pair of set '{name}' holds a border-free {self.crop} px crop"

    def _try_pair(
        self, entry: PairEntry, level: str, index: int, rng: np.random.Generator, rejected: dict[str, int]
    ) -> Sample | None:
        for _ in range(_AFFINES_PER_PAIR):
            matrix = draw_affine(LEVELS[level], self.crop, rng)
            warps: tuple[SmoothWarp | None, ...] = (None,)
            if LEVELS[level].warp_px:
                length, drawn = WARP_LENGTHS_PX[index % len(WARP_LENGTHS_PX)], int(rng.integers(_SEEDS))
                warps = tuple(SmoothWarp(rms, length, drawn, self.crop) for rms in WARP_PX)
                if SmoothWarp(max(WARP_PX), length, drawn, self.crop).slope() > _STEEPEST:
                    rejected["steep"] += 1
                    continue
            box = self._origin_box(entry, matrix, warps)
            if box is None:
                rejected["size"] += 1
                continue
            for _ in range(_ORIGINS_PER_AFFINE):
                origin = (int(rng.integers(box[0], box[2] + 1)), int(rng.integers(box[1], box[3] + 1)))
                samples = [Sample(entry, level, index, self.crop, origin, matrix, warp) for warp in warps]
                if all(map(self._holds_imagery, samples)):
                    return samples[0]
            rejected["nodata"] += 1
        return None

    def _origin_box(
        self, entry: PairEntry, matrix: NDArray[np.float64], warps: Collection[SmoothWarp | None]
    ) -> tuple[int, int, int, int] | None:
        """(x0, y0, x1, y1) inclusive: origins at which both crops lie inside the images with every warp, or None."""
        outline = np.concatenate([footprint_outline(matrix, self.crop, entry.offset, warp) for warp in warps])
        margin = KERNEL_MARGIN_PX * shrinkage(matrix)
        size = np.array([entry.width, entry.height])
        low = np.maximum(np.ceil(margin - outline.min(axis=0)), 0).astype(int)
        high = np.minimum(np.floor(size - 1 - margin - outline.max(axis=0)), size - self.crop).astype(int)
        if (low > high).any():
            return None
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _holds_imagery(self, sample: Sample) -> bool:
        valid = self._valid(sample.pair)
        if valid.all():
            return True
        x, y = sample.origin
        moving = np.zeros(valid.shape, np.uint8)
        outline = np.rint(sample.outline_in_sar()).astype(np.int32)
        if sample.warp is None:
            cv2.fillConvexPoly(moving, outline, 1)
        else:
            cv2.fillPoly(moving, [outline], 1)
        in_reference = valid[y : y + self.crop, x : x + self.crop].all()
        return bool(in_reference and valid[moving.astype(bool)].all())

    def _valid(self, entry: PairEntry) -> NDArray[np.bool_]:
        if entry.name not in self.valid:
            pair: StoredPair = load_pair(self.data_dir, entry)
            self.valid[entry.name] = pair.valid
        return self.valid[entry.name]


def make_lists(data_dir: str | Path, out_dir: str | Path, *, seed: int = 0) -> list[Path]:
    """Write the list of every set, split and role of the protocol (`list_name`); returns the paths."""
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    splits: tuple[Split, ...] = ("test", "val")
    for info in (info for infos in SETS.values() for info in infos):
        for split in splits:
            if split in info.roles:
                path = folder / list_name(info, split)
                path.write_text(
                    dump_list(make_list(data_dir, info, split, levels=tuple(LEVELS), seed=seed)), encoding="utf-8"
                )
                paths.append(path)
    return paths
