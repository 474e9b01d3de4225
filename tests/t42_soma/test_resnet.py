"""The ResNet pyramid: cells where the half-pixel rule says, any size, and a calm start."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from somareg.config import from_mapping, to_mapping
from somareg.soma.pyramid import STRIDES
from somareg.soma.resnet import ResNetCfg, ResNetPyramid

CHANNELS = (4, 6, 8, 10)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(depth: Literal[18, 34, 50] = 18, bands: int = 2, seed: int = 0) -> ResNetPyramid:
    torch.manual_seed(seed)
    return ResNetPyramid(bands, ResNetCfg(depth=depth, channels=CHANNELS, width=8)).eval()


def lively(depth: Literal[18, 34, 50] = 18) -> ResNetPyramid:
    """A pyramid whose every convolution matters (blocks start as their shortcuts)."""
    pyramid = small(depth)
    for module in pyramid.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return pyramid


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("axis", [-1, -2])
@torch.no_grad()
def test_a_mirrored_image_gives_the_mirrored_pyramid_when_the_kernels_are_mirrored(
    depth: Literal[18, 50], axis: int
) -> None:
    # Holds only if cell i and cell n-1-i lie symmetrically about the image's centre: cell i on s*i + (s-1)/2.
    pyramid = lively(depth).double()
    mirrored = copy.deepcopy(pyramid)
    for module in mirrored.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.flip(axis))
    image = noise(1, 2, 96, 128).double()
    there, back = pyramid(image), mirrored(image.flip(axis))
    for stride in STRIDES:
        assert there[stride].std() > 0.1
        torch.testing.assert_close(back[stride].flip(axis), there[stride], atol=1e-9, rtol=0)


@torch.no_grad()
def test_the_mirror_sees_an_odd_kernel() -> None:
    pyramid = lively().double()
    stage = pyramid.trunk.stages[1]
    assert isinstance(stage, nn.Sequential)
    odd = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False).double()
    assert odd.weight.shape[:2] == stage[0].body[0].weight.shape[:2]
    stage[0].body[0] = odd
    mirrored = copy.deepcopy(pyramid)
    for module in mirrored.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.flip(-1))
    image = noise(1, 2, 96, 128).double()
    assert (mirrored(image.flip(-1))[8].flip(-1) - pyramid(image)[8]).abs().max() > 1e-2


def as_linear(pyramid: ResNetPyramid) -> ResNetPyramid:
    """The same paths with constant positive kernels and no normalisation: what remains is where each cell looks."""
    for parent in list(pyramid.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.Conv2d):
                nn.init.constant_(child.weight, 1.0 / child.weight[0].numel())
    return pyramid.double()


@pytest.mark.parametrize("stride", STRIDES)
def test_each_cell_looks_at_its_own_centre(stride: int) -> None:
    trunk = as_linear(small()).trunk
    image = torch.ones(1, 2, 512, 512, dtype=torch.float64, requires_grad=True)
    features = trunk(image)[STRIDES.index(stride)]
    row, column = features.shape[-2] // 2 - 1, features.shape[-1] // 2 + 1
    (reach,) = torch.autograd.grad(features[0, 0, row, column], image)
    weight = reach.sum((0, 1)) / reach.sum()
    assert weight[0].max() == weight[-1].max() == weight[:, 0].max() == weight[:, -1].max() == 0.0
    pixels = torch.arange(512, dtype=torch.float64)
    centre = torch.stack([(weight.sum(1) * pixels).sum(), (weight.sum(0) * pixels).sum()])
    expected = torch.tensor([row, column], dtype=torch.float64) * stride + (stride - 1) / 2
    torch.testing.assert_close(centre, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 79), (100, 64), (80, 143)])
@torch.no_grad()
def test_any_size_is_the_padded_image_cropped(height: int, width: int) -> None:
    pyramid, image = lively(), noise(2, 2, height, width)
    maps = pyramid(image)
    rows = torch.arange(-height % 32 + height).clamp_max(height - 1)
    columns = torch.arange(-width % 32 + width).clamp_max(width - 1)
    padded = pyramid(image[:, :, rows][:, :, :, columns])
    assert tuple(maps) == STRIDES
    for (stride, features), channels in zip(maps.items(), CHANNELS, strict=True):
        assert features.shape == (2, channels, height // stride, width // stride)
        torch.testing.assert_close(features, padded[stride][..., : height // stride, : width // stride])


@pytest.mark.parametrize(("depth", "low", "high"), [(18, 11e6, 16e6), (34, 21e6, 26e6), (50, 23e6, 32e6)])
def test_it_is_as_large_as_the_name_says(depth: Literal[18, 34, 50], low: float, high: float) -> None:
    with torch.device("meta"):
        pyramid = ResNetPyramid(3, ResNetCfg(depth=depth))
    assert low < sum(p.numel() for p in pyramid.parameters()) < high


@pytest.mark.parametrize("depth", [18, 34, 50])
@torch.no_grad()
def test_activations_start_near_one_at_every_layer(depth: Literal[18, 34, 50]) -> None:
    pyramid = small(depth, bands=3)
    seen: dict[str, float] = {}
    for name, module in pyramid.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: (
                seen.update({name: float(output.square().mean().sqrt())}) if isinstance(output, Tensor) else None
            )
        )
    maps = pyramid(noise(1, 3, 96, 96))
    residual = {name for name in seen if name.endswith("body") or ".body." in name}
    assert len(seen) > 60
    assert all(value < 3.0 for value in seen.values())
    assert all(value > 0.2 for name, value in seen.items() if name not in residual)
    for features in maps.values():
        assert 0.9 < float(features.square().mean().sqrt()) < 1.1


@torch.no_grad()
def test_a_louder_image_gives_the_same_features() -> None:
    pyramid, image = small(), noise(1, 2, 64, 64)
    for quiet, loud in zip(pyramid(image).values(), pyramid(image * 50).values(), strict=True):
        torch.testing.assert_close(quiet, loud, atol=2e-3, rtol=0)


@torch.no_grad()
def test_one_image_does_not_see_the_others_of_its_batch() -> None:
    pyramid, image = lively(), noise(3, 2, 64, 64)
    together, alone = pyramid.train()(image), pyramid.eval()(image[1:2])
    for stride in STRIDES:
        torch.testing.assert_close(together[stride][1:2], alone[stride], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strides", [STRIDES, STRIDES[:-1]])
def test_every_parameter_learns(strides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    pyramid = ResNetPyramid(2, ResNetCfg(depth=18, channels=CHANNELS, width=8), strides)
    for module in pyramid.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    maps = pyramid(noise(1, 2, 96, 96))
    assert tuple(maps) == strides
    torch.stack([(m * noise(*m.shape, seed=1)).mean() for m in maps.values()]).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in pyramid.parameters())


def test_the_settings_survive_a_file() -> None:
    cfg = ResNetCfg(depth=18, channels=(32, 48, 64, 96), width=32)
    assert from_mapping(ResNetCfg, to_mapping(cfg)) == cfg
