"""Effects of height: shadows, layover, double bounce and slope brightness.

Directions are angles on the image, radians from +x towards +y. `away` is the direction in which the beam (or the
sunlight) travels over the ground. With the incidence angle t from the vertical, a point of height h throws a shadow of
h tan(t) away from the sensor, and in a radar image it is displaced by h / tan(t) towards it (layover). Ground stays
in place: the images that we imitate are terrain corrected, but the terrain model lacks buildings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.lab.data.synthetic.draws import spread
from somareg.lab.data.synthetic.noise import move, pool, slopes

MAX_LAYOVER = 6.0  # px: taller buildings than this displaces are cut to it
_REACH_STEPS = 4  # 2 ** 4 - 1 = 15 px: the longest shadow or layover that is followed


@dataclass(frozen=True, eq=False)
class Buildings:
    """Buildings at the image's resolution, each (N, S, S).

    Attributes:
        cover: share of the pixel that is building, 0-1.
        height: pixels, 0 on the ground.
        layover: displacement of the roof towards the radar in pixels, 0 on the ground.
    """

    cover: Tensor
    height: Tensor
    layover: Tensor


def stand(layover: Tensor, size: int, incidence: Tensor) -> Buildings:
    """Buildings from their layover (N, F, F) on the label maps' grid; pixels at least half covered count as built."""
    cover, total = pool(torch.stack([(layover > 0).to(layover.dtype), layover], 1), size).unbind(1)
    layover = torch.where(cover >= 0.5, total / cover.clamp_min(0.5), torch.zeros_like(total))
    return Buildings(cover, layover * spread(torch.tan(incidence)), layover)


def sweep(reach: Tensor, away: Tensor) -> Tensor:
    """Share of each cell, 0-1, that is reached from upstream; a building reaches at least its own cell.

    With m(p) the maximum over distances s in 0-15 px of `reach(p - s * away) - s` the share is m + 1 cut to 0-1: what
    stands on a cell reaches from the cell's far side, half a pixel from its centre, and the cell reached begins half a
    pixel before its own. The maximum is taken by doubling, four look-ups instead of fifteen.

    Args:
        reach: (N, H, W) pixels that each cell reaches downstream; 0 where nothing stands.
        away: (N,) radians.
    """
    stands = reach > 0
    if not bool(stands.any()):
        return torch.zeros_like(reach)
    best = (reach - (~stands).to(reach.dtype))[:, None]
    for step in range(_REACH_STEPS):
        distance = float(2**step)
        best = torch.maximum(best, move(best, -distance * torch.cos(away), -distance * torch.sin(away)) - distance)
    return (best[:, 0] + 1.0).clamp(0.0, 1.0)


def shadow(height: Tensor, away: Tensor, incidence: Tensor) -> Tensor:
    """Share of each cell, 0-1, in the shadow of buildings upstream; a building's own footprint counts as shadow.

    Args:
        height: (N, H, W) pixels above the ground.
        away: (N,) radians.
        incidence: (N,) radians from the vertical, of the beam or of the sun.
    """
    return sweep(height * spread(torch.tan(incidence)), away)


def layover_zone(layover: Tensor, away: Tensor) -> Tensor:
    """Share of each cell in front of a building that its wall and roof fold over, 0-1.

    Args:
        layover: (N, H, W) displacement of the roof towards the radar, pixels; 0 on the ground.
        away: (N,) radians.
    """
    return sweep(layover, away + torch.pi)


def fold_roofs(roof: Tensor, layover: Tensor, away: Tensor) -> Tensor:
    """Power of the roofs at their place in the radar image: moved by the layover towards the radar.

    Args:
        roof: (N, H, W) backscattered power of the roofs, 0 where no roof is.
        layover: (N, H, W) pixels up to `MAX_LAYOVER`, 0 where no roof is.
        away: (N,) radians.

    Returns:
        (N, H, W) power.
    """
    result = torch.zeros_like(roof)
    if not bool((layover > 0).any()):
        return result
    stack = torch.stack([roof, layover, (layover > 0).to(layover.dtype)], dim=1)
    cos, sin = torch.cos(away), torch.sin(away)
    for distance in range(int(MAX_LAYOVER) + 2):
        shifted = move(stack, distance * cos, distance * sin) if distance else stack
        depth = shifted[:, 1] / shifted[:, 2].clamp_min(1e-3)  # the layover between cells, free of the bare ones
        result = torch.addcmul(result, shifted[:, 0], (1.0 - (depth - distance).abs()).clamp_min(0.0))
    return result


def double_bounce(cover: Tensor, away: Tensor, sharpness: float = 6.0) -> Tensor:
    """Where wall and ground form a corner that faces the radar: 0-1, strongest for walls square to the beam.

    Args:
        cover: (N, H, W) share of the cell that is building, 0-1.
        away: (N,) radians.
        sharpness: exponent of the cosine between wall normal and beam.
    """
    along_x, along_y = slopes(cover)
    rise = (along_x * spread(torch.cos(away)) + along_y * spread(torch.sin(away))).clamp_min(0.0)
    facing = rise / (along_x.square() + along_y.square()).sqrt().clamp_min(1e-6)
    return (2.0 * rise).clamp_max(1.0) * facing**sharpness


def slope_gain(terrain: Tensor, away: Tensor, incidence: Tensor) -> Tensor:
    """Radar brightness of slopes relative to flat ground: tan(t) / tan(t - a) for a slope a that faces the radar.

    Foreshortened slopes gather more power into a pixel, slopes that fall away less (Ulander, 1996, with a Lambertian
    surface). Bounded to -13..+9 dB.

    Args:
        terrain: (N, H, W) height in pixels.
        away: (N,) radians.
        incidence: (N,) radians.
    """
    along_x, along_y = slopes(terrain)
    rise = along_x * spread(torch.cos(away)) + along_y * spread(torch.sin(away))
    local = (spread(incidence) - torch.atan(rise)).clamp(0.05, 1.55)
    return (spread(torch.tan(incidence)) / torch.tan(local)).clamp(0.05, 8.0)


def sun_gain(terrain: Tensor, away: Tensor, zenith: Tensor) -> Tensor:
    """Lambertian brightness of slopes relative to flat ground, at least 0.25 (skylight).

    Args:
        terrain: (N, H, W) height in pixels.
        away: (N,) radians, the direction in which sunlight travels.
        zenith: (N,) radians from the vertical.
    """
    along_x, along_y = slopes(terrain)
    rise = along_x * spread(torch.cos(away)) + along_y * spread(torch.sin(away))
    lit = (1.0 + rise * spread(torch.tan(zenith))) / (1.0 + along_x.square() + along_y.square()).sqrt()
    return lit.clamp_min(0.25)
