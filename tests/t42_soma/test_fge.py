"""The Feature Gradient Enhancer: selects, keeps, learns, and is near the identity before training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from somareg.config import from_mapping, to_mapping
from somareg.errors import ConfigError
from somareg.soma.fge import AttentionMaps, FeatureGradientEnhancer, FgeCfg, GradientBranch
from somareg.soma.filter_banks import LearnableFilters, PlainConvolutions, make_filters
from somareg.soma.reconstruction import ChannelReconstruction, Decoder, SpatialReconstruction
from tests.t42_soma.features import DIRECTIONS, SIDE, SIGMAS, along, texture


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# --- the parts that select and keep --------------------------------------------------------------------------------


def test_spatial_reconstruction_moves_features_between_halves_and_loses_none() -> None:
    unit, features = SpatialReconstruction(16), texture()
    nn.init.normal_(unit.norm.weight)
    out = unit(features)
    torch.testing.assert_close(sum(out.chunk(2, 1)), sum(features.chunk(2, 1)), atol=1e-5, rtol=0)
    assert (out - features).abs().mean() > 0.05


def test_spatial_reconstruction_gates_by_the_weights_of_the_norm() -> None:
    """A channel whose weight is large and positive keeps its strong cells; weight 0 halves it everywhere."""
    unit, features = SpatialReconstruction(4), texture(4)
    with torch.no_grad():
        unit.norm.weight.copy_(torch.tensor([400.0, 0.0, 0.0, 0.0]))
    out = unit(features)
    normed = (features - features.mean((-2, -1), keepdim=True)) / features.std((-2, -1), keepdim=True, correction=0)
    strong = normed[:, 0] > 0.1
    kept = out[:, 0] - 0.5 * features[:, 2]  # channel 2 lets half of itself go to channel 0
    torch.testing.assert_close(kept[strong], features[:, 0][strong], atol=1e-4, rtol=0)
    assert kept[normed[:, 0] < -0.1].abs().max() < 1e-4
    torch.testing.assert_close(out[:, 1], 0.5 * (features[:, 1] + features[:, 3]), atol=1e-5, rtol=0)


def test_channel_reconstruction_lies_between_its_paths_and_keeps_the_scale() -> None:
    deviations = []
    for channels in (16, 64, 256):
        unit, features = ChannelReconstruction(channels), texture(channels, side=16)
        deviations.append(float(unit(features).detach().std() / features.std()))
    assert max(deviations) < 2.0
    assert min(deviations) > 0.05
    assert max(deviations) / min(deviations) < 1.5  # and it does not shrink as channels are added


def test_attention_selects_what_enters() -> None:
    enhancer, features = FeatureGradientEnhancer(16, FgeCfg(reconstruction=False)), texture()
    assert enhancer.attention is not None
    with torch.no_grad():
        enhancer.attention.excite[2].bias.copy_(torch.tensor([-60.0] * 8 + [3.0] * 8))
    added = enhancer.enhance(features) - features
    assert not added[:, :8].any()
    assert added[:, 8:].abs().mean() > 0.05


def test_spatial_attention_chooses_among_places_and_never_shuts_all() -> None:
    attention = FeatureGradientEnhancer(16, FgeCfg()).attention
    assert attention is not None
    with torch.no_grad():
        attention.place.weight.fill_(-5.0)
    weights = attention(texture().abs() + 3.0).spatial  # all positive, as features after an activation are
    assert float((weights > 0.5).float().mean()) > 0.2
    assert float((weights < 0.5).float().mean()) > 0.2


def test_attention_that_does_not_choose_is_no_attention() -> None:
    features, enhancer = texture(), FeatureGradientEnhancer(16, FgeCfg())
    assert enhancer.attention is not None
    for parameter in enhancer.attention.parameters():
        nn.init.zeros_(parameter)
    without = FeatureGradientEnhancer(16, FgeCfg(attention=False))
    without.load_state_dict({k: v for k, v in enhancer.state_dict().items() if not k.startswith("attention")})
    torch.testing.assert_close(enhancer(features), without(features), atol=1e-6, rtol=0)


def test_attention_maps_are_what_forward_uses() -> None:
    enhancer, features = FeatureGradientEnhancer(16, FgeCfg(reconstruction=False)), texture()
    for parameter in enhancer.attention.parameters():  # type: ignore[union-attr]
        nn.init.normal_(parameter, std=0.5)
    maps = enhancer.attention_maps(features)
    assert isinstance(maps, AttentionMaps)
    assert maps.channel.shape == (2, 16)
    assert maps.spatial.shape == (2, 1, SIDE, SIDE)
    assert float(maps.channel.detach().std()) > 0.05
    assert float(maps.spatial.detach().std()) > 0.05
    assert enhancer.gradient is not None
    added = 4 * maps.channel[..., None, None] * maps.spatial * enhancer.branch_gain * enhancer.gradient(features)
    torch.testing.assert_close(enhancer.enhance(features), features + added, atol=1e-5, rtol=0)
    assert FeatureGradientEnhancer(16, FgeCfg(attention=False)).attention_maps(features) is None


def test_attention_starts_open_everywhere() -> None:
    maps = FeatureGradientEnhancer(32, FgeCfg()).attention_maps(texture(32))
    assert maps is not None
    for weights in maps:
        assert 0.35 < float(weights.detach().min()) <= float(weights.detach().max()) < 0.65


# --- the whole -----------------------------------------------------------------------------------------------------

ABLATIONS = [
    FgeCfg(filters=filters, attention=attention, reconstruction=reconstruction)
    for filters in ("fixed", "learnable", "conv", "off")
    for attention in (True, False)
    for reconstruction in (True, False)
]


@pytest.mark.parametrize("cfg", ABLATIONS, ids=lambda c: f"{c.filters}-{c.attention:d}{c.reconstruction:d}")
@pytest.mark.parametrize("channels", [16, 96])
def test_near_the_identity_and_of_order_1_before_training(cfg: FgeCfg, channels: int) -> None:
    features, enhancer = texture(channels), FeatureGradientEnhancer(channels, cfg)
    with torch.no_grad():
        enhanced, loss = enhancer(features)
    assert enhanced.shape == features.shape
    assert 0.5 < float(enhanced.std() / features.std()) < 2
    assert float(nn.functional.cosine_similarity(enhanced, features).mean()) > 0.9
    again = enhanced
    for _ in range(3):
        again = enhancer.enhance(again).detach()
    assert 0.5 < float(again.std() / features.std()) < 3
    assert loss.shape == ()
    assert (float(loss) > 0) == cfg.reconstruction


@pytest.mark.parametrize("filters", ["fixed", "learnable", "conv"])
def test_the_border_of_the_map_is_no_structure(filters: str) -> None:
    """Features that are the same everywhere stay so up to the border, in every part."""
    enhancer = FeatureGradientEnhancer(16, FgeCfg(filters=filters))  # type: ignore[arg-type]
    constant = torch.randn(1, 16, 1, 1).expand(1, 16, 12, 14)
    maps = enhancer.attention_maps(constant)
    assert maps is not None
    for part in (enhancer.enhance(constant), maps.spatial):
        torch.testing.assert_close(part, part[..., 6:7, 7:8].expand_as(part), atol=1e-3, rtol=0)


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_the_added_gradient_does_not_grow_with_the_features(strength: float) -> None:
    branch = GradientBranch(32, "fixed", FgeCfg())
    assert float(branch(strength * texture(32)).detach().std()) == pytest.approx(1.0, abs=0.1)


def test_all_off_is_the_identity() -> None:
    enhancer, features = FeatureGradientEnhancer(6, FgeCfg("off", False, False)), texture(6)
    enhanced, loss = enhancer(features)
    assert torch.equal(enhanced, features)
    assert float(loss) == 0.0
    assert not list(enhancer.parameters())


def count(cfg: FgeCfg, channels: int = 32) -> int:
    return sum(p.numel() for p in FeatureGradientEnhancer(channels, cfg).parameters())


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("reconstruction", [True, False])
def test_switches_change_the_number_of_parameters_as_stated(attention: bool, reconstruction: bool) -> None:
    def size(filters: str) -> int:
        return count(FgeCfg(filters=filters, attention=attention, reconstruction=reconstruction))  # type: ignore[arg-type]

    assert size("learnable") - size("fixed") == 8 * DIRECTIONS * (5**2 + 11**2)  # 8 carriers of 32 channels
    assert abs(size("conv") / size("learnable") - 1) < 0.05
    assert size("fixed") > size("off")


def test_each_part_has_parameters_of_its_own() -> None:
    assert sum(p.numel() for p in make_filters("fixed", 8, 8, SIGMAS).parameters()) == 0
    assert count(FgeCfg()) > count(FgeCfg(attention=False)) > count(FgeCfg(attention=False, reconstruction=False))
    saved = FeatureGradientEnhancer(32, FgeCfg()).state_dict()
    assert sum(v.numel() for v in saved.values()) == count(FgeCfg())  # analytic kernels are not stored


def test_a_plain_convolution_has_the_reach_of_the_filters_but_no_prior() -> None:
    plain, learnable = PlainConvolutions(3, DIRECTIONS, SIGMAS), LearnableFilters(3, DIRECTIONS, SIGMAS)
    sizes = [tuple(c.weight.shape) for c in plain.convolutions]  # type: ignore[union-attr]
    assert sizes == [tuple(k.shape) for k in learnable.kernels.parameters()]
    features = texture(3)
    assert all((a - b).abs().mean() > 0.1 for a, b in zip(plain(features), plain(-features), strict=True))


@pytest.mark.parametrize("cfg", ABLATIONS[:-1], ids=lambda c: f"{c.filters}-{c.attention:d}{c.reconstruction:d}")
def test_gradients_reach_all_parameters(cfg: FgeCfg) -> None:
    enhancer, features = FeatureGradientEnhancer(16, cfg), texture().requires_grad_()
    enhanced, loss = enhancer(features)
    (enhanced.square().mean() + loss).backward()
    for name, parameter in enhancer.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name
    assert features.grad is not None
    assert bool(torch.isfinite(features.grad).all())


def test_the_goal_of_the_reconstruction_is_fixed() -> None:
    """The loss cannot pull the incoming features towards what is easy to decode."""
    decoder, features = Decoder(8), texture(8).requires_grad_()
    decoder.loss(torch.randn(2, 8, SIDE, SIDE), features).backward()
    assert features.grad is None
    assert decoder.layers[0].weight.grad is not None


def test_the_reconstruction_loss_is_the_mean_absolute_error_and_falls() -> None:
    enhancer, features = FeatureGradientEnhancer(16, FgeCfg()), texture(side=24)
    enhanced, loss = enhancer(features)
    assert enhancer.decoder is not None
    expected = (enhancer.decoder(enhanced) - features).abs().mean()
    torch.testing.assert_close(loss, expected)
    optimiser = torch.optim.Adam(enhancer.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = enhancer(features)[1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("filters", ["fixed", "learnable"])
def test_it_learns_to_tell_directions(filters: str) -> None:
    """A readout of 1 x 1 from enhanced features finds the orientation of a wave; from the features alone it cannot."""
    waves = torch.stack([torch.sin(along(a, 24) / 1.5 + p) for a in (0, 45, 90, 135) for p in (0.0, 1.0, 2.0)])
    features = waves[:, None].repeat(1, 4, 1, 1)
    labels = torch.arange(4).repeat_interleave(3)

    def accuracy(enhancer: FeatureGradientEnhancer) -> float:
        readout = nn.Conv2d(4, 4, 1)
        optimiser = torch.optim.Adam([*enhancer.parameters(), *readout.parameters()], lr=2e-2)
        for _ in range(60):
            scores = readout(enhancer.enhance(features)).mean((-2, -1))
            optimiser.zero_grad()
            nn.functional.cross_entropy(scores, labels).backward()
            optimiser.step()
        return float((scores.argmax(1) == labels).float().mean())

    assert accuracy(FeatureGradientEnhancer(4, FgeCfg(filters=filters))) == 1.0  # type: ignore[arg-type]
    assert accuracy(FeatureGradientEnhancer(4, FgeCfg("off", False, False))) < 0.8


@pytest.mark.parametrize("filters", ["fixed", "learnable", "conv", "off"])
def test_images_of_a_batch_do_not_see_each_other_and_modes_agree(filters: str) -> None:
    enhancer = FeatureGradientEnhancer(16, FgeCfg(filters=filters))  # type: ignore[arg-type]
    features = texture(batch=3)
    together = enhancer.enhance(features)
    torch.testing.assert_close(together[1:2], enhancer.enhance(features[1:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(together, enhancer.eval().enhance(features), atol=1e-6, rtol=0)
    torch.testing.assert_close(together, copy.deepcopy(enhancer).enhance(features), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 12)])
def test_any_size(size: tuple[int, int]) -> None:
    enhanced, loss = FeatureGradientEnhancer(16, FgeCfg())(torch.randn(1, 16, *size))
    assert enhanced.shape == (1, 16, *size)
    assert bool(torch.isfinite(enhanced).all())
    assert bool(torch.isfinite(loss))


def test_half_precision() -> None:
    enhancer, features = FeatureGradientEnhancer(16, FgeCfg()), texture()
    exact, _ = enhancer(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, loss = enhancer(features)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0)


def test_settings_from_plain_values() -> None:
    cfg = FgeCfg(filters="learnable", sigmas=(1.0,), directions=4, attention=False)
    assert from_mapping(FgeCfg, to_mapping(cfg), "fge") == cfg
    assert from_mapping(FgeCfg, {"sigmas": [0.8, 1.6, 3.2]}, "fge").sigmas == (0.8, 1.6, 3.2)


@pytest.mark.parametrize(
    ("option", "value"),
    [("directions", 0), ("sigmas", ()), ("sigmas", (0.8, 0.0)), ("pooling", -1.0), ("carriers", 0.0), ("gain", 0.0)],
)
def test_impossible_settings_are_named(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=option):
        FgeCfg(**{option: value})  # type: ignore[arg-type]


def test_channels_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        FeatureGradientEnhancer(18, FgeCfg())
    assert FeatureGradientEnhancer(18, FgeCfg(reconstruction=False))(texture(18))[0].shape[1] == 18
