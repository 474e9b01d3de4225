"""One tile of a scene: read its pixels, match them, say what every window saw. Picklable in, picklable out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.errors import EstimationError, InputError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import pixel_centres, source_window
from somareg.io.inputs import OpenImage, open_image
from somareg.io.source import Block
from somareg.matching.describe import Describe, LearnedFeatures, OrientationFeatures
from somareg.matching.engine import Alignment, EngineCfg, examine
from somareg.matching.evidence import similarity
from somareg.matching.matcher import Matcher
from somareg.matching.network import Soma
from somareg.matching.pair import Pair
from somareg.matching.posterior import WindowMatches, read_windows
from somareg.matching.refine import refine_affine
from somareg.matching.start import SearchCfg, find_start
from somareg.matching.vote import VoteCfg
from somareg.matching.weights import load_network, resolve
from somareg.matching.windows import WindowCfg, roomy
from somareg.preprocess.grid import to_reference_grid
from somareg.preprocess.normalise import normalise
from somareg.quality.calibration import Engine, load_calibration
from somareg.register.choose import Chosen, engine_settings, to_pair
from somareg.register.ground import Ground
from somareg.register.images import Images, bounded_cache
from somareg.register.tiles.layout import SceneCfg
from somareg.register.tiles.overview import GlobalMatch, Overview
from somareg.types import Grid, Header, Raster, Transform

ROOM_PX = 32  # moving pixels kept beyond what is searched: windows have margins
MIN_VALID_SHARE = 0.1  # of a tile that must be valid in both images
MAX_VALUES = 100_000_000  # of a much finer moving image under one tile
TIES = WindowCfg(size=28, margin=6, stride=28)  # side by side, so that their errors are their own
TIES_SIGMA_CELLS = 1.5
TURN_DEG, SCALE = 1.0, 0.01  # a tile differs from the global affine by no more


@dataclass(frozen=True, eq=False)
class TileSettings:
    """What all tiles of a pair have in common. Pixels are those of the parts of the images that are looked at.

    Attributes:
        moving, reference: files, or images in memory.
        moving_part, reference_part: the parts.
        moving_bands, reference_bands: 1-based.
        cfg: settings, with the SAR scales that were settled for the whole pair.
        georef: what corrections lead to -> moving pixels.
        start: the global affine: reference pixels -> what `georef` takes.
        radius_px: search radius around it.
        engine: settings of the engine.
        model: file of the weights, None for the weight-free engine.
        device: torch's name.
    """

    moving: Path | Raster
    reference: Path | Raster
    moving_part: Block
    reference_part: Block
    moving_bands: tuple[int, ...]
    reference_bands: tuple[int, ...]
    cfg: RegisterConfig
    georef: Transform
    start: AffineTransform
    radius_px: float
    engine: EngineCfg
    model: Path | None
    device: str


@dataclass(frozen=True, eq=False)
class TileJob:
    """One tile.

    Attributes:
        index: of the tile.
        block: pixels of the reference's part.
        settings: of the pair.
    """

    index: int
    block: Block
    settings: TileSettings


@dataclass(frozen=True, eq=False)
class TileResult:
    """What a tile says, all lengths in reference pixels.

    Attributes:
        index: of the tile.
        status: "matched", "empty" (too few valid pixels in common) or "failed".
        reason: why it is not matched, "".
        points: (N, 2) reference pixels, the middles of the windows.
        beyond: (N, 2) displacement beyond the global affine G: the match of x is `G(x + beyond)`.
        precision: (N,) of the window alone, 1/px^2.
        hit: (N,) 1 where the window's own best match, read without any prior, agrees with the tile, else 0.
        figures: evidence of the tile by name; "probability" and "predicted_px" are those of the engine's calibration.
    """

    index: int
    status: str
    reason: str = ""
    points: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    beyond: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    precision: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    hit: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    figures: dict[str, float] = field(default_factory=dict)


def tile_settings(
    images: Images,
    ground: Ground,
    overviews: tuple[Overview, Overview],
    start: GlobalMatch,
    cfg: RegisterConfig,
    sizes: SceneCfg,
    engine: tuple[Chosen, torch.device],
) -> TileSettings:
    """What is known of a pair when its tiles begin.

    Args:
        images, ground: what is looked at.
        overviews: of reference and moving.
        start: of the overviews.
        cfg, sizes: as asked for.
        engine: what runs, and where.
    """
    reference, moving = overviews
    chosen, device = engine
    return TileSettings(
        moving=_place(images.moving.facts),
        reference=_place(images.reference.facts),
        moving_part=ground.moving,
        reference_part=ground.reference,
        moving_bands=moving.bands,
        reference_bands=reference.bands,
        cfg=cfg.model_copy(update={"moving_scale": moving.scale, "reference_scale": reference.scale}),
        georef=ground.after_correction,
        start=start.affine,
        radius_px=sizes.search_px(reference.view.factor),
        engine=engine_settings(cfg, images.reference.grid.part(*ground.reference), ground.radius_px),
        model=None if chosen.network is None else resolve(chosen.name),
        device=str(device),
    )


def _place(image: Raster | Header) -> Path | Raster:
    """Where a worker finds the pixels: a file by its whole path, for the worker may run elsewhere."""
    if isinstance(image, Raster):
        return image
    assert image.path is not None  # what is not in memory is a file
    return image.path.absolute()


def match_tile(job: TileJob) -> TileResult:
    """Read and match one tile; the same job always gives the same result.

    What cannot be matched is told in the result; files that cannot be read raise.
    """
    with bounded_cache():
        found = _read_pair(job)
    if isinstance(found, str):
        return TileResult(job.index, "empty", found)
    pair, start = found
    settings = job.settings
    network = load_network(settings.model, torch.device(settings.device)) if settings.model else None
    try:
        affine, ties, hit, alignment = match_windows(pair, start, settings, network)
    except EstimationError as error:
        return TileResult(job.index, "failed", str(error))
    points = ties.points.double().numpy()
    beyond = start.inverse(affine(points + ties.likely.double().numpy())) - points
    return TileResult(
        job.index,
        "matched",
        points=points + np.array(job.block[:2]),
        beyond=beyond,
        precision=ties.precision.double().numpy(),
        hit=hit,
        figures=_figures(alignment, "orientation" if network is None else "learned"),
    )


@torch.inference_mode()
def match_windows(
    pair: Pair, start: AffineTransform, settings: TileSettings, network: Soma | None
) -> tuple[AffineTransform, WindowMatches, NDArray[np.float64], Alignment]:
    """The engine's steps on one tile, for the sake of its windows.

    Returns:
        The tile's own affine (it is where the windows were read, and nothing more), the windows' matches relative to
        it, whether each agrees by itself, and the evidence.

    Raises:
        EstimationError: no window has content.
    """
    engine = settings.engine
    channels = OrientationFeatures(engine.features)
    features: Describe = channels if network is None else LearnedFeatures(network, engine.strides)
    steps, reuse = (engine.near[1:], 0.0) if network is None else (engine.learned_near, engine.reuse_px)
    matcher = Matcher(pair, features, reuse)
    begun = find_start(matcher, (start,), _near_search(settings.radius_px / max(pair.shape)))
    affine, matches = refine_affine(matcher, begun.affine, steps, engine.windows)
    windows = matcher.correlate(affine, roomy(TIES, matcher.cells()))
    if not len(windows.surfaces):
        raise EstimationError("no window of the tile holds enough that is valid and not flat")
    cell = float(matcher.finest)
    ties = read_windows(windows, cell, torch.zeros(len(windows.centres), 2), TIES_SIGMA_CELLS * cell)
    side = 2 * windows.margin + 1
    best = windows.surfaces.flatten(1).argmax(1)
    away = torch.hypot((best % side - windows.margin).float(), (best // side - windows.margin).float())
    judge = matcher if network is None else Matcher(pair, channels)
    alignment = examine(affine, matches, matcher, judge, similarity(judge, start), steps[-1])
    alignment = replace(alignment, support=begun.score)
    return affine, ties, (away <= 2.0).double().numpy(), alignment


def _near_search(radius: float) -> SearchCfg:
    """A search around the start that turns and scales hardly."""
    vote = VoteCfg(rotation_deg=TURN_DEG, scale=SCALE)
    return SearchCfg(rotation_deg=TURN_DEG, scale=(1 - SCALE, 1 + SCALE), radius=radius, fine=vote)


def _figures(alignment: Alignment, engine: Engine) -> dict[str, float]:
    evidence, calibration = alignment.evidence, load_calibration(engine)
    return {
        "probability": calibration.probability(alignment),
        "predicted_px": calibration.predict_rmse(alignment, 1),
        "zscore": evidence.zscore,
        "sharpness": evidence.sharpness,
        "hit_ratio": evidence.hit_ratio,
        "correlation": evidence.correlation,
        "correlation_before": evidence.correlation_before,
        "forward_backward": alignment.forward_backward_px,
        "split_half": alignment.split_half_px,
    }


def _read_pair(job: TileJob) -> tuple[Pair, AffineTransform] | str:
    """The tile's pixels, the moving image already on the reference's grid by the global affine, and where to start.

    Returns:
        The pair and the affine from the tile's pixels to those of the moving patch; or why there is nothing to match.
    """
    settings, cfg, block = job.settings, job.settings.cfg, job.block
    with open_image(settings.reference, "reference", None, cfg, again=True) as image:
        data, reference_mask = image.window(_inside(settings.reference_part, block))
    reference = data[[band - 1 for band in settings.reference_bands]]
    if reference_mask.mean() < MIN_VALID_SHARE:
        return "hardly any valid pixel in the reference"
    pad = math.ceil(settings.radius_px) + ROOM_PX
    grid = Grid(block.width, block.height)
    with open_image(settings.moving, "moving", None, cfg, again=True) as image:
        patch = _moving_patch(image, job, pad)
    if patch is None:
        return "outside the moving image"
    moving, to_moving = patch
    warped, warped_mask = to_reference_grid(moving, grid, to_moving, pad=pad, bands=settings.moving_bands)
    if (reference_mask & warped_mask[pad:-pad, pad:-pad]).mean() < MIN_VALID_SHARE:
        return "hardly any valid pixel in common"
    reference, _ = normalise(reference, reference_mask, cfg.reference_modality, cfg.reference_scale)
    warped, _ = normalise(warped, warped_mask, cfg.moving_modality, cfg.moving_scale)
    modalities = cfg.reference_modality, cfg.moving_modality
    pair = to_pair(reference, reference_mask, warped, warped_mask, torch.device(settings.device), modalities)
    return pair, AffineTransform.from_parameters(shift=(pad, pad))


def _inside(part: Block, block: Block) -> Block:
    """A block of a part, in pixels of the whole image."""
    return block._replace(x=part.x + block.x, y=part.y + block.y)


def _moving_patch(image: OpenImage, job: TileJob, pad: int) -> tuple[Raster, Transform] | None:
    """The part of the moving image under a tile, and the map from the tile's pixels to its pixels."""
    block, settings = job.block, job.settings
    part, facts = settings.moving_part, image.facts
    shift = AffineTransform.from_parameters(shift=(block.x, block.y))
    whole = compose(settings.georef, settings.start, shift)
    columns, rows = (math.ceil((side + 2 * pad) / 16) + 1 for side in (block.width, block.height))
    points = whole(pixel_centres(0, 0, columns, rows) * 16.0 - pad)
    density = float(np.nanmax(np.abs(np.diff(points[:2], axis=0)), initial=16.0)) / 16.0
    window = source_window(points, (part.height, part.width), margin=8 + math.ceil(density))
    if window is None:
        return None
    if window[2] * window[3] * facts.count > MAX_VALUES:
        raise InputError(
            f"{facts.name} is so much finer than the reference that one tile covers {window[2]} x {window[3]} of its "
            "pixels; bring it nearer to the reference's pixel size first"
        )
    data, mask = image.window(_inside(part, Block(*window)))
    raster = Raster(data, mask, Grid(window[2], window[3]), name=facts.name)
    return raster, compose(AffineTransform.from_parameters(shift=(-window[0], -window[1])), whole)
