"""What would be done with a pair: only headers are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Unpack

from somareg.config import SCENE_PX, RegisterConfig, RegisterOptions, make_config
from somareg.errors import guarded
from somareg.io.inputs import OpenImage, locate, told_modalities
from somareg.register.choose import LONGEST, check_demands, choose_device, choose_model
from somareg.register.dense import NODE_PX
from somareg.register.ground import Ground
from somareg.register.images import open_images
from somareg.register.locate import known_ground
from somareg.register.tiles.layout import SceneCfg, lay_tiles
from somareg.register.tiles.overview import factors
from somareg.register.tiles.votes import MIN_SURE
from somareg.report import OUTPUTS
from somareg.tiepoints.use import check_use
from somareg.types import Grid

WHOLE_BYTES, TILED_BYTES = 400, 700_000_000  # per working pixel of a pair matched whole; of one matched in tiles


def is_tiled(cfg: RegisterConfig, ground: Ground, sizes: SceneCfg) -> bool:
    """Whether a pair is matched in tiles.

    Points that replace the match need none, and a ground of so few tiles that they cannot vouch for each other is
    matched whole even where tiles were asked for: it is the same ground, and one verdict.
    """
    if cfg.tie_points_use == "replace" or cfg.scene == "never":
        return False
    if cfg.scene == "auto" and max(ground.shape) <= SCENE_PX:
        return False
    return len(lay_tiles(ground.shape, sizes, sizes.tiles[cfg.preset]).blocks) >= MIN_SURE


@guarded
def plan(moving: str | Path, reference: str | Path, **options: Unpack[RegisterOptions]) -> dict[str, Any]:
    """What `register` would do with two files or STAC Items; only headers are read."""
    located = locate(moving, "moving"), locate(reference, "reference")
    cfg = make_config({**options, **told_modalities(*located, options)})
    check_use(cfg)
    device = choose_device(cfg.device)
    chosen = choose_model(cfg, device)
    with open_images(*located, cfg, again=True) as images:
        check_demands(cfg, images.reference.grid)
        ground = known_ground(images, cfg)
        grid = images.reference.grid
        size = f"{ground.reference.width} x {ground.reference.height} px of the reference"
        sizes = SceneCfg()
        if is_tiled(cfg, ground, sizes):
            factor, _ = factors(ground, sizes.factor(ground.shape))
            layout = lay_tiles(ground.shape, sizes, sizes.tiles[cfg.preset])
            height, width = (side // factor for side in ground.shape)
            work: dict[str, Any] = {
                "scene": {
                    "overview": f"{width} x {height} px (1/{factor} of the reference)",
                    "tiles": f"{len(layout.blocks)} of {sizes.tile_px} px, {layout.spacing:.0f} px apart",
                    "displacement_every_px": sizes.step_px,
                },
            }
            memory = TILED_BYTES
        else:
            factor = max(1, math.ceil(max(ground.shape) / LONGEST[cfg.preset]))
            height, width = (side // factor for side in ground.shape)
            there = ground.moving.height // factor, ground.moving.width // factor
            # Georeferenced, the moving image is brought to the reference's grid and more.
            chosen = chosen.on((height, width), (height, width) if ground.is_placed else there)
            work = {"working_size": f"{width} x {height} px (1/{factor} of the reference)"}
            read = sum(
                block.width * block.height * len(image.bands) * image.facts.dtype.itemsize
                for block, image in ((ground.reference, images.reference), (ground.moving, images.moving))
            )
            memory = width * height * WHOLE_BYTES + read + _given_out(grid, cfg, ground)
        return {
            "moving": _described(images.moving),
            "reference": _described(images.reference),
            **({"tie_points": f"{cfg.tie_points} ({cfg.tie_points_use})"} if cfg.tie_points else {}),
            "search": cfg.search,
            "search_radius_px": round(ground.radius_px, 1) if ground.is_placed else None,
            "common_ground": size,
            **work,
            "memory_mb": round(memory / 1e6),
            "model": chosen.name,
            **({"notes": list(chosen.notes)} if chosen.notes else {}),
            "device": str(device),
            "outputs": list(OUTPUTS),
        }


def _given_out(grid: Grid, cfg: RegisterConfig, ground: Ground) -> int:
    """Bytes of the displacement, its certainty and its expected error."""
    height, width = ground.shape if cfg.extent == "common" else grid.shape
    step = NODE_PX if max(height, width) > SCENE_PX else 1
    return 16 * height * width // step**2


def _described(image: OpenImage) -> dict[str, Any]:
    facts, grid = image.facts, image.grid
    return {
        "file": str(facts.path or facts.name),
        "size": f"{grid.width} x {grid.height} px",
        "bands": facts.count,
        "dtype": str(facts.dtype),
        "georeferenced": grid.is_georeferenced,
    }
