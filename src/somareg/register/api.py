"""The public functions; `_register` shows the whole pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from somareg.config import RegisterConfig, make_config
from somareg.config.arguments import RegisterOptions
from somareg.errors import guarded
from somareg.io.inputs import Image, Located, file_of, locate, told_modalities
from somareg.io.masks import check_mask_values, classes_of_array
from somareg.io.paths import check_folder_name, split, whole_path
from somareg.quality import judge_as_it_stands
from somareg.register.apply import warp
from somareg.register.candidates import match_candidates
from somareg.register.choose import check_demands, choose_device, choose_model, load_model
from somareg.register.images import open_images
from somareg.register.plan import plan
from somareg.register.result import build_result
from somareg.register.save import save, spare_inputs
from somareg.register.tiled import Tiling
from somareg.register.tiles.layout import SceneCfg
from somareg.register.workspace import open_workspace
from somareg.report.names import check_reports
from somareg.report.stac import need_pystac
from somareg.runtime.clock import Clock
from somareg.runtime.threads import few_threads
from somareg.tiepoints.use import check_use, name_of, take_points
from somareg.types import IN_MEMORY, MOVING_PART, Assessment, BoolArray, Progress, Reports, Result, TiePoints

__all__ = ["Image", "SceneResult", "assess", "load_model", "plan", "register", "register_scene", "warp"]

OUTPUTS = 0.8  # share of the work done when `register_into` begins to write

SceneResult = Result
"""The type that `register_scene` returns."""


@guarded
def register(
    moving: Image,
    reference: Image,
    *,
    workers: int | None = None,
    dask: Any = None,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> Result:
    """Estimate the warp that aligns `moving` with `reference`, and judge how reliable it is.

    Images may have any size, and one may be much smaller than the other: only the common ground is read.
    A common ground longer than 4096 px is matched in tiles, in bounded memory.

    Args:
        moving, reference: paths of rasters, or arrays (H, W) or (C, H, W) of any real or complex dtype; also STAC
            Items ("item.json#ASSET", pystac.Item, pystac.Asset) and xarray.DataArrays with rioxarray's georeference.
        workers, dask: processes for the tiles, see `somareg.jobs.runner.open_runner`; by default this process.
        progress: called with a stage's name and the share of work done, 0-1.
        **options: preset, search, model, modalities, bands, tie points ...: the fields of
            `somareg.config.RegisterConfig`, each described there and in `docs/api.md`. `tie_points` may be points in
            pixels of both images as well as a file, `moving_mask` and `reference_mask` for images in memory (H, W) not
            zero where valid, on top of nodata.

    Returns:
        The result; nothing is written until `Result.save`. Its `settings` name the model that ran: `model_used`, and
        `model_version` and `model_sha256` from the card of its weights; `dinov2_used` and `dinov2_sha256` name the
        frozen encoder that it needed, None for most.

    Raises:
        ConfigError: unknown option or value.
        WeightsError: a model that is damaged, unfit or not in this installation.
        ReadError, InputError, NoDataError, GeoreferenceError, NoOverlapError, UnsupportedError: see `somareg.errors`.
        MemoryLimitError: `max_memory` is too small; nothing is read.
    """
    images = locate(moving, "moving"), locate(reference, "reference")
    return _register(images, _asked(images, options), Tiling(workers=workers, dask=dask), progress or _quiet)


@guarded
def register_into(
    moving: Image,
    reference: Image,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    stac: bool = False,
    reports: Reports = "all",
    workers: int | None = None,
    dask: Any = None,
    sizes: SceneCfg | None = None,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> Result:
    """Register a pair and write the outputs; finished tiles survive a kill.

    Args:
        moving, reference: as for `register`.
        out: folder for the outputs, which also keeps finished tiles until the outputs are written.
        resume: continue from the finished tiles of a killed run in this folder.
        overwrite: replace earlier outputs; without `resume` also restart an unfinished run.
        force: write aligned.tif even on no-go.
        stac: describe the outputs in a STAC Item.
        reports: "problems" leaves `report.html` out where the verdict is *go*, "none" always.
        workers, dask, progress, **options: as for `register`.
        sizes: of tiles, overview and nodes.

    Returns:
        The result, with `folder`; the files that `Result.save` writes are there.

    Raises:
        OutputError: another run uses the folder, it has other content or is named like a file, or it
            cannot be written.
        UnsupportedError: `stac` without pystac, or processes for an image in memory.
        SomaregError: as `register`.
    """
    check_folder_name(out)
    check_reports(reports)
    if stac:
        need_pystac()
    images = locate(moving, "moving"), locate(reference, "reference")
    task = _asked(images, options)
    tell = progress or _quiet
    spare_inputs(Path(out), _files_of((moving, reference), images), task.cfg.model_dump())
    with open_workspace(Path(out), resume=resume, overwrite=overwrite) as workspace:
        tiling = Tiling(sizes or SceneCfg(), workers, dask, workspace)
        result = _register(images, task, tiling, lambda stage, share: tell(stage, OUTPUTS * share))
        save(
            result,
            Path(out),
            overwrite=overwrite,
            force=force,
            stac=stac,
            reports=reports,
            progress=lambda stage, share: tell(stage, OUTPUTS + (1 - OUTPUTS) * share),
            lock=workspace.lock,
            beside=workspace.beside,
        )
    tell("done", 1.0)
    return result


@guarded
def register_scene(moving: Image, reference: Image, out: str | Path, **arguments: Any) -> SceneResult:
    """`register_into` with `scene="always"`: in tiles whatever the size."""
    return register_into(moving, reference, out, **{**arguments, "scene": "always"})


def _files_of(images: tuple[Image, Image], located: tuple[Located, Located]) -> dict[str, str | Path | None]:
    """Both images' files, and the STAC Items that were given for them."""
    files: dict[str, str | Path | None] = {}
    for role, image, place in zip(("moving image", "reference image"), images, located, strict=True):
        item = str(image).partition("#")[0] if isinstance(image, str | Path) else None
        files |= {role: file_of(place), f"STAC Item of the {role}": item}
    return files


def _quiet(stage: str, share: float) -> None:
    """Progress callback that does nothing."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """The user's options.

    Attributes:
        cfg: settings.
        tie_points: of the user.
        masks: (H, W) of moving and reference in memory, True where valid.
        record: entries of the result's settings that replace those of `cfg`.
    """

    cfg: RegisterConfig
    tie_points: str | Path | TiePoints | None
    masks: tuple[BoolArray | None, BoolArray | None]
    record: Mapping[str, Any]


def _asked(located: tuple[Located, Located], options: Mapping[str, Any]) -> _Asked:
    """Split options into recordable settings and values in memory."""
    points = options.get("tie_points")
    arrays = {}
    for name in ("moving_mask", "reference_mask"):
        mask = options.get(name)
        check_mask_values(mask, options.get(f"{name}_values"), f"{name}_values")
        if mask is not None and not isinstance(mask, str | Path):
            arrays[name] = mask
    settings = {**options, **told_modalities(*located, options), "tie_points": name_of(points)}
    cfg = make_config({**settings, **dict.fromkeys(arrays)})
    masks = [
        classes_of_array(np.asarray(arrays[name]), getattr(cfg, f"{name}_values")) if name in arrays else None
        for name in ("moving_mask", "reference_mask")
    ]
    record = dict.fromkeys(arrays, IN_MEMORY) | {f"{name}_values": getattr(cfg, f"{name}_values") for name in arrays}
    update: dict[str, Any] = {f"{name}_values": None for name in arrays}
    files = {name: getattr(cfg, name) for name in ("moving_mask", "reference_mask")}
    if cfg.dinov2 is not None and Path(cfg.dinov2).expanduser().is_dir():  # else a name of the hub
        update["dinov2"] = whole_path(cfg.dinov2)
    update |= {name: whole_path(file) for name, file in files.items() if file is not None}
    return _Asked(cfg.model_copy(update=update), points, (masks[0], masks[1]), record)


def _register(located: tuple[Located, Located], task: _Asked, tiling: Tiling, tell: Progress) -> Result:
    """The pipeline of every pair, of any size and source; see `register`."""
    cfg, tie_points = task.cfg, task.tie_points
    check_use(cfg)
    device = choose_device(cfg.device)
    model = choose_model(cfg, device)
    clock = Clock()
    tell("reading", 0.0)
    with few_threads(), open_images(*located, cfg, task.masks) as images:
        check_demands(cfg, images.reference.grid)
        seed = None
        if tie_points is not None:
            seed = take_points(tie_points, images.reference.grid, images.moving.grid, images.georef)
        findings = match_candidates(images, cfg, (model, device), seed, tiling, clock, tell)
        tell("judging", 0.98)
        settings = {**cfg.model_dump(mode="json"), **task.record, "device_used": str(device), **findings.ran.settings}
        if part := split(images.moving.facts.path or "")[1]:
            settings[MOVING_PART] = part
        if (tiling.workers or tiling.dask) and not findings.tiles:
            findings = replace(
                findings, notes=(*findings.notes, "matched whole: there are no tiles for other processes")
            )
        result = build_result(images, findings, cfg, settings, clock, tiling.workspace.folder)
    tell("done", 1.0)
    return result


class RegisterArguments(RegisterOptions, total=False):
    """All keyword arguments of `register`: its options, and arguments that are no settings."""

    progress: Progress | None


@guarded
def assess(moving: Image, reference: Image, **arguments: Unpack[RegisterArguments]) -> Assessment:
    """Judge how well a pair is aligned as it is, without changing anything.

    Args:
        moving, reference, **arguments: as for `register`.

    Returns:
        "go" when the measurement is trusted, its own expected error is at most 1 px, and so is the RMS displacement;
        "review" when it is trusted and the pair is off, or when it is not sure or not exact enough to tell;
        "no-go" when there is no sign of common ground.
    """
    result = register(moving, reference, **arguments)
    quality = result.quality
    metres = quality.metres.shift_before_m if quality.metres else None
    verdict = judge_as_it_stands(result.verdict, quality)
    return Assessment(verdict, quality.shift_before_px, metres, _mean_offset(result), result)


def _mean_offset(result: Result) -> tuple[float, float]:
    """Mean displacement (dx, dy) on the common ground, pixels."""
    previews = result.previews
    rows, columns = previews.reference.shape[:2]
    y, x = np.mgrid[0 : rows - 1 : 65j, 0 : columns - 1 : 65j]
    points = np.stack([x.ravel(), y.ravel()], axis=-1) * previews.step + previews.corner
    dx, dy = (result.correction(points) - points).mean(axis=0)
    return float(dx), float(dy)
