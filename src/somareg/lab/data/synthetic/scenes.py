"""Random ground: label maps, buildings and relief.

A scene is painted from the ground up: land cover, woods, fields, water, towns, roads, buildings. Three label maps are
kept: true labels, labels in the optical image and labels in the radar image; a layer may be missing from one
of the last two, which gives edges that exist in one modality only. Maps are finer than the image by `OVERSAMPLE`, so
that edges of the rendered image fall between pixels. Covers and labels are bytes: the arithmetic is exact and fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.lab.data.synthetic.canvas import OVERSAMPLE, Canvas, SceneCfg, anywhere, patches
from somareg.lab.data.synthetic.draws import Draws, HashTable, choose, spread, where
from somareg.lab.data.synthetic.materials import label_of
from somareg.lab.data.synthetic.noise import fractal, standardise
from somareg.lab.data.synthetic.shapes import grid, parcels, ribbon, rotate, rounded_box, seeded_cells
from somareg.lab.data.synthetic.town import paint_town

_FIELDS, _WOODS, _WATER, _RIVERS = 0.75, 0.5, 0.4, 0.4  # chances that a scene has any
_CIRCLES = 3  # most round fields or ponds in a scene
_MAX_SLOPE = 0.5  # largest RMS slope of the relief


@dataclass(frozen=True, eq=False)
class Scene:
    """N scenes of ground; F = OVERSAMPLE * S.

    Attributes:
        label, optical_label, radar_label: (N, F, F) uint8 labels: true, as each modality sees them (the radar's
            without the buildings, which it sees displaced).
        layover: (N, F, F) displacement of the roof towards the radar in pixels, 0 where no building stands.
        mosaic: (N, F, F) fine variation of soil and plants, standardised.
        gradual: (N, S, S) slow variation, standardised.
        terrain: (N, S, S) height in pixels.
    """

    label: Tensor
    optical_label: Tensor
    radar_label: Tensor
    layover: Tensor
    mosaic: Tensor
    gradual: Tensor
    terrain: Tensor


def build_scene(draws: Draws, size: int, cfg: SceneCfg) -> Scene:
    """Draw N scenes of S x S pixels."""
    x, y = grid(size, OVERSAMPLE, draws.device)
    fine = x.shape[-1]
    hilly = draws.chance(cfg.hills)
    tame = 1.0 - 0.6 * hilly  # hilly country has fewer fields and towns
    canvas = Canvas(draws, _land_cover(draws, fine), cfg)
    _paint_woods(canvas)
    bent = _bent(draws, x, y)
    _paint_cells(canvas, *bent, tame)
    _paint_strips(canvas, *bent, tame)
    _paint_circles(canvas, x, y)
    _paint_water(canvas, x, y)
    layover = paint_town(canvas, x, y, tame)
    mosaic = fractal(draws, fine, draws.log_uniform(6.0, 50.0), draws.uniform(0.1, 0.7), 3.0)
    gradual = fractal(draws, size, draws.log_uniform(50.0, 400.0), draws.uniform(0.5, 1.0), 4.0)
    terrain = _relief(draws, size, hilly)
    return Scene(canvas.label, canvas.optical, canvas.radar, layover, mosaic, gradual, terrain)


def _bent(draws: Draws, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (N, F, F) pushed about smoothly, so that borders bend; half of the scenes stay straight."""
    amount = spread(draws.uniform(-12.0, 12.0).clamp_min(0.0))
    wave, fine = draws.log_uniform(80.0, 250.0) * OVERSAMPLE, x.shape[-1]
    if not anywhere(amount):
        return x, y
    return x + amount * fractal(draws, fine, wave, 1.0, 32.0), y + amount * fractal(draws, fine, wave, 1.0, 32.0)


def _land_cover(draws: Draws, fine: int) -> Tensor:
    """Classes by overlapping patches: every combination of patches is a class of its own."""
    combination = torch.zeros((draws.count, fine, fine), dtype=torch.uint8, device=draws.device)
    for bit in range(3):
        combination += patches(draws, fine, (30.0, 300.0), draws.uniform(0.05, 0.6)) << bit
    return label_of("land", HashTable(draws)(combination))


def _paint_woods(canvas: Canvas) -> None:
    draws = canvas.draws
    share = draws.uniform(0.03, 0.45) * draws.chance(_WOODS)
    if anywhere(share):
        canvas.paint(patches(draws, canvas.side, (25.0, 160.0), share), canvas.any_label("wood"))


def _paint_cells(canvas: Canvas, x: Tensor, y: Tensor, tame: Tensor) -> None:
    """Fields of irregular shape."""
    draws = canvas.draws
    share = draws.uniform(0.2, 1.2).clamp_max(1.0) * draws.chance(0.4 * _FIELDS * tame)
    if not anywhere(share):
        return
    length, aspect = draws.log_uniform(10.0, 70.0), draws.log_uniform(1.0, 4.0)
    cells = seeded_cells(draws, *rotate(x, y, draws.angle()), length, length / aspect)
    area = patches(draws, canvas.side, (120.0, 400.0), share)
    canvas.paint(area, label_of("field", HashTable(draws)(cells)))


def _paint_strips(canvas: Canvas, x: Tensor, y: Tensor, tame: Tensor) -> None:
    """Fields cut from strips, some with hedges, tracks or ditches around them."""
    draws = canvas.draws
    share = draws.uniform(0.3, 1.4).clamp_max(1.0) * draws.chance(_FIELDS * tame)
    if not anywhere(share):
        return
    length, aspect = draws.log_uniform(14.0, 90.0), draws.log_uniform(1.0, 5.0)
    strips = parcels(draws, *rotate(x, y, draws.angle()), length, length / aspect)
    area = patches(draws, canvas.side, (120.0, 400.0), share)
    canvas.paint(area, label_of("field", HashTable(draws)(strips.key)))
    edged = where(HashTable(draws)(strips.key) < spread(draws.uniform(-0.6, 1.0)))
    edge = where(strips.border < spread(draws.log_uniform(0.3, 1.6)))
    canvas.paint(area * edged * edge, canvas.any_label("verge"))


def _paint_circles(canvas: Canvas, x: Tensor, y: Tensor) -> None:
    """Fields around a pivot, and ponds."""
    draws = canvas.draws
    for _ in range(_CIRCLES):
        present, planted = spread(draws.chance(0.12)), spread(draws.chance(0.6))
        if anywhere(present):
            half = draws.log_uniform(5.0, 45.0, 1).expand(-1, 2)
            disc = rounded_box(draws, x, y, half, draws.angle(), 0.9 * canvas.half, rounded=1.0)
            kind = choose(where(planted), canvas.any_label("field"), canvas.any_label("water"))
            canvas.paint(disc * where(present), kind)


def _paint_water(canvas: Canvas, x: Tensor, y: Tensor) -> None:
    """Lakes and a river."""
    draws = canvas.draws
    share = draws.log_uniform(0.02, 0.4) * draws.chance(_WATER)
    if anywhere(share):
        canvas.paint(patches(draws, canvas.side, (50.0, 350.0), share), canvas.any_label("water"))
    width = draws.log_uniform(0.8, 11.0) * draws.chance(_RIVERS)
    if anywhere(width):
        river = ribbon(draws, x, y, 0.8 * canvas.half, draws.log_uniform(8.0, 60.0))
        canvas.paint(where(river < spread(width)), canvas.any_label("water"))


def _relief(draws: Draws, size: int, hilly: Tensor) -> Tensor:
    """Ridges and valleys of a random slope; flat country keeps a gentle roll."""
    wave, smoothness = draws.log_uniform(40.0, 250.0), draws.uniform(1.3, 2.2)
    rolling = fractal(draws, size, 1.5 * wave, smoothness, 8.0)
    ridged = fractal(draws, size, wave, smoothness, 4.0).abs()
    gullies = fractal(draws, size, 0.4 * wave, smoothness, 4.0).abs()
    shape = standardise(rolling - spread(draws.uniform(0.0, 2.0)) * (ridged + 0.35 * gullies))
    slope = torch.diff(shape, dim=-1).square().mean((-2, -1)).sqrt()
    steep, gentle = draws.log_uniform(0.08, _MAX_SLOPE), draws.log_uniform(0.001, 0.03)
    return shape * spread(torch.where(hilly, steep, gentle) / slope.clamp_min(1e-6))
