"""The radar image of a scene: backscatter, layover of buildings, speckle, dB."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.lab.data.synthetic.draws import Draws, lookup, spread
from somareg.lab.data.synthetic.materials import Materials
from somareg.lab.data.synthetic.noise import blur, fractal, pool
from somareg.lab.data.synthetic.relief import Buildings, double_bounce, fold_roofs, layover_zone, shadow, slope_gain
from somareg.lab.data.synthetic.scenes import Scene
from somareg.lab.data.synthetic.speckle import PLAIN_ORDER, decibel, from_decibel, k_speckle, to_bytes

# Ranges are drawn per scene; dB are relative to the mean power.
_INCIDENCE = (0.45, 0.85)  # radians from the vertical
_K_ORDER = (2.0, 20.0)  # order of the K distribution
_BLUR = (0.5, 1.0)  # Gaussian scale that correlates the speckle, pixels
_FLOOR_DB = (-20.0, -9.0)  # noise floor
_WALL_DB = (-3.0, 5.0)  # backscatter of walls
_CORNER_DB = (4.0, 16.0)  # of a wall and the ground before it, square to the beam
_POINTS = (1e-5, 1e-3)  # share of pixels with a point target
_MEAN = (85.0, 180.0)  # grey level of the scene's mean
_GAIN = (7.0, 13.0)  # grey levels per dB


@dataclass(frozen=True)
class RadarCfg:
    """The speckle; ranges are drawn per scene.

    Attributes:
        looks: of the speckle, before the blur.
        k_share: share of scenes whose speckle is K distributed.
    """

    looks: tuple[float, float] = (1.0, 10.0)
    k_share: float = 0.35


@dataclass(frozen=True, eq=False)
class RadarView:
    """Viewing geometry of the radar.

    Attributes:
        away: (N,) radians, direction on the image in which the beam travels (from +x towards +y).
        incidence: (N,) radians from the vertical.
    """

    away: Tensor
    incidence: Tensor


def draw_view(draws: Draws) -> RadarView:
    """Draw a heading and an incidence within the range of the products."""
    return RadarView(draws.angle(), draws.uniform(*_INCIDENCE))


@dataclass(frozen=True, eq=False)
class Echo:
    """Backscattered power of a scene's parts on flat ground, each (N, S, S) or (N, 1, 1); the mean ground has 1.

    Attributes:
        ground: without buildings.
        roof: of the roofs, where buildings stand.
        wall: of walls.
        corner: of a wall and the ground before it, square to the beam.
    """

    ground: Tensor
    roof: Tensor
    wall: Tensor
    corner: Tensor


def draw_echo(draws: Draws, scene: Scene, materials: Materials, rows: Tensor) -> Echo:
    """Look up the backscatter of every label, varied by textures and planted rows."""
    label, size = scene.radar_label.long(), scene.terrain.shape[-1]
    own = fractal(draws, label.shape[-1], draws.log_uniform(6.0, 60.0), 0.4, 4.0)
    shared = draws.uniform(-1.0, 1.0)  # share of the fine structure in common with the optical image, of either sign
    texture = spread(shared) * scene.mosaic + spread((1.0 - shared.square()).sqrt()) * own
    detail = texture * lookup(materials.radar_texture, label) + rows * lookup(materials.radar_rows, label)
    level = torch.stack([lookup(materials.backscatter, label), lookup(materials.backscatter, scene.label)], 1)
    power = pool(from_decibel(level + detail[:, None]), size)
    power = power * from_decibel(spread(1.2 * draws.normal()) * scene.gradual)[:, None]
    power = power / power[:, :1].mean((-2, -1), keepdim=True)
    wall, corner = (spread(from_decibel(draws.uniform(*limits))) for limits in (_WALL_DB, _CORNER_DB))
    return Echo(power[:, 0], power[:, 1], wall, corner)


def backscatter(echo: Echo, terrain: Tensor, buildings: Buildings, view: RadarView) -> Tensor:
    """Power without speckle, with slopes, layover and shadows of buildings.

    A building's own footprint has no backscatter, because its roof appears displaced towards the radar.

    Args:
        echo: power of the parts.
        terrain: (N, S, S) height in pixels.
        buildings: what stands up.
        view: radar geometry.

    Returns:
        (N, S, S) power, the mean flat ground about 1.
    """
    lit = 1.0 - shadow(buildings.height, view.away, view.incidence)
    walls = layover_zone(buildings.layover, view.away) * echo.wall
    corners = double_bounce(buildings.cover, view.away) * echo.corner
    ground = echo.ground * slope_gain(terrain, view.away, view.incidence)
    return (ground + walls) * lit + corners + fold_roofs(echo.roof * buildings.cover, buildings.layover, view.away)


def render_radar(draws: Draws, power: Tensor, buildings: Buildings, cfg: RadarCfg) -> Tensor:
    """The finished radar images: point targets, noise floor, speckle, blur, dB, 8 bits.

    Args:
        draws: random draws for N scenes.
        power: (N, S, S) from `backscatter`.
        buildings: point targets are ten times as frequent on them.
        cfg: settings.

    Returns:
        (N, S, S) uint8.
    """
    size = power.shape[-1]
    frequent = spread(draws.log_uniform(*_POINTS)) * (1.0 + 9.0 * buildings.cover)
    target = draws.uniform(0.0, 1.0, size, size) < frequent
    power = power + target * from_decibel(draws.uniform(5.0, 22.0, size, size))
    power = power + spread(from_decibel(draws.uniform(*_FLOOR_DB)))
    order = torch.where(draws.chance(cfg.k_share), draws.log_uniform(*_K_ORDER), PLAIN_ORDER)
    speckled = power * k_speckle(draws, draws.log_uniform(*cfg.looks), order, size)
    smoothed = blur(speckled[:, None], draws.uniform(*_BLUR))[:, 0]
    return to_bytes(decibel(smoothed), draws.uniform(*_MEAN), draws.log_uniform(*_GAIN))
