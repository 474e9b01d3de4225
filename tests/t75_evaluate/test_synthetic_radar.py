"""What the radar sees of synthetic scenes: speckle, layover, shadow, double bounce."""

import math

import pytest
import torch
from torch import Tensor

from somareg.lab.data.synthetic.noise import blur
from somareg.lab.data.synthetic.radar import Echo, RadarView, backscatter
from somareg.lab.data.synthetic.relief import Buildings, double_bounce, fold_roofs, shadow, slope_gain, stand, sun_gain
from somareg.lab.data.synthetic.speckle import decibel, from_decibel, gamma_speckle, k_speckle, to_bytes
from tests.t75_evaluate.synthetic_draws import draws

# ---------------------------------------------------------------- speckle


@pytest.mark.parametrize("looks", [1.0, 3.5, 10.0])
def test_gamma_speckle_has_mean_one_and_variance_one_over_looks(looks: float) -> None:
    sample = gamma_speckle(draws(2), torch.full((2,), looks), 400)
    assert float(sample.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(sample.var()) == pytest.approx(1.0 / looks, rel=0.03)


def test_k_speckle_has_its_moments_and_a_heavier_tail() -> None:
    two = torch.full((2,), 2.0)
    sample = k_speckle(draws(2), two, two, 500)
    variance = (1 + 1 / 2) * (1 + 1 / 2) - 1
    assert float(sample.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(sample.var()) == pytest.approx(variance, rel=0.04)
    gamma = gamma_speckle(draws(2, 1), torch.full((2,), 1 / variance), 500)  # the same mean and variance
    assert float((sample > 8).float().mean()) > 1.5 * float((gamma > 8).float().mean()) > 0
    assert float(sample.pow(3).mean()) == pytest.approx((1.5 * 2) ** 2, rel=0.1)
    assert float(sample.pow(3).mean()) > 1.05 * float(gamma.pow(3).mean())


def test_blur_correlates_speckle_as_a_gaussian_does() -> None:
    sigma = torch.tensor([0.7, 1.0])
    field = blur(draws(2).normal(1, 400, 400), sigma)[:, 0]
    step = (field[..., 1:] * field[..., :-1]).mean((1, 2)) / field.var((1, 2))
    torch.testing.assert_close(step, torch.exp(-1 / (4 * sigma**2)), atol=0.02, rtol=0)
    flat = blur(torch.full((2, 1, 9, 9), 3.0), sigma)
    torch.testing.assert_close(flat, torch.full_like(flat, 3.0))


def test_decibels_and_bytes() -> None:
    level = torch.tensor([-20.0, 0.0, 13.0])
    torch.testing.assert_close(decibel(from_decibel(level)), level)
    image = to_bytes(torch.tensor([[[-1.0, 1.0], [-40.0, 40.0]]]), torch.tensor([100.0]), torch.tensor([10.0]))
    assert image.tolist() == [[[90, 110], [0, 255]]]


# ---------------------------------------------------------------- what stands up


def block(size: int = 48, layover: float = 3.0, first: int = 18, last: int = 30) -> Buildings:
    """One square building with a radar incidence of 40 degrees."""
    field = torch.zeros(1, size, size)
    field[:, first:last, first:last] = layover
    return stand(field, size, torch.tensor([math.radians(40)]))


def power(buildings: Buildings, heading: float) -> Tensor:
    shape = buildings.cover.shape
    one = torch.ones(shape)
    echo = Echo(one, 2 * one, torch.full((1, 1, 1), 4.0), torch.full((1, 1, 1), 30.0))
    view = RadarView(torch.tensor([heading]), torch.tensor([math.radians(40)]))
    return backscatter(echo, torch.zeros(shape), buildings, view)[0]


def test_a_building_folds_towards_the_radar_and_shadows_away_from_it() -> None:
    line = power(block(), 0.0)[24]  # the beam travels along +x and meets columns 18 to 29
    assert torch.allclose(line[:14], torch.ones(14)) and torch.allclose(line[36:], torch.ones(12))
    assert bool((line[15:18] > 4.0).all())  # wall, roof and ground folded over three pixels in front
    assert float(line[17]) > 15.0  # the corner of wall and ground
    assert torch.allclose(line[19:26], torch.full((7,), 2.0))  # the rest of the roof, three pixels nearer
    # From the roof's displaced far edge to the shadow's end nothing comes back; height = 3 tan 40, shadow = h tan 40.
    reach = 3.0 * math.tan(math.radians(40)) ** 2
    dark = float((1.0 - line[27:40]).clamp(0, 1).sum())
    assert dark == pytest.approx(3.0 + reach, abs=0.6)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_quarter_turn_of_the_heading_turns_the_picture(quarter: int) -> None:
    straight, turned = power(block(), 0.0), power(block(), quarter * math.pi / 2)
    # torch.rot90 turns +x into -y; the image's y points down, so a heading from +x towards +y is a turn by -90 degrees.
    torch.testing.assert_close(turned, torch.rot90(straight, -quarter), atol=2e-3, rtol=0)


@pytest.mark.parametrize("heading", [0.3, 1.9, 4.0])
def test_shadow_points_away_and_layover_towards_the_radar(heading: float) -> None:
    image = power(block(), heading)
    y, x = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(48.0) - 23.5, indexing="ij")
    along = x * math.cos(heading) + y * math.sin(heading)
    for weight, sign in (((1 - image).clamp_min(0), 1), ((image - 4).clamp_min(0), -1)):
        mean_x, mean_y = (float((weight * axis).sum() / weight.sum()) for axis in (x, y))
        assert sign * float((weight * along).sum() / weight.sum()) > 4.0
        off = math.atan2(sign * mean_y, sign * mean_x) - heading
        assert abs(math.remainder(off, 2 * math.pi)) < 0.35


def test_folding_conserves_the_roofs_power() -> None:
    buildings = block(layover=4.0)
    for heading in (0.0, 0.7, 2.5):
        folded = fold_roofs(buildings.cover, buildings.layover, torch.tensor([heading]))
        # A roof's edge is smeared by the interpolation, its interior moves as it is.
        assert float(folded.sum()) == pytest.approx(144.0, rel=0.12)
        y, x = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(48.0) - 23.5, indexing="ij")
        moved = [float((folded[0] * axis).sum() / folded.sum()) for axis in (x, y)]
        assert moved == pytest.approx([-4.0 * math.cos(heading), -4.0 * math.sin(heading)], abs=0.3)


def test_shadow_reaches_height_times_tangent() -> None:
    height = torch.zeros(1, 9, 60)
    height[:, :, 20] = 10.0
    for degrees in (20.0, 35.0, 50.0):
        dark = shadow(height, torch.tensor([0.0]), torch.tensor([math.radians(degrees)]))
        assert float(dark[0, 4, 21:].sum()) == pytest.approx(10 * math.tan(math.radians(degrees)), abs=0.6)
        assert float(dark[0, 4, :20].sum()) == 0.0


def test_double_bounce_sits_on_the_wall_that_faces_the_radar() -> None:
    bounce = double_bounce(block().cover, torch.tensor([0.0]))[0]
    assert float(bounce[24, 17]) == pytest.approx(1.0) and float(bounce[24, 25:].sum()) == 0.0
    skew = double_bounce(block().cover, torch.tensor([math.radians(40)]))[0]
    assert float(skew[24, 17]) < 0.25


def test_slopes_that_face_the_sensor_are_bright() -> None:
    ramp = torch.arange(40.0)[None, None].expand(1, 40, 40) * 0.2  # rises along +x
    middle, incidence = (0, 20, 20), torch.tensor([0.7])
    gains = [float(slope_gain(ramp, torch.tensor([a]), incidence)[middle]) for a in (0.0, math.pi / 2, math.pi)]
    assert gains[0] == pytest.approx(math.tan(0.7) / math.tan(0.7 - math.atan(0.2)), rel=1e-4)
    assert gains[1] == pytest.approx(1.0, rel=1e-4) and gains[2] < 0.8
    assert float(sun_gain(ramp, torch.tensor([0.0]), incidence)[middle]) > 1.0
    assert float(sun_gain(0 * ramp, torch.tensor([0.0]), incidence)[middle]) == 1.0
