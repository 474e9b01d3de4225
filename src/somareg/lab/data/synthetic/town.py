"""Towns: blocks, streets, houses on lots, roads, large halls."""

from __future__ import annotations

import torch
from torch import Tensor

from somareg.lab.data.synthetic.canvas import Canvas, anywhere, patches
from somareg.lab.data.synthetic.draws import HashTable, choose, spread, where
from somareg.lab.data.synthetic.materials import label_of
from somareg.lab.data.synthetic.relief import MAX_LAYOVER
from somareg.lab.data.synthetic.shapes import Parcels, parcels, ribbon, rotate, rounded_box, subdivide

_ROADS = 4  # most roads in a scene


def paint_town(canvas: Canvas, x: Tensor, y: Tensor, tame: Tensor) -> Tensor:
    """Paint blocks and streets, roads across everything, houses and halls.

    Args:
        canvas: the ground so far.
        x, y: the axes of `shapes.grid`.
        tame: (N,) factor on the chance of a town.

    Returns:
        (N, F, F) layover of the roofs in pixels, 0 where none stands.
    """
    draws = canvas.draws
    angle = draws.angle()
    share = draws.uniform(0.1, 1.2).clamp_max(1.0) * draws.chance(canvas.cfg.towns * tame)
    if not anywhere(share):
        _paint_roads(canvas, x, y)
        empty = torch.zeros(canvas.label.shape, device=draws.device)
        return _paint_halls(canvas, x, y, angle, empty)
    area = patches(draws, canvas.side, (60.0, 400.0), share) * canvas.free_of("water")
    blocks = parcels(draws, *rotate(x, y, angle), draws.log_uniform(25.0, 110.0), draws.log_uniform(16.0, 60.0))
    canvas.paint(area, label_of("yard", HashTable(draws)(blocks.key)))
    streets = where(blocks.border < spread(draws.log_uniform(0.4, 2.5)))
    canvas.paint(area * streets, canvas.any_label("road"))
    _paint_roads(canvas, x, y)
    length = draws.log_uniform(4.0, 24.0)
    lots = subdivide(blocks, length, length * draws.log_uniform(0.6, 1.7))
    layover = _paint_houses(canvas, lots, area * (1 - streets) * canvas.free_of("road"))
    return _paint_halls(canvas, x, y, angle, layover)


def _paint_roads(canvas: Canvas, x: Tensor, y: Tensor) -> None:
    """Straight and winding roads; they cross water on bridges."""
    draws = canvas.draws
    for _ in range(_ROADS):
        width = draws.log_uniform(0.4, 2.8) * draws.chance(0.4)
        if anywhere(width):
            way = ribbon(draws, x, y, canvas.half, draws.uniform(-20.0, 30.0).clamp_min(0.0))
            canvas.paint(where(way < spread(width)), canvas.any_label("road"))


def _paint_houses(canvas: Canvas, lots: Parcels, free: Tensor) -> Tensor:
    """One house per lot, set back from its sides by random shares of it; returns the layover."""
    draws = canvas.draws
    gap = HashTable(draws, 0.02, 0.35)
    across, down = lots.left + lots.right, lots.top + lots.bottom
    inside = torch.minimum(lots.left - gap(lots.key) * across, lots.right - gap(lots.key + 1) * across)
    inside = torch.minimum(inside, lots.top - gap(lots.key + 2) * down)
    inside = torch.minimum(inside, lots.bottom - gap(lots.key + 3) * down)
    kept = where(HashTable(draws)(lots.key) < spread(draws.uniform(0.3, 1.1)))
    house = where(inside > 0) * kept * free
    canvas.paint_roofs(house, label_of("roof", HashTable(draws)(lots.key)))
    return house * (spread(draws.log_uniform(0.4, 3.5)) * HashTable(draws, 0.5, 1.6)(lots.key))


def _paint_halls(canvas: Canvas, x: Tensor, y: Tensor, angle: Tensor, layover: Tensor) -> Tensor:
    """Large buildings and tanks along the town's directions; returns the layover with theirs."""
    draws = canvas.draws
    free = canvas.free_of("water") * canvas.free_of("road")
    for _ in range(canvas.cfg.halls):
        present = spread(draws.chance(0.2))
        if not anywhere(present):
            continue
        turned = angle + 0.5 * torch.pi * draws.chance(0.5)
        box = rounded_box(draws, x, y, draws.log_uniform(2.0, 20.0, 2), turned, 0.9 * canvas.half, rounded=0.2)
        hall = box * free * where(present)
        canvas.paint_roofs(hall, canvas.any_label("roof"))
        layover = choose(hall, spread(draws.log_uniform(0.5, MAX_LAYOVER)), layover)
    return layover.clamp_max(MAX_LAYOVER)
