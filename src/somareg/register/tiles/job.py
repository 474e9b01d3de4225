"""The job of a tile, picklable for other processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from somareg.config import RegisterConfig
from somareg.geometry import AffineTransform
from somareg.io.source import Block
from somareg.matching.engine import EngineCfg
from somareg.register.choose import Chosen, engine_settings
from somareg.register.ground import Ground
from somareg.register.images import Images
from somareg.register.tiles.layout import SceneCfg
from somareg.register.tiles.overview import GlobalMatch, Overview
from somareg.soma.weights import resolve
from somareg.types import Header, Raster, Transform


@dataclass(frozen=True, eq=False)
class TileSettings:
    """Common settings of all tiles of a pair. Pixels are those of the images' parts on the common ground.

    Attributes:
        moving, reference: files, or images in memory.
        moving_part, reference_part: the parts.
        moving_bands, reference_bands: 1-based.
        cfg: settings, with the SAR scales detected for the whole pair.
        georef: target of corrections -> moving pixels.
        places: from the reference's part, see `Ground.places`.
        start: the global affine: reference pixels -> input of `georef`.
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
    places: tuple[Transform, ...]
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


def tile_settings(
    images: Images,
    ground: Ground,
    overviews: tuple[Overview, Overview],
    start: GlobalMatch,
    cfg: RegisterConfig,
    sizes: SceneCfg,
    engine: tuple[Chosen, torch.device],
) -> TileSettings:
    """Collect the settings of a pair before its tiles start.

    Args:
        images, ground: the images and their common ground.
        overviews: of reference and moving.
        start: alignment of the overviews.
        cfg, sizes: options.
        engine: model and device.
    """
    reference, moving = overviews
    model, device = engine
    return TileSettings(
        moving=_place(images.moving.facts),
        reference=_place(images.reference.facts),
        moving_part=ground.moving,
        reference_part=ground.reference,
        moving_bands=moving.bands,
        reference_bands=reference.bands,
        cfg=cfg.model_copy(update={"moving_scale": moving.scale, "reference_scale": reference.scale}),
        georef=ground.after_correction,
        places=ground.places,
        start=start.affine,
        radius_px=sizes.search_px(reference.view.factor),
        engine=engine_settings(cfg, images.reference.grid.part(*ground.reference), ground.radius_px),
        model=None if model.network is None else resolve(model.name),
        device=str(device),
    )


def _place(image: Raster | Header) -> Path | Raster:
    """The image for a worker: a file by its absolute path, because a worker may run in another folder."""
    if isinstance(image, Raster):
        return image
    assert image.path is not None  # an image that is not in memory has a file
    return image.path.absolute()
