"""Match a pair in tiles, in bounded memory: overview, tiles, one smooth model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from somareg.config import RegisterConfig, to_mapping
from somareg.errors import UnsupportedError
from somareg.geometry import AffineTransform, FieldTransform
from somareg.geometry.field import LatticeValues
from somareg.io.masks import mask_file
from somareg.io.raster import file_sha256
from somareg.jobs.runner import open_runner
from somareg.matching.engine import RIVAL_SHARE
from somareg.matching.posterior import FLOOR_PX2
from somareg.quality import load_calibration
from somareg.register.choose import Chosen
from somareg.register.findings import Findings, Matches
from somareg.register.ground import Ground
from somareg.register.images import Images
from somareg.register.tiles.job import tile_settings
from somareg.register.tiles.layout import Layout, SceneCfg, lay_tiles
from somareg.register.tiles.model import SceneModel, field_on_nodes
from somareg.register.tiles.overview import GlobalMatch, Overview, factors, match_overviews, read_overview
from somareg.register.tiles.rounds import Aim, Rounds, match_in_rounds
from somareg.register.tiles.ties import Ties
from somareg.register.tiles.votes import count_votes, support_of_tiles
from somareg.register.workspace import Workspace
from somareg.runtime import memory
from somareg.runtime.clock import Clock
from somareg.runtime.threads import one_thread
from somareg.runtime.version import __version__
from somareg.tiepoints.use import Given
from somareg.types import Progress, Raster

INLIER_PX = 4.0
# Options that may change before a run is resumed: finished tiles do not depend on them, or `_binding` covers them.
_FREE = {"accuracy", "device", "dinov2", "extent", "local", "max_memory", "max_pixels", "resampling"}
LOOK, TILES, MODEL = 0.03, 0.1, 0.98  # share of the work that is done when each stage begins


@dataclass(frozen=True)
class Tiling:
    """How tiles are run.

    Attributes:
        sizes: of tiles, overview and nodes.
        workers, dask: what runs the tiles, see `somareg.jobs.runner.open_runner`; without, this process one by one.
        workspace: where finished tiles are stored.
    """

    sizes: SceneCfg = field(default_factory=SceneCfg)
    workers: int | None = None
    dask: Any = None
    workspace: Workspace = field(default_factory=Workspace)


@one_thread()
def match_tiled(
    images: Images,
    ground: Ground,
    cfg: RegisterConfig,
    engine: tuple[Chosen, torch.device],
    given: Given | None,
    tiling: Tiling,
    clock: Clock,
    tell: Progress,
) -> Findings:
    """Match the common ground of a pair tile by tile.

    Args:
        images, ground: the images and their common ground.
        cfg: settings.
        engine: the chosen engine and its device.
        given: tie points of the user, in pixels of the whole images; they give one more start of the overview.
        tiling: how tiles are run.
        clock: records the time of each stage.
        tell: called with a stage's name and the share of work done.

    Raises:
        UnsupportedError: several processes were requested for an image in memory.
        ConfigError, ReadError, InputError, NoDataError, NoOverlapError, OutputError, ClusterError: see
            `somareg.errors`.
    """
    images.moving.check_size(ground.moving, cfg.max_pixels)
    images.reference.check_size(ground.reference, cfg.max_pixels)
    in_memory = [image.facts.name for image in (images.moving, images.reference) if isinstance(image.facts, Raster)]
    if in_memory and (tiling.workers is not None or tiling.dask is not None):
        raise UnsupportedError(
            f"{in_memory[0]} is in memory and other processes do not see it; give files, or no workers"
        )
    here = ground.reference[:2]
    given = given.moved((-here[0], -here[1]), (-ground.there[0], -ground.there[1])) if given else None
    sizes, chosen = tiling.sizes, engine[0]
    calibration = load_calibration(chosen.engine)
    layout = lay_tiles(ground.shape, sizes, sizes.tiles[cfg.preset])
    binding = {**_binding(images, cfg, sizes, chosen), "points": given and given.affine.matrix.tolist()}
    journal = tiling.workspace.journal("-found" * ground.is_looked_for, binding, _expected_bytes(images))
    overviews = _look(images, ground, cfg, sizes, tell)
    if "global" not in journal.facts:
        matching = _within(tell, LOOK, TILES)
        reach = RIVAL_SHARE * sizes.tile_px
        journal.note("global", match_overviews(overviews, ground, cfg, engine, given, matching, reach).as_json())
    with journal.believed():
        start = GlobalMatch.from_json(journal.facts["global"])
    clock.lap("overview")
    memory.release()
    settings = tile_settings(images, ground, overviews, start, cfg, sizes, engine)
    aim = Aim(ground.shape, cfg.local, cfg.accuracy, calibration, start.failure)
    told = _counted(_within(tell, TILES, MODEL))
    with open_runner(tiling.workers, tiling.dask) as runner:
        rounds = match_in_rounds(layout, settings, journal, runner, aim, told)
    clock.lap("tiles")
    memory.release()
    tell("model", MODEL)
    tiles, model = rounds.tiles, rounds.model
    affine, local, coverage, spread = _maps(start, model, ground, sizes.step_px)
    clock.lap("model")
    memory.release()
    reference, moving = overviews
    findings = Findings(
        affine=affine,
        expected=start.expected,
        field=local,
        coverage=coverage,
        spread=spread,
        matches=_matches(rounds.ties, start),
        support=support_of_tiles(
            tiles,
            count_votes(tiles, layout, model, calibration, rounds.nearer),
            model,
            calibration,
            rounds.failure,
            (*ground.doubts, *start.doubts),
        ),
        reference=reference.view,
        moving=moving.view,
        ran=chosen,
        step=sizes.step_px,
        notes=(
            *images.moving.facts.notes,
            *images.reference.facts.notes,
            *ground.notes,
            *reference.notes,
            *moving.notes,
            *_notes(rounds, layout, cfg),
            *chosen.notes,
            *start.notes,
            *(given.told(cfg) if given else ()),
        ),
        tiles=tuple(tiles),
    )
    return findings.moved(here, ground.there)


def _look(
    images: Images, ground: Ground, cfg: RegisterConfig, sizes: SceneCfg, tell: Progress
) -> tuple[Overview, Overview]:
    """Overviews of reference and moving."""
    tell("reading overview", LOOK)
    largest = (
        ground.shape if ground.is_placed else max(ground.shape, (ground.moving.height, ground.moving.width), key=max)
    )
    factor, away = factors(ground, sizes.factor(largest))
    return (
        read_overview(images.reference, ground.reference, factor, "reference", cfg),
        read_overview(images.moving, ground.moving, away, "moving", cfg),
    )


def _maps(
    start: GlobalMatch, model: SceneModel | None, ground: Ground, step: int
) -> tuple[AffineTransform, FieldTransform | None, LatticeValues | None, LatticeValues | None]:
    """Affine, field, coverage and spread at nodes; the global affine alone where there is no model."""
    if model is None:
        return start.affine, None, None, None
    nodes = field_on_nodes(model, ground.shape, step, ground.reference[:2])
    field = nodes.field
    coverage, spread = (LatticeValues(values, field.origin, field.step) for values in (nodes.coverage, nodes.spread_px))
    return start.affine.after(model.residual), field if field.array.any() else None, coverage, spread


def _matches(ties: Ties, start: GlobalMatch) -> Matches:
    """Each window's own match."""
    sure = np.where(ties.precision > 0, ties.weight / np.maximum(ties.precision, 1e-12), 0.0)
    return Matches(
        points=ties.points,
        target=start.affine(ties.points + ties.beyond),
        sigma_px=np.sqrt(1.0 / np.maximum(ties.precision, 1e-3) + FLOOR_PX2),
        confidence=np.clip(sure * (0.5 + 0.5 * ties.hit), 0.0, 1.0),
        used=np.asarray(ties.weight > 0),
        near_px=INLIER_PX,
    )


def _notes(rounds: Rounds, layout: Layout, cfg: RegisterConfig) -> list[str]:
    tiles, every = rounds.tiles, len(layout.blocks)
    states = [tile.status for tile in tiles]
    known = f"{len(tiles)} of {every}" if len(tiles) < every else f"{every}"
    text = f"matched as a scene: {known} tiles of {layout.blocks[0].width} px, {layout.spacing:.0f} px apart"
    counts = {state: states.count(state) for state in ("empty", "failed") if state in states}
    notes = [text + "".join(f", {count} {state}" for state, count in counts.items())]
    first, more = rounds.counts[0], sum(rounds.counts[1:])
    if more:
        notes.append(
            f"{first} tiles were matched first, {more} more where they did not tell the displacement to "
            f"{cfg.accuracy:g} px (accuracy)"
        )
    notes.append("the predicted error is measured on tiles that the model had not seen")
    failed = next((tile for tile in tiles if tile.status == "failed"), None)
    if failed:
        notes.append(f"first failed tile: number {failed.index}, {failed.reason}")
    return notes


def _binding(images: Images, cfg: RegisterConfig, sizes: SceneCfg, chosen: Chosen) -> dict[str, Any]:
    """Everything that finished tiles depend on; the device and options of the output are not part of it."""
    return {
        "somareg": __version__,
        "moving": images.moving.facts.sha256,
        "reference": images.reference.facts.sha256,
        "masks": [path and file_sha256(mask_file(path, "")) for path in (cfg.moving_mask, cfg.reference_mask)],
        "options": cfg.model_dump(mode="json", exclude=_FREE),
        "scene": to_mapping(sizes),
        "weights": [chosen.settings["model_sha256"], chosen.settings["dinov2_sha256"]],
    }


def _expected_bytes(images: Images) -> int:
    """A generous estimate of the bytes that will be written."""
    grid, moving = images.reference.grid, images.moving.facts
    return grid.width * grid.height * moving.count * moving.dtype.itemsize + 50_000_000


def _within(tell: Progress, start: float, end: float) -> Progress:
    """Convert the progress of a part to progress of the whole."""
    return lambda stage, share: tell(stage, start + (end - start) * share)


def _counted(tell: Progress) -> Callable[[int, int, float], None]:
    """Convert the progress of tiles to progress with a text."""
    return lambda done, asked, share: tell(f"tile {done}/{asked}", share)
