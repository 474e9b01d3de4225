"""The whole scene at low resolution: read in strips, and matched once to give the tiles their start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.errors import NoDataError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import jacobian_between
from somareg.geometry.proportions import keep_side
from somareg.io.inputs import OpenImage
from somareg.io.opened import about_bands
from somareg.io.source import Block
from somareg.matching.engine import Alignment
from somareg.preprocess.ground_only import ground_only
from somareg.preprocess.holes import bridged
from somareg.preprocess.normalise import treatment
from somareg.preprocess.prepare import prepare, reduce_blocks, reduced_grid
from somareg.preprocess.sar import detect_scale
from somareg.quality.ambiguity import rival_in_words, rival_kind
from somareg.register.choose import Chosen, engine_settings, pair_tensors
from somareg.register.findings import View
from somareg.register.ground import Ground
from somareg.register.images import all_bands
from somareg.soma.align import align
from somareg.tiepoints.use import Given
from somareg.types import BoolArray, Progress, Raster, SarScale

STRIP_VALUES = 6_000_000  # most values read at a time
COLLAR = 0.02  # share of the pixels from which an extreme value is no signal
_SAMPLES_PX = 1024  # longer side of the sample of raw values from which the SAR scale is detected


@dataclass(frozen=True, eq=False)
class Overview:
    """One image at low resolution.

    Attributes:
        view: the matched bands, averaged.
        bands: their numbers in the file.
        scale: of SAR values, detected on values as stored; "auto" unless SAR.
        notes: decisions taken.
    """

    view: View
    bands: tuple[int, ...]
    scale: SarScale
    notes: tuple[str, ...]

    @property
    def to_part(self) -> AffineTransform:
        """The map from overview pixels to pixels of the image's part."""
        return AffineTransform.reduction(self.view.factor)


@dataclass(frozen=True, eq=False)
class GlobalMatch:
    """The alignment of the overviews.

    Attributes:
        affine: pixels of the reference's part -> pixels of the part that corrections map to, see `Ground`.
        expected: the same before matching.
        failure: why matching failed, "" otherwise.
        notes: masked pixels, and why the overviews were matched by another engine than the tiles.
        doubts: sentences that forbid "go".
    """

    affine: AffineTransform
    expected: AffineTransform
    failure: str
    notes: tuple[str, ...]
    doubts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; `from_json` restores exactly the same numbers."""
        maps = {name: getattr(self, name).matrix.tolist() for name in ("affine", "expected")}
        return {**maps, "failure": self.failure, "notes": list(self.notes), "doubts": list(self.doubts)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GlobalMatch:
        affine, expected = (AffineTransform(np.array(record[name])) for name in ("affine", "expected"))
        return cls(affine, expected, str(record["failure"]), tuple(record["notes"]), tuple(record["doubts"]))


def read_overview(image: OpenImage, part: Block, factor: int, role: str, cfg: RegisterConfig) -> Overview:
    """Read a part of an image in strips, averaged over `factor` x `factor` pixels.

    Args:
        image: open.
        part: of the image.
        factor: pixels averaged along each side.
        role: "moving" or "reference".
        cfg: modality and scale of that image; a SAR scale "auto" is detected on values as stored.

    Raises:
        NoDataError: no valid pixel.
    """
    facts = image.facts
    modality, scale = (getattr(cfg, f"{role}_{name}") for name in ("modality", "scale"))
    every = max(1, max(part.width, part.height) // _SAMPLES_PX)
    rows = max(1, STRIP_VALUES // (part.width * len(image.bands)) // factor) * factor
    images: list[NDArray[np.float32]] = []
    masks: list[BoolArray] = []
    samples: list[tuple[NDArray[Any], BoolArray]] = []
    valid, each = 0, np.zeros(len(image.bands))
    for top in range(part.y, part.y + part.height, rows):
        count = min(rows, part.y + part.height - top)
        data, block_valid = image.pixels(Block(part.x, top, part.width, count), image.bands)
        mask: BoolArray = np.asarray(block_valid.all(axis=0))
        valid += int(mask.sum())
        each += block_valid.sum(axis=(1, 2))
        # Copies, because a view would keep its whole strip in memory.
        samples.append((data[:, ::every, ::every].copy(), mask[::every, ::every].copy()))
        if count >= factor:
            reduced, small = reduce_blocks(data, mask, factor)
            images.append(reduced)
            masks.append(small)
    area = part.width * part.height
    notes = list(about_bands(facts.name, image.bands, (each / area).tolist(), valid / area))
    if not valid:
        remarks = notes or [f"{facts.name} holds no valid pixel; check the file or give another nodata value"]
        raise NoDataError(remarks[0])
    if modality == "sar" and scale == "auto":
        scale, reason = _judge_scale(samples)
        notes.append(f"SAR values taken as {scale} ({reason})")
    if remark := treatment(modality):
        notes.append(remark)
    data, mask = np.concatenate(images, axis=1), np.concatenate(masks)
    raster = Raster(data, mask, reduced_grid(facts.grid.part(*part), factor, mask.shape), name=facts.name)
    return Overview(View(raster, part, factor, valid / area), image.bands, scale, tuple(notes))


def factors(ground: Ground, factor: int) -> tuple[int, int]:
    """Reduction factors of reference and moving image, when `factor` is that of the reference.

    A georeferenced moving image is reduced to about the same pixel size on the ground, rather less than more. Both are
    reduced less where a side would get too short.
    """
    there = ground.moving.height, ground.moving.width
    if not ground.is_placed:
        factor = keep_side(factor, *ground.shape, *there)
        return factor, factor
    factor = keep_side(factor, *ground.shape)
    density = float(np.sqrt(abs(np.linalg.det(jacobian_between(ground.georef, ground.shape, there)))))
    return factor, keep_side(int(factor * density + 1e-6) if np.isfinite(density) else factor, *there)


def match_overviews(
    overviews: tuple[Overview, Overview],
    ground: Ground,
    cfg: RegisterConfig,
    chosen: tuple[Chosen, torch.device],
    seed: Given | None,
    progress: Progress,
    reach_px: float = math.inf,
) -> GlobalMatch:
    """Match the overviews with the engine for small pairs: the global affine.

    Args:
        overviews: of reference and moving.
        ground: the parts that they show.
        cfg: settings.
        chosen: engine and device.
        seed: tie points in pixels of the parts: one more start.
        progress: called with a stage's name and the share of the matching done.
        reach_px: distance up to which tiles see a second place that fits as well, reference pixels.
    """
    reference, moving = overviews
    here, there = reference.view.raster, moving.view.raster
    factor = reference.view.factor
    scales = {"moving_scale": moving.scale, "reference_scale": reference.scale}
    every = {"moving_bands": all_bands(there), "reference_bands": all_bands(here)}  # as read
    settings_at_scale = cfg.model_copy(update={**scales, **every})
    between = compose(moving.to_part.inverse, ground.georef, reference.to_part) if ground.knows else ground.georef
    radius = ground.radius_px / factor
    places = tuple(compose(moving.to_part.inverse, place, reference.to_part) for place in ground.places)
    modalities = cfg.moving_modality, cfg.reference_modality
    left = ground_only(there, here, places, modalities)
    there, here = bridged(left.moving, "moving")[0], bridged(left.reference, "reference")[0]
    small = prepare(there, here, between, settings_at_scale, longest=max(here.grid.shape), radius_px=radius)
    # With georeferences a correction maps between reference pixels; else it maps to moving pixels.
    away = reference.to_part if ground.is_placed else moving.to_part
    starts = small.starts
    if seed:
        onto = away.inverse.after(seed.affine).after(reference.to_part)
        starts = (*starts, small.moving_pixels.inverse.after(onto).after(small.reference_pixels))
    engine, device = chosen
    picked = engine.on(small.reference_mask.shape, small.moving_mask.shape)
    settings = replace(engine_settings(cfg, here.grid, radius, is_looked_for=ground.is_looked_for), flow=None)
    pair = pair_tensors(small, device, (cfg.reference_modality, cfg.moving_modality))
    alignment = align(pair, starts, settings, progress, picked.network)
    affine, expected = (
        away.after(small.affine_of(one)).after(reference.to_part.inverse) for one in (alignment.affine, starts[0])
    )
    notes = (*left.notes, *(() if picked is engine else picked.notes))
    doubts = (*left.doubts, *_out_of_reach(alignment, factor, reach_px))
    return GlobalMatch(affine, expected, alignment.failure, notes, doubts)


def _out_of_reach(alignment: Alignment, factor: int, reach_px: float) -> tuple[str, ...]:
    """A sentence on a second place that fits the overviews as well, if it is too far away for tiles to see; else ().

    What lies within their reach, or on a ridge that begins there, tiles decide at full resolution. Where the overviews
    hardly agree, every place fits as well, and tiles decide, too.
    """
    rival = alignment.doubts.rival
    is_repeated = not alignment.failure and rival_kind(rival, alignment.evidence.zscore) == "repeats"
    is_far = factor * math.hypot(*rival.shift_px) > reach_px
    return (rival_in_words(rival, "repeats", factor),) if is_repeated and is_far else ()


def _judge_scale(samples: Sequence[tuple[NDArray[Any], BoolArray]]) -> tuple[SarScale, str]:
    data = np.concatenate([part for part, _ in samples], axis=1)
    mask = _without_collar(data, np.concatenate([part for _, part in samples]))
    return detect_scale(data, mask) if mask.any() else ("amplitude", "no valid value in the sample")


def _without_collar(data: NDArray[Any], mask: BoolArray) -> BoolArray:
    """The mask without the smallest and largest values if many pixels hold them: an undeclared collar is no signal."""
    if np.iscomplexobj(data):
        return mask
    for extreme in (np.min, np.max):
        valid = data[:, mask]
        if not valid.size:
            break
        same = mask & (data == extreme(valid)).all(axis=0)
        if COLLAR * mask.sum() < same.sum() < mask.sum():
            mask = mask & ~same
    return mask
