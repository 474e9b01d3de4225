"""The public calls. `register` reads like the story of the pipeline."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.assemble import build_result
from somareg.choices import (
    LONGEST,
    WEIGHT_FREE,
    check_sides,
    choose_device,
    engine_settings,
    few_threads,
    load_model,
    pair_tensors,
    search_radius,
)
from somareg.config import RegisterConfig, Resampling, make_config
from somareg.errors import ConfigError
from somareg.io import (
    assume_crs,
    check_overlap,
    from_array,
    georeference,
    read_estimate,
    read_raster,
)
from somareg.io.source import open_source
from somareg.matching.engine import align
from somareg.preprocess.prepare import prepare
from somareg.types import (
    Assessment,
    BoolArray,
    Estimate,
    Grid,
    Raster,
    Result,
    Transform,
    Verdict,
)
from somareg.warp.engine import apply, apply_to_file
from somareg.warp.plan import Resolution

__all__ = ["Image", "assess", "load_model", "plan", "register", "warp"]

log = logging.getLogger("somareg")

Image = str | Path | NDArray[Any] | Raster
Progress = Callable[[str, float], None]

ALIGNED_PX = 1.0  # `assess` calls a pair aligned below this RMS displacement


def register(
    moving: Image,
    reference: Image,
    *,
    moving_modality: str = "sar",
    reference_modality: str = "optical",
    model: str = "auto",
    preset: str = "base",
    search: str = "auto",
    device: str = "auto",
    seed: int = 0,
    moving_mask: BoolArray | None = None,
    reference_mask: BoolArray | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Estimate how `moving` must be warped to lie on `reference`, and how far to trust it.

    Args:
        moving, reference: paths of rasters, or arrays (H, W) or (C, H, W) of any real or complex dtype.
        moving_modality, reference_modality: "sar", "optical" or "other".
        model: "orientation" (weight-free), the name of weights that ship, or the path of a `.safetensors` file that
            `somareg export` made; "auto" picks the best that ships.
        preset: "fast", "base" or "precise".
        search: "local" (nearly aligned), "auto" (trusts georeferences; without them +-22 deg, scale 0.78-1.28,
            +-14 % shift) or "full" (any rotation, scale 0.68-1.45).
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        seed: of everything random.
        moving_mask, reference_mask: (H, W) bool, True valid, on top of nodata; arrays only.
        progress: called with a stage's name and the share of work done, 0-1.
        **options: any other field of `somareg.config.RegisterConfig`.

    Returns:
        The result; nothing is written until `Result.save`.

    Raises:
        ConfigError: unknown option or value.
        ReadError, InputError, NoDataError, GeoreferenceError, NoOverlapError, UnsupportedError: see `somareg.errors`.
    """
    cfg = make_config(
        {
            "moving_modality": moving_modality,
            "reference_modality": reference_modality,
            "model": model,
            "preset": preset,
            "search": search,
            "device": device,
            "seed": seed,
            **options,
        }
    )
    where = choose_device(cfg.device)
    network = load_model(cfg.model, device=str(where))
    tell = progress or (lambda stage, share: None)
    clock = _Clock()
    tell("reading", 0.0)
    moved = _read(moving, "moving", cfg.moving_nodata, moving_mask, cfg)
    fixed = _read(reference, "reference", cfg.reference_nodata, reference_mask, cfg)
    georef = _join(fixed, moved)
    clock.lap("read")
    radius = search_radius(cfg, fixed.grid)
    prepared = prepare(moved, fixed, georef, cfg, longest=LONGEST[cfg.preset], radius_px=radius)
    clock.lap("prepare")
    torch.manual_seed(cfg.seed)
    pair = pair_tensors(prepared, where, (cfg.reference_modality, cfg.moving_modality))
    if network is not None:
        check_sides(pair)
    with few_threads(prepared):
        alignment = align(pair, prepared.starts, engine_settings(cfg, fixed.grid, radius), tell, network)
    clock.lap("match")
    tell("judging", 0.92)
    result = build_result(cfg, fixed, moved, georef, prepared, alignment)
    clock.lap("judge")
    tell("done", 1.0)
    used = WEIGHT_FREE if network is None else cfg.model
    settings = {**result.settings, "device_used": str(where), "model_used": used}
    return replace(result, timings=clock.laps, settings=settings)


def assess(moving: Image, reference: Image, **options: Any) -> Assessment:
    """Judge how well a pair lies together as it stands, without changing anything.

    Args:
        moving, reference, **options: as for `register`.

    Returns:
        "go" when the measurement is trusted and the displacement is below 1 px RMS, "review" when it is trusted and
        the pair is off, or when it is not sure, "no-go" when there is no sign of common ground.
    """
    result = register(moving, reference, **options)
    quality = result.quality
    rms = quality.shift_before_px
    metres = None if quality.metres_per_pixel is None else rms * quality.metres_per_pixel
    mean = result.displacement.array.reshape(2, -1).mean(1)
    verdict = result.verdict
    if verdict.decision == "go":
        if rms <= ALIGNED_PX:
            reasons = (f"The images lie together to {rms:.2f} px RMS.", *verdict.reasons)
            verdict = Verdict("go", reasons, verdict.probability)
        else:
            reasons = (f"The images are {rms:.2f} px RMS apart; `somareg register` can align them.", *verdict.reasons)
            verdict = Verdict("review", reasons, verdict.probability)
    return Assessment(verdict, rms, metres, (float(mean[0]), float(mean[1])), result)


def warp(
    raster: Image,
    estimate: Result | Estimate | str | Path,
    out: str | Path | None = None,
    *,
    resampling: Resampling = "cubic",
    resolution: Resolution = "reference",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Raster | Path:
    """Apply an estimate to any raster of the moving image's ground: other bands, other pixel sizes, masks.

    Args:
        raster: path, array (of the moving image's size or the same proportions) or Raster.
        estimate: a `Result`, an `Estimate`, or the path of a displacement.tif, report.json or output folder.
        out: GeoTIFF to write; None returns the warped raster.
        resampling: "nearest" for masks and classes, "bilinear" or "cubic".
        resolution: "reference" for the reference grid, "native" for its extent at the raster's own pixel size.
        overwrite: replace an existing file.
        progress: called with a stage's name and the share of work done.

    Returns:
        The path written, or the raster when `out` is None.
    """
    known = _estimate(estimate)
    subject = from_array(raster, role="raster") if isinstance(raster, np.ndarray) else raster
    if out is None:
        return apply(subject, known, resampling=resampling, resolution=resolution)
    return apply_to_file(
        subject, known, out, resampling=resampling, resolution=resolution, overwrite=overwrite, progress=progress
    )


def plan(moving: str | Path, reference: str | Path, **options: Any) -> dict[str, Any]:
    """What `register` would do with two files; only headers are read."""
    cfg = make_config(options)
    described: dict[str, Any] = {}
    grids: dict[str, Grid] = {}
    for role, path in (("moving", moving), ("reference", reference)):
        with open_source(path, role=role) as source:
            grids[role] = source.grid
            described[role] = {
                "file": str(path),
                "size": f"{source.grid.width} x {source.grid.height} px",
                "bands": source.count,
                "dtype": str(source.dtype),
                "georeferenced": source.grid.is_georeferenced,
            }
    factor = max(1, math.ceil(max(grids["reference"].shape) / LONGEST[cfg.preset]))
    working = [side // factor for side in reversed(grids["reference"].shape)]
    pixels = working[0] * working[1]
    full = grids["reference"].width * grids["reference"].height
    radius = search_radius(cfg, grids["reference"]) if grids["reference"].is_georeferenced else None
    return {
        **described,
        "search": cfg.search,
        "search_radius_px": None if radius is None else round(radius, 1),
        "working_size": f"{working[0]} x {working[1]} px (1/{factor} of the reference)",
        "memory_mb": round((pixels * 400 + full * 40) / 1e6),
        "model": cfg.model if load_model(cfg.model) is not None else WEIGHT_FREE,
        "device": str(choose_device(cfg.device)),
        "outputs": list(_OUTPUT_NAMES),
    }


_OUTPUT_NAMES = ("aligned.tif", "displacement.tif", "tie_points.geojson", "gcps.points", "report.json", "report.html")


def _read(image: Image, role: str, nodata: float | None, mask: BoolArray | None, cfg: RegisterConfig) -> Raster:
    if isinstance(image, Raster):
        raster = image
    elif isinstance(image, np.ndarray):
        raster = from_array(image, mask=mask, role=role, nodata=nodata)
    else:
        if mask is not None:
            raise ConfigError(f"{role}_mask goes with arrays; a file carries its own mask or nodata value")
        raster = read_raster(image, role=role, nodata=nodata, max_pixels=cfg.max_pixels)
    return assume_crs(raster, cfg.assume_crs) if cfg.assume_crs and raster.grid.crs is None else raster


def _join(reference: Raster, moving: Raster) -> Transform:
    names = reference.name, moving.name
    georef = georeference(reference.grid, moving.grid, names)
    if reference.grid.is_georeferenced:
        check_overlap(reference.grid, moving.grid, names)
    return georef


def _estimate(known: Result | Estimate | str | Path) -> Estimate:
    if isinstance(known, Result):
        return known.estimate
    return known if isinstance(known, Estimate) else read_estimate(known)


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: Mapping[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps = {**self.laps, name: round(now - self._last, 4)}
        self._last = now
