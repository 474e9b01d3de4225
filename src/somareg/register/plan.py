"""The plan for a pair, from headers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from somareg.config import make_config
from somareg.config.arguments import RegisterOptions
from somareg.errors import guarded
from somareg.io.inputs import OpenImage, locate, told_modalities
from somareg.register.choose import check_demands, choose_device, choose_model
from somareg.register.images import open_images
from somareg.register.locate import known_ground
from somareg.register.roads import choose_road, not_tried, whole_factor, working_sizes
from somareg.register.tiles.layout import SceneCfg, lay_tiles
from somareg.register.tiles.overview import factors
from somareg.report import OUTPUTS
from somareg.runtime.budget import allowed
from somareg.tiepoints.use import check_use


@guarded
def plan(moving: str | Path, reference: str | Path, **options: Unpack[RegisterOptions]) -> dict[str, Any]:
    """Describe what `register` would do with two files or STAC Items, from headers only."""
    located = locate(moving, "moving"), locate(reference, "reference")
    cfg = make_config({**options, **told_modalities(*located, options)})
    check_use(cfg)
    device = choose_device(cfg.device)
    model = choose_model(cfg, device)
    with open_images(*located, cfg, again=True) as images:
        check_demands(cfg, images.reference.grid)
        ground = known_ground(images, cfg)
        size = f"{ground.reference.width} x {ground.reference.height} px of the reference"
        sizes = SceneCfg()
        road = choose_road(images, ground, cfg, model, sizes)
        limit = allowed()
        if road.is_tiled:
            factor, _ = factors(ground, sizes.factor(ground.shape))
            layout = lay_tiles(ground.shape, sizes, sizes.tiles[cfg.preset])
            height, width = (side // factor for side in ground.shape)
            first, every = len(layout.first), len(layout.blocks)
            count = f"{every}" if first == every else f"{first} to {every}"
            work: dict[str, Any] = {
                "scene": {
                    "overview": f"{width} x {height} px (1/{factor} of the reference)",
                    "tiles": f"{count} of {sizes.tile_px} px, {layout.spacing:.0f} px apart",
                    "displacement_every_px": sizes.step_px,
                },
            }
        else:
            factor = whole_factor(ground, cfg)
            here, there = working_sizes(ground, factor)
            model = model.on(here, there)
            work = {"working_size": f"{here[1]} x {here[0]} px (1/{factor} of the reference)"}
        used = model.settings["dinov2_used"]
        notes = [*model.notes, *([road.note] if road.note else [])]
        if refused := not_tried(images, ground, cfg, road):
            notes.append(f"would be refused, {refused}")
        return {
            "moving": _described(images.moving),
            "reference": _described(images.reference),
            **({"tie_points": f"{cfg.tie_points} ({cfg.tie_points_use})"} if cfg.tie_points else {}),
            "search": cfg.search,
            "search_radius_px": round(ground.radius_px, 1) if ground.is_placed else None,
            "common_ground": size,
            **work,
            "memory_mb": round(road.count / 1e6),
            "max_memory_mb": round(limit / 1e6),
            "model": model.name,
            **({"dinov2": f"{used} (sha256 {model.settings['dinov2_sha256']})"} if used else {}),
            **({"notes": notes} if notes else {}),
            "device": str(device),
            "outputs": list(OUTPUTS),
        }


def _described(image: OpenImage) -> dict[str, Any]:
    facts, grid = image.facts, image.grid
    return {
        "file": str(facts.path or facts.name),
        "size": f"{grid.width} x {grid.height} px",
        "bands": facts.count,
        "dtype": str(facts.dtype),
        "georeferenced": grid.is_georeferenced,
    }
