"""`register_scene` reads like the story of a scene: overview, tiles, model, verdict, outputs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Unpack

import torch

from somareg.choices import Chosen, choose_device, choose_model, search_radius
from somareg.config import RegisterConfig, RegisterOptions, make_config, to_mapping
from somareg.errors import EstimationError, OutputError, UnsupportedError
from somareg.io.atomic import check_free_space, check_writable, make_folder, remove_leftovers
from somareg.io.inputs import Image, locate, told_modalities
from somareg.io.lock import folder_lock
from somareg.io.raster import file_sha256
from somareg.io.source import open_source
from somareg.jobs.one import Outcome, Runner
from somareg.jobs.runner import open_runner
from somareg.quality.calibration import load_calibration
from somareg.report import OWNED
from somareg.report.stac import need_pystac
from somareg.runtime import memory
from somareg.runtime.clock import Clock
from somareg.runtime.version import __version__
from somareg.scene.inputs import ScenePair, open_pair, path_of
from somareg.scene.journal import Journal
from somareg.scene.layout import Layout, SceneCfg, lay_tiles
from somareg.scene.model import collect, fit_scene
from somareg.scene.outputs import write_outputs
from somareg.scene.overview import GlobalMatch, Overview, match_overviews, moving_part, read_overview
from somareg.scene.result import Found, SceneResult, assemble_scene
from somareg.scene.tile import TileJob, TileResult, TileSettings, match_tile, tile_settings
from somareg.types import Progress

__all__ = ["SceneResult", "plan_scene", "register_scene"]

WORK = ".somareg-scene"
JOURNAL = "journal"
OVERVIEW, TILES, MODEL, OUTPUTS = 0.02, 0.08, 0.78, 0.8  # share of the work done when each begins


def register_scene(
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
    scene: SceneCfg | None = None,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> SceneResult:
    """Register files of any size in bounded memory and write the outputs.

    The overview is matched whole; tiles around that give tie points; one robust model of affine and smooth
    displacement is fitted to all of them; the moving image is warped block by block.

    Args:
        moving, reference: paths of rasters or STAC Items ("item.json#ASSET").
        out: folder for the outputs; finished tiles are kept in it until they are written.
        resume: go on from the finished tiles of a run that was killed in this folder.
        overwrite: replace earlier outputs; without `resume` also begin an unfinished run anew.
        force: write aligned.tif even on no-go.
        stac: describe the outputs in a STAC Item.
        workers, dask: who does the tiles, see `somareg.jobs.runner.open_runner`; this process one by one without.
        scene: sizes of tiles, overview and nodes.
        progress: called with a stage's name and the share of work done, 0-1.
        **options: as for `somareg.register`, tie points excepted.

    Returns:
        What was found; the folder holds the same files as `Result.save` writes, with displacement.tif at nodes.

    Raises:
        OutputError: another run is at work in the folder, it holds something else, or it cannot be written.
        UnsupportedError: an image in memory, tie points, or `stac` without pystac.
        ConfigError, WeightsError, ReadError, InputError, NoDataError, GeoreferenceError, NoOverlapError, ClusterError:
            see `somareg.errors`.
    """
    if options.get("tie_points") is not None:
        raise UnsupportedError("tie points are not taken for scenes yet; use somareg.register (--scene never)")
    if stac:
        need_pystac()
    images = locate(moving, "moving"), locate(reference, "reference")
    cfg = make_config({**options, **told_modalities(*images, options)})
    sizes, folder = scene or SceneCfg(), Path(out)
    tell = progress or (lambda stage, share: None)
    clock = Clock()
    device = choose_device(cfg.device)
    chosen = choose_model(cfg, device)
    with open_pair(*images, cfg) as pair:
        _check_folder(folder, resume=resume, overwrite=overwrite)
        check_free_space(folder, _expected_bytes(pair))
        with folder_lock(folder / WORK):
            if not resume:
                (folder / WORK / JOURNAL).unlink(missing_ok=True)
            tell("checksums", 0.0)
            pair = _hashed(pair)
            with Journal(folder / WORK / JOURNAL, _binding(pair, cfg, sizes, chosen)) as journal:
                clock.lap("checksums")
                overviews, start = _look(pair, cfg, sizes, (chosen, device), journal, tell)
                clock.lap("overview")
                memory.release()
                layout = lay_tiles(pair.reference.header.grid.shape, sizes, sizes.tiles[cfg.preset])
                settings = tile_settings(pair, overviews, start, cfg, sizes, chosen, device)
                with open_runner(workers, dask) as runner:
                    tiles = _match_tiles(layout, settings, journal, runner, tell)
                clock.lap("tiles")
                memory.release()
            found = _fit(pair, overviews, start, tiles, layout, cfg, tell)
            clock.lap("model")
            memory.release()
            told = _told(found, cfg, chosen, device, layout)
            modalities = cfg.moving_modality, cfg.reference_modality
            result = assemble_scene(found, sizes.step_px, load_calibration(chosen.engine), modalities, told)
            clock.lap("judge")
            result = dataclasses.replace(result, timings=clock.laps)
            shares = {"reference": overviews[0].valid_share, "moving": overviews[1].valid_share}
            part = _within(tell, OUTPUTS, 1.0)
            write_outputs(result, shares, folder, sizes.step_px, part, force=force, stac=stac)
            clock.lap("write")
            shutil.rmtree(folder / WORK, ignore_errors=True)
    tell("done", 1.0)
    return SceneResult(
        folder=folder,
        transform=result.transform,
        correction=result.correction,
        affine=result.affine,
        displacement=result.displacement,
        tie_points=result.tie_points,
        quality=result.quality,
        verdict=result.verdict,
        tiles=tuple(tiles),
        reference=result.reference.grid,
        moving=result.moving.grid,
        settings=result.settings,
        notes=result.notes,
        timings=clock.laps,
    )


def plan_scene(reference: Image, preset: str = "base", scene: SceneCfg | None = None) -> dict[str, Any]:
    """What would be done with a reference of this size."""
    sizes = scene or SceneCfg()
    located = locate(reference, "reference")
    with open_source(path_of(located, "reference"), role="reference") as source:
        shape = source.grid.shape
    layout = lay_tiles(shape, sizes, sizes.tiles[preset])
    factor = sizes.factor(shape)
    return {
        "overview": f"{shape[1] // factor} x {shape[0] // factor} px (1/{factor} of the reference)",
        "tiles": f"{len(layout.blocks)} of {sizes.tile_px} px, {layout.spacing:.0f} px apart",
        "displacement_every_px": sizes.step_px,
    }


def _look(
    pair: ScenePair,
    cfg: RegisterConfig,
    sizes: SceneCfg,
    engine: tuple[Chosen, torch.device],
    journal: Journal,
    tell: Progress,
) -> tuple[tuple[Overview, Overview], GlobalMatch]:
    """Overviews of reference and moving, and the global affine; that comes from the journal where it is known."""
    tell("reading overview", OVERVIEW)
    grid, away = pair.reference.header.grid, pair.moving.header.grid
    factor, part = sizes.factor(grid.shape), None
    factor_away = factor = factor if grid.is_georeferenced else max(factor, sizes.factor(away.shape))
    if grid.is_georeferenced:
        factor_away, part = moving_part(pair.georef, grid, away, search_radius(cfg, grid), factor)
    fixed = read_overview(
        pair.reference.source, factor, cfg.reference_bands, cfg.reference_modality, cfg.reference_scale, grid
    )
    moved = read_overview(
        pair.moving.source, factor_away, cfg.moving_bands, cfg.moving_modality, cfg.moving_scale, away, part
    )
    if "global" not in journal.facts:
        found = match_overviews(
            fixed, moved, pair.georef, cfg, (grid, factor), engine, _within(tell, OVERVIEW + 0.01, TILES)
        )
        journal.note("global", found.as_json())
    return (fixed, moved), GlobalMatch.from_json(journal.facts["global"])


def _match_tiles(
    layout: Layout, settings: TileSettings, journal: Journal, runner: Runner, tell: Progress
) -> list[TileResult]:
    """All tiles, those that the journal does not hold done by the runner; a failed one is recorded and tried again
    when the run is resumed.
    """
    kept = {index: tile for index, tile in journal.tiles.items() if tile.status != "failed"}
    todo = [TileJob(i, block, settings) for i, block in enumerate(layout.blocks) if i not in kept]
    tell(f"tile {len(kept)}/{len(layout.blocks)}", TILES)
    for number, outcome in runner.run(match_tile, todo):
        tile = _tile_of(todo[number], outcome)
        kept[tile.index] = tile
        journal.keep(tile)
        share = len(kept) / len(layout.blocks)
        tell(f"tile {len(kept)}/{len(layout.blocks)}", TILES + (MODEL - TILES) * share)
    return [kept[index] for index in sorted(kept)]


def _tile_of(job: TileJob, outcome: Outcome[TileResult]) -> TileResult:
    if outcome.value is not None:
        return outcome.value
    failure = outcome.failure
    reason = "no answer" if failure is None else f"{failure.kind}: {failure.message}"
    return TileResult(job.index, "failed", reason)


def _fit(
    pair: ScenePair,
    overviews: tuple[Overview, Overview],
    start: GlobalMatch,
    tiles: list[TileResult],
    layout: Layout,
    cfg: RegisterConfig,
    tell: Progress,
) -> Found:
    tell("scene model", MODEL)
    ties = collect(tiles)
    try:
        if start.failure:
            raise EstimationError(start.failure)
        model = fit_scene(ties, layout, pair.reference.header.grid.shape, local=cfg.local)
    except EstimationError as error:
        return Found(pair, overviews, start, tiles, ties, None, str(error))
    return Found(pair, overviews, start, tiles, ties, model)


def _told(
    found: Found, cfg: RegisterConfig, chosen: Chosen, device: torch.device, layout: Layout
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings and notes of the result."""
    settings = {**cfg.model_dump(mode="json"), "device_used": str(device), **chosen.settings, "scene": True}
    states = [tile.status for tile in found.tiles]
    text = f"matched as a scene: {len(states)} tiles of {layout.blocks[0].width} px, {layout.spacing:.0f} px apart"
    counts = {state: states.count(state) for state in ("empty", "failed") if state in states}
    notes = [text + "".join(f", {count} {state}" for state, count in counts.items())]
    notes.append("the predicted error is measured on tiles that the model had not seen")
    failed = next((tile for tile in found.tiles if tile.status == "failed"), None)
    if failed:
        notes.append(f"first failed tile: number {failed.index}, {failed.reason}")
    images = found.pair.moving.header.notes, found.pair.reference.header.notes
    seen = [note for view in found.overviews[::-1] for note in view.notes]
    return settings, (*images[0], *images[1], *seen, *notes, *chosen.notes, *found.start.notes)


def _check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Find out before work starts whether the outputs can be written."""
    if folder.is_dir():
        remove_leftovers(folder)
    others = folder.is_dir() and any(entry.name != WORK for entry in folder.iterdir())
    check_writable(folder, overwrite=overwrite or not others, owned=OWNED)
    if (folder / WORK / JOURNAL).is_file() and not (resume or overwrite):
        raise OutputError(
            f"output folder {folder} holds an unfinished run; go on with --resume or begin anew with --overwrite"
        )
    make_folder(folder)


def _binding(pair: ScenePair, cfg: RegisterConfig, sizes: SceneCfg, chosen: Chosen) -> dict[str, Any]:
    """What finished tiles depend on; the device and what only shapes outputs may change."""
    return {
        "somareg": __version__,
        "moving": pair.moving.header.sha256,
        "reference": pair.reference.header.sha256,
        "options": cfg.model_dump(mode="json", exclude={"device", "resampling", "local", "max_pixels"}),
        "scene": to_mapping(sizes),
        "weights": chosen.settings["model_sha256"],
    }


def _hashed(pair: ScenePair) -> ScenePair:
    """The pair with the checksums of its files."""
    images = [
        dataclasses.replace(image, header=dataclasses.replace(image.header, sha256=file_sha256(image.path)))
        for image in (pair.moving, pair.reference)
    ]
    return dataclasses.replace(pair, moving=images[0], reference=images[1])


def _expected_bytes(pair: ScenePair) -> int:
    """A generous guess of what will be written."""
    grid, moving = pair.reference.header.grid, pair.moving.header
    return grid.width * grid.height * len(moving.data) * moving.data.dtype.itemsize + 50_000_000


def _within(tell: Progress, start: float, end: float) -> Progress:
    """Progress of a part as progress of the whole."""
    return lambda stage, share: tell(stage, start + (end - start) * share)
