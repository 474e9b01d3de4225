"""The whole scene at low resolution: read strip by strip, and matched once to know where the tiles have to look."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.choices import Chosen, engine_settings, pair_tensors, search_radius
from somareg.config import RegisterConfig
from somareg.errors import NoDataError, NoOverlapError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import jacobian_at, source_window
from somareg.io.source import Block, RasterSource
from somareg.matching.engine import align
from somareg.preprocess.normalise import choose_bands
from somareg.preprocess.prepare import prepare, reduce_blocks, reduced_grid
from somareg.preprocess.sar import detect_scale
from somareg.types import BoolArray, FloatArray, Grid, Modality, Raster, SarScale, Transform

_STRIP_VALUES = 6_000_000  # values read at a time
_SAMPLES_PX = 1024  # longer side of the sample of raw values that the SAR scale is judged on


@dataclass(frozen=True, eq=False)
class Overview:
    """One image at low resolution.

    Attributes:
        raster: the chosen bands, averaged.
        to_full: overview pixels -> pixels of the full image.
        bands: 1-based bands of the file.
        scale: of SAR values, judged on values as stored; "auto" unless SAR.
        valid_share: of the full image's pixels that were read, 0-1.
        notes: decisions taken.
    """

    raster: Raster
    to_full: AffineTransform
    bands: tuple[int, ...]
    scale: SarScale
    valid_share: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GlobalMatch:
    """The alignment of the overviews.

    Attributes:
        affine: reference pixels -> the coordinates in which corrections speak, see `Result.correction`.
        expected: the same before anything was matched.
        failure: why nothing could be matched, "" otherwise.
        notes: why another engine than the tiles' matched them.
    """

    affine: AffineTransform
    expected: AffineTransform
    failure: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; `from_json` gives the very same numbers back."""
        maps = {name: getattr(self, name).matrix.tolist() for name in ("affine", "expected")}
        return {**maps, "failure": self.failure, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GlobalMatch:
        affine, expected = (AffineTransform(np.array(record[name])) for name in ("affine", "expected"))
        return cls(affine, expected, str(record["failure"]), tuple(record["notes"]))


def read_overview(
    source: RasterSource,
    factor: int,
    wanted: tuple[int, ...] | None,
    modality: Modality,
    scale: SarScale,
    grid: Grid,
    part: Block | None = None,
) -> Overview:
    """An image averaged over `factor` x `factor` pixels, read in strips.

    Args:
        source: open file.
        factor: pixels averaged along each side.
        wanted: 1-based bands, None for the engine's choice.
        modality, scale: of the values; a SAR scale "auto" is judged on values as they are stored.
        grid: of the image, which an assumed CRS may have placed.
        part: of the image; default all.

    Raises:
        NoDataError: no valid pixel.
    """
    part = part or Block(0, 0, source.grid.width, source.grid.height)
    bands = choose_bands(source.count, wanted, source.descriptions)
    picked = [band - 1 for band in bands]
    every = max(1, max(part.width, part.height) // _SAMPLES_PX)
    rows = max(1, _STRIP_VALUES // (part.width * source.count) // factor) * factor
    images: list[NDArray[np.float32]] = []
    masks: list[BoolArray] = []
    samples: list[tuple[NDArray[Any], BoolArray]] = []
    valid = 0
    for top in range(part.y, part.y + part.height, rows):
        count = min(rows, part.y + part.height - top)
        data, seen = source.read(Block(part.x, top, part.width, count))
        mask = np.asarray(seen.all(axis=0))
        valid += int(mask.sum())
        samples.append((data[picked, ::every, ::every], mask[::every, ::every]))
        if count >= factor:
            image, small = reduce_blocks(data[picked], mask, factor)
            images.append(image)
            masks.append(small)
    if not valid:
        raise NoDataError(f"{source.name} holds no valid pixel; check the file or give another nodata value")
    notes = []
    if source.count > len(bands):
        notes.append(f"{source.name}: matched on band {', '.join(map(str, bands))} of {source.count}")
    if modality == "sar" and scale == "auto":
        scale, reason = _judge_scale(samples)
        notes.append(f"{source.name}: SAR values taken as {scale} ({reason})")
    image, mask = np.concatenate(images, axis=1), np.concatenate(masks)
    raster = Raster(image, mask, reduced_grid(grid, factor, mask.shape), name=source.name)
    to_full = AffineTransform.from_parameters(shift=(part.x, part.y)).after(AffineTransform.reduction(factor))
    return Overview(raster, to_full, bands, scale, valid / (part.width * part.height), tuple(notes))


def moving_part(
    georef: Transform, reference: Grid, moving: Grid, radius_px: float, factor: int
) -> tuple[int, Block | None]:
    """How far a georeferenced moving image may be averaged for the overview, and which part of it is needed.

    Args:
        georef: reference pixels -> moving pixels.
        reference, moving: full grids.
        radius_px: search radius around the reference's edge, reference pixels.
        factor: reference pixels per overview pixel.
    """
    height, width = reference.shape
    columns, rows = (np.linspace(-radius_px, n - 1 + radius_px, 65) for n in (width, height))
    x, y = np.meshgrid(columns, rows)
    points = georef(np.stack([x.ravel(), y.ravel()], axis=-1))
    centre: FloatArray = georef.inverse(np.array([[(moving.width - 1) / 2, (moving.height - 1) / 2]]))[0]
    jacobian = jacobian_at(georef, (float(centre[0]), float(centre[1])))
    if not np.isfinite(jacobian).all():
        raise NoOverlapError("the moving image cannot be placed on the reference's grid; check the CRS of both images")
    density = float(np.sqrt(abs(np.linalg.det(jacobian))))
    spacing = math.ceil(max(width, height) / 64 * max(density, 1.0))
    window = source_window(points, moving.shape, margin=spacing + 8)
    return max(1, int(factor * density + 1e-6)), None if window is None else Block(*window)


def match_overviews(
    reference: Overview,
    moving: Overview,
    georef: Transform,
    cfg: RegisterConfig,
    full: tuple[Grid, int],
    chosen: tuple[Chosen, torch.device],
    progress: Callable[[str, float], None],
) -> GlobalMatch:
    """The global affine, by the engine that aligns small pairs.

    Args:
        reference, moving: overviews.
        georef: full reference pixels -> full moving pixels.
        cfg: settings.
        full: the reference's grid, and its pixels per overview pixel.
        chosen: engine and device.
        progress: called with a stage's name and the share of the matching done.
    """
    grid, factor = full
    radius = search_radius(cfg, grid)
    scales = {"moving_scale": moving.scale, "reference_scale": reference.scale}
    settled = cfg.model_copy(update={**scales, "moving_bands": None, "reference_bands": None})
    between = compose(moving.to_full.inverse, georef, reference.to_full) if grid.is_georeferenced else georef
    longest = max(reference.raster.grid.shape)
    small = prepare(moving.raster, reference.raster, between, settled, longest=longest, radius_px=radius / factor)
    engine, device = chosen
    picked = engine.on(small.reference_mask.shape, small.moving_mask.shape)
    settings = replace(engine_settings(cfg, grid, radius), flow=None)
    torch.manual_seed(cfg.seed)
    pair = pair_tensors(small, device, (cfg.reference_modality, cfg.moving_modality))
    found = align(pair, small.starts, settings, progress, picked.network)
    # Georeferenced, both ends of a correction are reference pixels; else it leads to moving pixels.
    away = reference.to_full if grid.is_georeferenced else moving.to_full
    affine, expected = (
        away.after(small.affine_of(one)).after(reference.to_full.inverse) for one in (found.affine, small.starts[0])
    )
    return GlobalMatch(affine, expected, found.failure, () if picked is engine else picked.notes)


def _judge_scale(samples: Sequence[tuple[NDArray[Any], BoolArray]]) -> tuple[SarScale, str]:
    data = np.concatenate([part for part, _ in samples], axis=1)
    mask = np.concatenate([part for _, part in samples])
    return detect_scale(data, mask) if mask.any() else ("amplitude", "no valid value in the sample")
