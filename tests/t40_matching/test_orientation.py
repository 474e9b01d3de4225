"""Orientation channels: blind to polarity, fair to directions, deaf to what is masked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.features.orientation import OrientationCfg, gradients, orientation_channels, smooth

CFG = OrientationCfg()
ONE = OrientationCfg(scales=((1.2, 1.0),))


def picture(height: int = 96, width: int = 96, bands: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, bands, height, width, generator=generator)
    image = smooth(noise, 2.0)
    return image / image.std()


def everywhere(image: Tensor) -> Tensor:
    return torch.ones_like(image[:, :1])


def stripes(angle_deg: float, side: int = 96) -> Tensor:
    """A wave that changes along the direction `angle_deg` (clockwise from +x, as +y is down)."""
    y, x = torch.meshgrid(
        torch.arange(side, dtype=torch.float32), torch.arange(side, dtype=torch.float32), indexing="ij"
    )
    angle = math.radians(angle_deg)
    return torch.sin((x * math.cos(angle) + y * math.sin(angle)) / 2.5)[None, None]


@pytest.mark.parametrize("bands", [1, 3])
def test_a_negative_has_identical_channels(bands: int) -> None:
    image = picture(bands=bands)
    first, _ = orientation_channels(image, everywhere(image), CFG)
    second, _ = orientation_channels(-image, everywhere(image), CFG)
    assert torch.equal(first, second)


def test_each_band_may_be_a_negative_of_its_own() -> None:
    image = picture(bands=3)
    mixed = image * torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1)
    first, _ = orientation_channels(image, everywhere(image), CFG)
    second, _ = orientation_channels(mixed, everywhere(image), CFG)
    assert torch.equal(first, second)


@pytest.mark.parametrize("factor", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("offset", [-5.0, 0.0, 50.0])
def test_contrast_and_brightness_do_not_matter(factor: float, offset: float) -> None:
    image = picture()
    first, _ = orientation_channels(image, everywhere(image), CFG)
    second, _ = orientation_channels(image * factor + offset * factor, everywhere(image), CFG)
    torch.testing.assert_close(first, second, atol=2e-3, rtol=0)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_permutes_the_channels(turns: int) -> None:
    """Turning by 90 degrees moves each direction by half of the circle of directions (6 over 180 degrees)."""
    image = picture()
    straight, _ = orientation_channels(image, everywhere(image), ONE)
    turned, _ = orientation_channels(torch.rot90(image, turns, (2, 3)), everywhere(image), ONE)
    back = torch.rot90(turned, -turns, (2, 3))
    expected = torch.roll(straight, 3 * turns, dims=1)
    torch.testing.assert_close(back, expected, atol=1e-5, rtol=0)
    if turns % 2:
        assert (back - straight).abs().mean() > 0.05  # and it is a true permutation


def test_a_mirror_reverses_the_directions() -> None:
    image = picture()
    straight, _ = orientation_channels(image, everywhere(image), ONE)
    mirrored, _ = orientation_channels(image.flip(3), everywhere(image), ONE)
    expected = straight[:, [0, 5, 4, 3, 2, 1]]  # theta -> -theta
    torch.testing.assert_close(mirrored.flip(3), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("directions", [4, 6, 8])
def test_every_channel_has_its_own_direction(directions: int) -> None:
    cfg = OrientationCfg(directions=directions, scales=((0.8, 0.8), (1.6, 1.0)))
    for wanted in range(directions):
        image = stripes(180.0 / directions * wanted)
        channels, _ = orientation_channels(image, everywhere(image), cfg)
        strength = channels[0, :, 8:-8, 8:-8].mean((1, 2)).view(len(cfg.scales), directions)
        assert strength.argmax(1).tolist() == [wanted] * len(cfg.scales)
        runner_up = strength.sort(1).values[:, -2]
        assert (strength.max(1).values - runner_up > 0.015).all()


@pytest.mark.parametrize(("height", "width"), [(96, 96), (97, 64), (64, 65), (71, 99)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_sizes(height: int, width: int, stride: int) -> None:
    image = picture(height, width, bands=2)
    channels, valid = orientation_channels(image, everywhere(image), OrientationCfg(stride=stride))
    assert channels.shape == (1, 12, height // stride, width // stride)
    assert valid.shape == (1, 1, height // stride, width // stride)
    assert bool((valid == 1).all())


@pytest.mark.parametrize("side", [64, 65])
def test_an_output_pixel_is_centred_where_it_says(side: int) -> None:
    """Output i stands for input `stride * i + (stride - 1) / 2`: an edge between 31 and 32 is between 15 and 16."""
    column = 31
    image = torch.zeros(1, 1, side, side)
    image[..., column + 1 :] = 1.0
    channels, _ = orientation_channels(image, everywhere(image), ONE)
    across = channels[0, 0, 20]
    torch.testing.assert_close(across[12:16], across[16:20].flip(0), atol=1e-6, rtol=0)
    assert across[15] > across[12] + 0.1


def test_vectors_have_mean_0_and_length_below_1() -> None:
    image = picture(bands=3)
    channels, _ = orientation_channels(image, everywhere(image), CFG)
    per_scale = channels.view(1, 2, 6, *channels.shape[-2:])
    assert per_scale.mean(2).abs().max() < 1e-6
    length = per_scale.norm(dim=2)
    assert length.max() <= 1
    assert length.mean() > 0.05


def test_a_constant_image_has_no_channels() -> None:
    image = torch.zeros(1, 2, 80, 80)  # what `normalise` makes of a constant
    channels, valid = orientation_channels(image, everywhere(image), CFG)
    assert not channels.any()
    assert bool((valid == 1).all())


def hole(side: int = 96) -> Tensor:
    mask = torch.ones(1, 1, side, side)
    mask[..., 30:55, 20:61] = 0
    mask[..., 80:, :] = 0
    return mask


@pytest.mark.parametrize("rubbish", [0.0, 50.0, -1e4, 1e8])
def test_invalid_pixels_do_not_leak(rubbish: float) -> None:
    image, mask = picture(bands=2), hole()
    spoilt = torch.where(mask > 0, image, torch.full_like(image, rubbish))
    first, valid_first = orientation_channels(image, mask, CFG)
    second, valid_second = orientation_channels(spoilt, mask, CFG)
    assert torch.equal(first, second)
    assert torch.equal(valid_first, valid_second)
    assert torch.equal(valid_first, (torch.nn.functional.avg_pool2d(mask, 2) > 0.5).float())
    assert not (first * (1 - valid_first)).any()


def test_the_edge_of_the_mask_is_no_edge() -> None:
    """A flat image with a hole has no gradient; the same hole filled with another value would have a strong one."""
    mask = hole()
    flat = torch.where(mask > 0, torch.tensor(3.0), torch.tensor(-40.0))
    for sigma in (0.8, 1.6):
        gx, gy = gradients(flat, mask, sigma)
        assert max(float(gx.abs().max()), float(gy.abs().max())) < 1e-3
        unmasked, _ = gradients(flat, torch.ones_like(mask), sigma)
        assert unmasked.abs().max() > 5


def test_gradients_are_zero_where_the_kernel_reaches_mostly_invalid_pixels() -> None:
    image, mask = picture(), hole()
    for sigma in (0.8, 1.6):
        gx, gy = gradients(image, mask, sigma)
        assert not gx[..., 31:54, 21:60].any()
        assert not gy[..., 81:, :].any()
        assert gx[..., :25, :].abs().mean() > 0.05


def test_far_from_a_hole_the_mask_changes_nothing() -> None:
    image, mask = picture(), hole()
    open_gx, _ = gradients(image, torch.ones_like(mask), 1.2)
    masked_gx, _ = gradients(image, mask, 1.2)
    torch.testing.assert_close(masked_gx[..., :20, :], open_gx[..., :20, :], atol=1e-5, rtol=0)


def test_gradients_of_a_ramp_are_its_slopes() -> None:
    y, x = np.mgrid[:80, :80].astype(np.float32)
    image = torch.from_numpy(0.25 * x - 0.5 * y)[None, None]
    for mask in (torch.ones(1, 1, 80, 80), hole(80)):
        gx, gy = gradients(image, mask, 1.2)
        torch.testing.assert_close(gx[..., 10:20, 10:70], torch.full((1, 1, 10, 60), 0.25), atol=1e-4, rtol=0)
        torch.testing.assert_close(gy[..., 10:20, 10:70], torch.full((1, 1, 10, 60), -0.5), atol=1e-4, rtol=0)


def test_bands_add_up() -> None:
    """An edge that only one band shows is seen."""
    edge = stripes(0.0)
    flat = torch.zeros_like(edge)
    both, _ = orientation_channels(torch.cat([flat, edge], 1), everywhere(edge), CFG)
    alone, _ = orientation_channels(edge, everywhere(edge), CFG)
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)
