"""The optical image of a scene: colour, light, weather and the camera's tone curve."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.lab.data.synthetic.draws import Draws, lookup, spread
from somareg.lab.data.synthetic.materials import Materials
from somareg.lab.data.synthetic.noise import blur, fractal, move, pool
from somareg.lab.data.synthetic.relief import Buildings, shadow, sun_gain
from somareg.lab.data.synthetic.scenes import Scene

# Ranges are drawn per scene.
_ZENITH = (0.4, 1.1)  # of the sun, radians
_BLUR = (0.35, 0.8)  # Gaussian scale of the sensor, pixels
_GREY = 0.3  # share of scenes without colour
_MEAN, _DEVIATION = (45.0, 150.0), (12.0, 58.0)  # grey levels of the finished image
_NOISE = (0.3, 3.0)  # deviation of the sensor's noise, grey levels


@dataclass(frozen=True)
class OpticalCfg:
    """The weather: shares of scenes with any haze and any clouds."""

    haze: float = 0.25
    clouds: float = 0.1


def render_optical(
    draws: Draws, scene: Scene, materials: Materials, rows: Tensor, buildings: Buildings, cfg: OpticalCfg
) -> Tensor:
    """The finished optical images.

    Args:
        draws: random draws for N scenes.
        scene: the ground.
        materials: its looks.
        rows: (N, F, F) wave of the planted rows, -1..1.
        buildings: what throws shadows.
        cfg: settings.

    Returns:
        (N, 3, S, S) uint8, RGB.
    """
    label, size = scene.optical_label.long(), scene.terrain.shape[-1]
    detail = scene.mosaic * lookup(materials.optical_texture, label) + rows * lookup(materials.optical_rows, label)
    bands = torch.stack([lookup(table, label) for table in materials.colour.unbind(1)], 1)
    reflectance = pool(torch.exp(bands + detail[:, None]), size)
    drift = spread(0.15 * draws.normal()) * scene.gradual
    light = torch.exp(drift) * _light(draws, scene.terrain, buildings)
    image = _weather(draws, reflectance * light[:, None], cfg)
    image = blur(image, draws.uniform(*_BLUR))
    grey = draws.chance(_GREY)[:, None, None, None]
    return _develop(draws, torch.where(grey, image.mean(1, keepdim=True), image), grey)


def _light(draws: Draws, terrain: Tensor, buildings: Buildings) -> Tensor:
    """(N, S, S) illumination relative to flat open ground; roofs are never shaded."""
    sun, zenith, darkness = draws.angle(), draws.uniform(*_ZENITH), draws.uniform(0.3, 0.75)
    dark = shadow(buildings.height, sun, zenith) * (1.0 - buildings.cover)
    return sun_gain(terrain, sun, zenith) * (1.0 - spread(darkness) * dark)


def _weather(draws: Draws, image: Tensor, cfg: OpticalCfg) -> Tensor:
    """Haze lowers contrast smoothly; clouds hide the ground and throw shadows."""
    size = image.shape[-1]
    white = image.mean((-3, -2, -1), keepdim=True)
    veil = fractal(draws, size, draws.log_uniform(80.0, 400.0), 1.0, 16.0)[:, None]
    haze = spread(draws.uniform(0.0, 0.5) * draws.chance(cfg.haze))[:, None] * torch.sigmoid(1.5 * veil)
    image = torch.lerp(image, 1.6 * white, haze)
    puffs = fractal(draws, size, draws.log_uniform(50.0, 200.0), 0.7, 3.0)
    seen = spread(draws.chance(cfg.clouds))
    threshold = spread(draws.uniform(1.0, 2.2))
    cover = ((1.5 * (puffs - threshold)).clamp(0.0, 1.0) * seen)[:, None]
    reach, direction = draws.uniform(8.0, 40.0), draws.angle()
    shade = move(cover, reach * torch.cos(direction), reach * torch.sin(direction))
    return torch.lerp(image * (1.0 - 0.6 * shade), 3.0 * white, cover)


def _develop(draws: Draws, image: Tensor, grey: Tensor) -> Tensor:
    """Tone curve, stretch to a wanted mean and deviation, colour cast, noise, 8 bits."""
    image = image.clamp_min(1e-4) ** spread(draws.uniform(0.5, 1.0))[:, None]
    deviation, mean = torch.std_mean(image, dim=(-3, -2, -1), keepdim=True)
    stretched = (image - mean) / deviation.clamp_min(1e-6) * spread(draws.log_uniform(*_DEVIATION))[:, None]
    cast = draws.uniform(-12.0, 12.0, 3, 1, 1) * ~grey
    noise = draws.normal(3, *image.shape[-2:]) * spread(draws.log_uniform(*_NOISE))[:, None]
    noise = torch.where(grey, noise[:, :1], noise)
    stretched = stretched + spread(draws.uniform(*_MEAN))[:, None] + cast
    return (stretched + noise).round_().clamp_(0.0, 255.0).to(torch.uint8)
