"""The public calls. `register` reads like the story of the pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from somareg.config import RegisterConfig, RegisterOptions, Resampling, make_config
from somareg.io import from_array, read_estimate
from somareg.io.dataarray import is_dataarray, to_dataarray
from somareg.io.inputs import Image, Located, file_of, locate, told_modalities
from somareg.io.paths import check_folder_name
from somareg.register.choose import choose_device, choose_model, load_model
from somareg.register.images import open_images
from somareg.register.locate import likely_grounds
from somareg.register.plan import is_tiled, plan
from somareg.register.result import build_result
from somareg.register.slips import doubts_about
from somareg.register.tiled import Tiling, match_tiled
from somareg.register.tiles.layout import SceneCfg
from somareg.register.whole import match_whole
from somareg.register.workspace import open_workspace
from somareg.report.stac import need_pystac
from somareg.runtime.clock import Clock
from somareg.tiepoints.use import check_use, name_of, take_points
from somareg.types import Assessment, BoolArray, Estimate, Progress, Result, TiePoints, Verdict
from somareg.warp.engine import apply, apply_to_file
from somareg.warp.plan import Resolution

__all__ = ["Image", "SceneResult", "assess", "load_model", "plan", "register", "register_scene", "warp"]

ALIGNED_PX = 1.0  # `assess` calls a pair aligned below this RMS displacement
OUTPUTS = 0.8  # share of the work done when `register_scene` begins to write

SceneResult = Result
"""What `register_scene` returns."""


def register(
    moving: Image,
    reference: Image,
    *,
    moving_mask: BoolArray | None = None,
    reference_mask: BoolArray | None = None,
    workers: int | None = None,
    dask: Any = None,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> Result:
    """Estimate how `moving` must be warped to lie on `reference`, and how far to trust it.

    Images may have any size, and one may be much smaller than the other: only the ground that both can show is read.
    Where that is more than 4096 px long, it is matched in tiles, in bounded memory.

    Args:
        moving, reference: paths of rasters, or arrays (H, W) or (C, H, W) of any real or complex dtype; also STAC
            Items ("item.json#ASSET", pystac.Item, pystac.Asset) and xarray.DataArrays with rioxarray's georeference.
        moving_mask, reference_mask: (H, W) bool, True valid, on top of nodata; arrays only.
        workers, dask: who does the tiles, see `somareg.jobs.runner.open_runner`; this process one by one without.
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
    tiling = Tiling(workers=workers, dask=dask)
    return _register(images, cfg, (moving_mask, reference_mask), tie_points, tiling, progress or _quiet)


def register_into(
    moving: Image,
    reference: Image,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    stac: bool = False,
    workers: int | None = None,
    dask: Any = None,
    sizes: SceneCfg | None = None,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> Result:
    """Register a pair and write the outputs; where it is matched in tiles, finished ones survive a kill.

    Args:
        moving, reference: as for `register`.
        out: folder for the outputs; finished tiles are kept in it until they are written.
        resume: go on from the finished tiles of a run that was killed in this folder.
        overwrite: replace earlier outputs; without `resume` also begin an unfinished run anew.
        force: write aligned.tif even on no-go.
        stac: describe the outputs in a STAC Item.
        workers, dask, progress, **options: as for `register`.
        sizes: of tiles, overview and nodes.

    Returns:
        The result, with `folder`; the files that `Result.save` writes are there.

    Raises:
        OutputError: another run is at work in the folder, it holds something else or is called like a file, or it
            cannot be written.
        UnsupportedError: `stac` without pystac, or processes for an image in memory.
        SomaregError: as `register`.
    """
    check_folder_name(out)
    if stac:
        need_pystac()
    images = locate(moving, "moving"), locate(reference, "reference")
    told, tie_points = told_modalities(*images, options), options.get("tie_points")
    cfg = make_config({**options, **told, "tie_points": name_of(tie_points)})
    tell = progress or _quiet
    with open_workspace(Path(out), resume=resume, overwrite=overwrite) as workspace:
        tiling = Tiling(sizes or SceneCfg(), workers, dask, workspace)
        result = _register(
            images, cfg, (None, None), tie_points, tiling, lambda stage, share: tell(stage, OUTPUTS * share)
        )
        result.save(
            Path(out),
            overwrite=overwrite or workspace.is_claimed,  # nobody else writes into a folder that is locked
            force=force,
            stac=stac,
            progress=lambda stage, share: tell(stage, OUTPUTS + (1 - OUTPUTS) * share),
        )
    tell("done", 1.0)
    return result


def register_scene(moving: Image, reference: Image, out: str | Path, **arguments: Any) -> SceneResult:
    """`register_into` with `scene="always"`: in tiles whatever the size."""
    return register_into(moving, reference, out, **{**arguments, "scene": "always"})


def _quiet(stage: str, share: float) -> None:
    """Progress that nobody asked for."""


def _register(
    located: tuple[Located, Located],
    cfg: RegisterConfig,
    masks: tuple[BoolArray | None, BoolArray | None],
    tie_points: str | Path | TiePoints | None,
    tiling: Tiling,
    tell: Progress,
) -> Result:
    """The story of every pair, whatever its size and wherever it comes from; see `register`."""
    check_use(cfg)
    device = choose_device(cfg.device)
    chosen = choose_model(cfg, device)
    clock = Clock()
    tell("reading", 0.0)
    with open_images(*located, cfg, masks) as images:
        given = None
        if tie_points is not None:
            given = take_points(tie_points, images.reference.grid, images.moving.grid, images.georef)
        grounds = likely_grounds(images, cfg, given)
        slips = doubts_about(images, grounds[0], cfg)
        grounds = tuple(replace(ground, doubts=(*slips, *ground.doubts)) for ground in grounds)
        clock.lap("open")
        findings = None
        for ground in grounds:
            if is_tiled(cfg, ground, tiling.sizes):
                found = match_tiled(images, ground, cfg, (chosen, device), given, tiling, clock, tell)
            else:
                found = match_whole(images, ground, cfg, (chosen, device), given, clock, tell)
            if findings is None or found.support.probability > findings.support.probability:
                findings = found
            if findings.is_likely:
                break
        assert findings is not None  # there is one ground at least
        tell("judging", 0.98)
        settings = {**cfg.model_dump(mode="json"), "device_used": str(device), **findings.ran.settings}
        if (tiling.workers or tiling.dask) and not findings.tiles:
            findings = replace(findings, notes=(*findings.notes, "matched whole: there was nothing to share out"))
        result = build_result(images, findings, cfg, settings, clock, tiling.workspace.folder)
    tell("done", 1.0)
    return result


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
    metres = quality.metres.shift_before_m if quality.metres else None
    verdict = result.verdict
    if verdict.decision == "go":
        if rms <= ALIGNED_PX:
            reasons = (f"The images lie together to {rms:.2f} px RMS.", *verdict.reasons)
            verdict = Verdict("go", reasons, verdict.probability)
        else:
            reasons = (f"The images are {rms:.2f} px RMS apart; `somareg register` can align them.", *verdict.reasons)
            verdict = Verdict("review", reasons, verdict.probability)
    return Assessment(verdict, rms, metres, _mean_offset(result), result)


def _mean_offset(result: Result) -> tuple[float, float]:
    """Mean displacement (dx, dy) on the ground that both images can show, pixels."""
    previews = result.previews
    rows, columns = previews.reference.shape[:2]
    y, x = np.mgrid[0 : rows - 1 : 65j, 0 : columns - 1 : 65j]
    points = np.stack([x.ravel(), y.ravel()], axis=-1) * previews.step + previews.corner
    dx, dy = (result.correction(points) - points).mean(axis=0)
    return float(dx), float(dy)


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


def _estimate(known: Result | Estimate | str | Path) -> Estimate:
    if isinstance(known, Result):
        return known.estimate
    return known if isinstance(known, Estimate) else read_estimate(known)
