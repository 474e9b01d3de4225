"""Optical images that are no photographs: outlines, shaded reliefs, maps. They change what is seen, not where."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.lab.data import effects
from somareg.lab.data.augment import OpticalAugmentCfg
from somareg.lab.data.dice import Dice


def dice(seed: int = 0) -> Dice:
    return Dice(torch.Generator().manual_seed(seed), torch.device("cpu"))


def disc() -> Tensor:
    """A bright disc with its centre on pixel (20, 20), in three bands of different brightness."""
    axis = torch.arange(41.0) - 20
    inside = (axis[:, None].square() + axis.square() <= 100).float()
    return (60 + torch.tensor([60.0, 90.0, 120.0])[:, None, None] * inside)[None]


def centre_of(weight: Tensor) -> tuple[float, float]:
    axis = torch.arange(41.0) - 20
    total = weight.sum()
    return float((weight.sum(0) * axis).sum() / total), float((weight.sum(1) * axis).sum() / total)


def test_outlines_stay_on_the_edge_without_its_sign() -> None:
    lines = effects.gradient_only(disc(), dice())
    assert torch.allclose(lines, effects.gradient_only(255 - disc(), dice()), atol=1e-3)
    assert torch.equal(lines[:, 0], lines[:, 2])
    axis = torch.arange(41.0) - 20
    radius = (axis[:, None].square() + axis.square()).sqrt()
    weight = lines[0, 0]
    assert float((weight * radius).sum() / weight.sum()) == pytest.approx(10.0, abs=0.4)
    assert max(map(abs, centre_of(weight))) < 1e-3


def test_relief_is_bright_on_one_side_and_dark_on_the_other() -> None:
    azimuths = []
    for seed in range(12):
        lit = effects.relief_shading(disc(), dice(seed), pixels=(1.0, 1.0))[0, 0]
        x, y = centre_of((lit - 128).clamp_min(0))
        u, v = centre_of((128 - lit).clamp_min(0))
        assert math.hypot(x, y) > 5
        assert math.hypot(x + u, y + v) < 1e-2  # opposite sides of one centre: nothing moves
        azimuths.append(math.atan2(y, x))
    assert len({round(2 * azimuth / math.pi) % 4 for azimuth in azimuths}) == 4  # from every side


def test_a_map_has_flat_areas_that_end_at_the_edge() -> None:
    seen = set()
    for seed in range(12):
        drawn = effects.map_colours(disc(), dice(seed), most=4)[0]
        colours = torch.unique(drawn.flatten(1), dim=1)
        assert 1 <= colours.shape[1] <= 4
        inner, outer = drawn[:, 20, 20], drawn[:, 0, 0]
        seen.add(bool((inner > outer).all()))
        if not torch.equal(inner, outer):
            area = float((drawn == inner[:, None, None]).all(0).sum())
            assert 7.5 < math.sqrt(area / math.pi) < 12.5  # the outline was smoothed by 1 px, and any level may be cut
    assert seen == {True, False}  # a class may be brighter or darker than its surroundings
    with pytest.raises(ConfigError, match="map_classes is 1"):
        OpticalAugmentCfg(map_classes=1)
