"""The public calls. `register` reads like the story of the pipeline."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from somareg.assemble import build_result
from somareg.choices import (
    LONGEST,
    choose_device,
    choose_model,
    engine_settings,
    load_model,
    pair_tensors,
    search_radius,
)
from somareg.config import RegisterConfig, RegisterOptions, Resampling, make_config
from somareg.io import (
    assume_crs,
    check_overlap,
    from_array,
    georeference,
    read_estimate,
)
from somareg.io.dataarray import is_dataarray, to_dataarray
from somareg.io.inputs import Image, Located, file_of, locate, read_image, told_modalities
from somareg.io.source import open_source
from somareg.matching.engine import align
from somareg.preprocess.prepare import prepare
from somareg.report import OUTPUTS
from somareg.runtime.clock import Clock
from somareg.runtime.threads import few_threads
from somareg.tiepoints.align import align_given
from somareg.tiepoints.use import check_use, name_of, reach_px, take_points
from somareg.types import (
    Assessment,
    BoolArray,
    Estimate,
    Grid,
    Progress,
    Raster,
    Result,
    Transform,
    Verdict,
)
from somareg.warp.engine import apply, apply_to_file
from somareg.warp.plan import Resolution

__all__ = ["Image", "assess", "load_model", "plan", "register", "warp"]

log = logging.getLogger("somareg")

ALIGNED_PX = 1.0  # `assess` calls a pair aligned below this RMS displacement


def register(
    moving: Image,
    reference: Image,
    *,
    moving_mask: BoolArray | None = None,
    reference_mask: BoolArray | None = None,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> Result:
    """Estimate how `moving` must be warped to lie on `reference`, and how far to trust it.

    Args:
        moving, reference: paths of rasters, or arrays (H, W) or (C, H, W) of any real or complex dtype; also STAC
            Items ("item.json#ASSET", pystac.Item, pystac.Asset) and xarray.DataArrays with rioxarray's georeference.
        moving_mask, reference_mask: (H, W) bool, True valid, on top of nodata; arrays only.
        progress: called with a stage's name and the share of work done, 0-1.
        **options: preset, search, model, modalities, bands, tie points ...: the fields of
            `somareg.config.RegisterConfig`, each described there and in `docs/api.md`. `tie_points` may be points in
            pixels of both images as well as a file.

    Returns:
        The result; nothing is written until `Result.save`. Its `settings` tell the model that ran: `model_used`, and
        `model_version` and `model_sha256` from the card of its weights.

    Raises:
        ConfigError: unknown option or value.
        WeightsError: a model that is damaged, unfit or not in this installation.
        ReadError, InputError, NoDataError, GeoreferenceError, NoOverlapError, UnsupportedError: see `somareg.errors`.
    """
    images = locate(moving, "moving"), locate(reference, "reference")
    tie_points = options.get("tie_points")
    cfg = make_config({**options, **told_modalities(*images, options), "tie_points": name_of(tie_points)})
    check_use(cfg)
    where = choose_device(cfg.device)
    chosen = choose_model(cfg, where)
    tell = progress or (lambda stage, share: None)
    clock = Clock()
    tell("reading", 0.0)
    moved = _read(images[0], "moving", moving_mask, cfg)
    fixed = _read(images[1], "reference", reference_mask, cfg)
    georef = _join(fixed, moved)
    clock.lap("read")
    given = None if tie_points is None else take_points(tie_points, fixed, moved, georef)
    radius = search_radius(cfg, fixed.grid)
    reach = radius + (reach_px(given.affine, fixed.grid.shape) if given else 0.0)
    prepared = prepare(moved, fixed, georef, cfg, longest=LONGEST[cfg.preset], radius_px=reach)
    prepared = given.as_start(prepared) if given else prepared
    clock.lap("prepare")
    torch.manual_seed(cfg.seed)
    pair = pair_tensors(prepared, where, (cfg.reference_modality, cfg.moving_modality))
    chosen = chosen.on(prepared.reference_mask.shape, prepared.moving_mask.shape)
    engine = engine_settings(cfg, fixed.grid, radius)
    with few_threads(max(prepared.reference_mask.shape)) as cores:
        if given and cfg.tie_points_use == "replace":
            alignment = align_given(pair, prepared.starts[0], given.at_work(prepared), engine, tell)
        else:
            alignment = align(pair, prepared.starts, engine, tell, chosen.network, cores)
    clock.lap("match")
    tell("judging", 0.92)
    result = build_result(cfg, fixed, moved, georef, prepared, alignment, chosen.engine)
    clock.lap("judge")
    tell("done", 1.0)
    settings = {**result.settings, "device_used": str(where), **chosen.settings}
    notes = (*result.notes, *chosen.notes, *(given.told(alignment, cfg) if given else ()))
    return replace(result, timings=clock.laps, settings=settings, notes=notes)


class RegisterArguments(RegisterOptions, total=False):
    """Everything that `register` takes beside the two images: its options, and what is no setting."""

    moving_mask: BoolArray | None
    reference_mask: BoolArray | None
    progress: Progress | None


def assess(moving: Image, reference: Image, **arguments: Unpack[RegisterArguments]) -> Assessment:
    """Judge how well a pair lies together as it stands, without changing anything.

    Args:
        moving, reference, **arguments: as for `register`.

    Returns:
        "go" when the measurement is trusted and the displacement is below 1 px RMS, "review" when it is trusted and
        the pair is off, or when it is not sure, "no-go" when there is no sign of common ground.
    """
    result = register(moving, reference, **arguments)
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
) -> Any:
    """Apply an estimate to any raster of the moving image's ground: other bands, other pixel sizes, masks.

    Args:
        raster: path, array (of the moving image's size or the same proportions), Raster, STAC Item or DataArray; of a
            Dask array only the chunks that are needed are computed.
        estimate: a `Result`, an `Estimate`, or the path of a displacement.tif, report.json or output folder, or of a
            shift raster (see `somareg.io.shifts`).
        out: GeoTIFF to write; None returns the warped raster.
        resampling: "nearest" for masks and classes, "bilinear" or "cubic".
        resolution: "reference" for the reference grid, "native" for its extent at the raster's own pixel size.
        overwrite: replace an existing file.
        progress: called with a stage's name and the share of work done.

    Returns:
        The path written; when `out` is None the warped Raster, or for a DataArray the warped DataArray.
    """
    known = _estimate(estimate)
    located: Any = locate(raster, "input")
    subject = file_of(located) or located
    if isinstance(subject, np.ndarray):
        subject = from_array(subject, role="raster")
    if out is None:
        warped = apply(subject, known, resampling=resampling, resolution=resolution)
        if not is_dataarray(subject):
            return warped
        like = estimate.reference.origin if isinstance(estimate, Result) and resolution == "reference" else None
        return to_dataarray(warped, like=like, name=str(subject.name) if subject.name else None)
    return apply_to_file(
        subject, known, out, resampling=resampling, resolution=resolution, overwrite=overwrite, progress=progress
    )


def plan(moving: str | Path, reference: str | Path, **options: Unpack[RegisterOptions]) -> dict[str, Any]:
    """What `register` would do with two files or STAC Items; only headers are read."""
    images = locate(moving, "moving"), locate(reference, "reference")
    cfg = make_config({**options, **told_modalities(*images, options)})
    check_use(cfg)
    described: dict[str, Any] = {}
    grids: dict[str, Grid] = {}
    for role, image in zip(("moving", "reference"), images, strict=True):
        path: Any = file_of(image)
        with open_source(path, role=role) as source:
            grids[role] = source.grid
            described[role] = {
                "file": str(path),
                "size": f"{source.grid.width} x {source.grid.height} px",
                "bands": source.count,
                "dtype": str(source.dtype),
                "georeferenced": source.grid.is_georeferenced,
            }
    fixed, moved = grids["reference"], grids["moving"]
    factor = max(1, math.ceil(max(fixed.shape) / LONGEST[cfg.preset]))
    working = fixed.height // factor, fixed.width // factor
    pixels = working[0] * working[1]
    full = fixed.width * fixed.height
    radius = search_radius(cfg, fixed) if fixed.is_georeferenced else None
    device = choose_device(cfg.device)
    # Georeferenced, the moving image is brought to the reference's grid and more.
    away = working if fixed.is_georeferenced else (moved.height // factor, moved.width // factor)
    chosen = choose_model(cfg, device).on(working, away)
    return {
        **described,
        **({"tie_points": f"{cfg.tie_points} ({cfg.tie_points_use})"} if cfg.tie_points else {}),
        "search": cfg.search,
        "search_radius_px": None if radius is None else round(radius, 1),
        "working_size": f"{working[1]} x {working[0]} px (1/{factor} of the reference)",
        "memory_mb": round((pixels * 400 + full * 40) / 1e6),
        "model": chosen.name,
        **({"notes": list(chosen.notes)} if chosen.notes else {}),
        "device": str(device),
        "outputs": list(OUTPUTS),
    }


def _read(image: Located, role: str, mask: BoolArray | None, cfg: RegisterConfig) -> Raster:
    raster = read_image(image, role, mask, cfg)
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
