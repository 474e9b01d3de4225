"""Radiometric effects do what their statistics say, geometry stays, and training sees what registration sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.lab.data import effects
from somareg.lab.data.augment import (
    AugmentCfg,
    OpticalAugmentCfg,
    SarAugmentCfg,
    augment,
    cut_edges,
    drop_rectangles,
    make_batch,
)
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.dice import Dice
from somareg.lab.data.draw import DrawCfg, draw_pairs
from somareg.lab.data.standardise import standardise
from somareg.lab.data.tiles import TileSet
from somareg.preprocess.normalise import normalise
from somareg.preprocess.sar import detect_scale
from tests.synthetic import make_pair


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dice(seed: int = 0) -> Dice:
    return Dice(generator(seed), torch.device("cpu"))


def with_shares(value: float) -> AugmentCfg:
    """Every effect with the same share."""

    def shares(cfg: type) -> dict[str, float]:
        return {item.name: value for item in fields(cfg) if item.name.endswith("_share")}

    return AugmentCfg(
        OpticalAugmentCfg(**shares(OpticalAugmentCfg)), SarAugmentCfg(**shares(SarAugmentCfg)), dropout_share=value
    )


@pytest.fixture(scope="module")
def tiles() -> TileSet:
    """Four tiles of made-up ground; the SAR image in decibels."""
    pairs = [make_pair(seed, 192, looks=3.0) for seed in range(4)]
    sar = torch.stack([torch.from_numpy(decibels(p.moving)[0]) for p in pairs])
    optical = torch.stack([torch.from_numpy(p.reference.copy()) for p in pairs])
    names = ("a", "b", "c", "d")
    return TileSet(
        sar, optical, torch.ones(4, 192, 192, dtype=torch.bool), torch.eye(2, 3).repeat(4, 1, 1), names, names, names
    )


@pytest.fixture(scope="module")
def batch(tiles: TileSet) -> PairBatch:
    return draw_pairs(tiles, torch.arange(8) % 4, DrawCfg(crop=96), generator())


def decibels(power: np.ndarray) -> np.ndarray:
    return np.clip(np.rint((10 * np.log10(power) + 35) * 6), 0, 255).astype(np.uint8)


def amplitude(power: np.ndarray) -> np.ndarray:
    root = np.sqrt(power)
    return np.clip(np.rint(root / root.mean() * 40), 0, 255).astype(np.uint8)


# ---- standardise


@pytest.mark.parametrize(
    ("convert", "scale"), [(decibels, "dB"), (amplitude, "amplitude"), (None, "optical")], ids=lambda v: str(v)[:14]
)
def test_standardise_equals_normalise(convert: Callable[[np.ndarray], np.ndarray] | None, scale: str) -> None:
    pairs = [make_pair(seed, 128, looks=2.0) for seed in range(3)]
    stored = np.stack([p.reference if convert is None else convert(p.moving) for p in pairs])
    mask = np.ones((3, 128, 128), bool)
    mask[1, :30, :40] = False
    mask[2, 50:, 64:] = False
    stored[1, :, :30, :40] = 255
    modality = "optical" if convert is None else "sar"
    if convert is not None:
        assert all(detect_scale(image, m)[0] == scale for image, m in zip(stored, mask, strict=True))
    found = standardise(torch.from_numpy(stored).float(), torch.from_numpy(mask)[:, None].float(), modality)
    expected = np.stack([normalise(image, m, modality)[0] for image, m in zip(stored, mask, strict=True)])
    assert np.abs(found.numpy() - expected).mean() < 5e-3
    assert np.abs(found.numpy() - expected).max() < 0.1
    assert (found[1, :, :30, :40] == 0).all()


def test_each_image_of_a_batch_finds_its_own_scale() -> None:
    power = make_pair(0, 128, looks=2.0).moving
    both = torch.from_numpy(np.stack([decibels(power), amplitude(power)])).float()
    ones = torch.ones(2, 1, 128, 128)
    together = standardise(both, ones, "sar")
    for i in range(2):
        assert torch.allclose(together[i : i + 1], standardise(both[i : i + 1], ones[:1], "sar"), atol=1e-5)


@pytest.mark.parametrize("modality", ["sar", "optical", "other"])
def test_nothing_to_see_gives_zeros(modality: str) -> None:
    constant = torch.full((2, 1, 32, 32), 77.0)
    mask = torch.ones(2, 1, 32, 32)
    mask[1] = 0
    assert (standardise(constant, mask, modality) == 0).all()  # type: ignore[arg-type]
    textured = standardise(torch.rand(2, 1, 32, 32) * 255, mask, modality)  # type: ignore[arg-type]
    assert (textured[1] == 0).all()
    assert textured[0].std() > 0.9


def test_rare_values_still_make_a_band() -> None:
    """Both percentiles are equal: the range is taken instead, as in `normalise`."""
    image = np.full((1, 64, 64), 50, np.uint8)
    image[0, :2, :10] = 200
    expected = normalise(image, np.ones((64, 64), bool), "optical")[0]
    found = standardise(torch.from_numpy(image)[None].float(), torch.ones(1, 1, 64, 64), "optical")
    assert np.allclose(found[0].numpy(), expected, atol=2e-2)


# ---- speckle


@pytest.mark.parametrize("looks", [1.0, 2.0, 4.0, 10.0])
@pytest.mark.parametrize("correlated", [False, True])
def test_speckle_has_mean_one_and_variance_one_over_looks(looks: float, correlated: bool) -> None:
    sigma = torch.full((4,), 0.7) if correlated else None
    factor = effects.gamma_speckle((4, 1, 200, 200), dice(), torch.full((4, 1, 1, 1), looks), sigma)
    inner = factor[..., 4:-4, 4:-4]
    assert float(inner.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(inner.var() * looks) == pytest.approx(1.0, abs=0.06)
    skewness = ((inner - inner.mean()) ** 3).mean() / inner.std() ** 3
    assert float(skewness) == pytest.approx(2 / math.sqrt(looks), rel=0.15)
    neighbours = torch.corrcoef(torch.stack([inner[..., 1:].flatten(), inner[..., :-1].flatten()]))[0, 1]
    if correlated:
        # a Gaussian of deviation s correlates neighbours by exp(-1 / (4 s^2)); the cube lowers it slightly
        assert math.exp(-1 / (4 * 0.49)) - 0.1 < neighbours < math.exp(-1 / (4 * 0.49)) + 0.03
    else:
        assert abs(neighbours) < 0.02


def test_speckle_multiplies_what_decibels_stand_for() -> None:
    image = torch.full((1, 1, 256, 256), 128.0)
    image[..., 128:] = 160.0
    noisy = effects.speckle(image, dice(), looks=(4.0, 4.0), decibels=(30.0, 30.0))
    power = 10 ** (noisy * 30 / 255 / 10)
    dark, bright = power[..., :128], power[..., 128:]
    assert float(bright.mean() / dark.mean()) == pytest.approx(10 ** (32 * 30 / 255 / 10), rel=0.02)
    assert float(dark.std() / dark.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(bright.std() / bright.mean()) == pytest.approx(0.5, abs=0.02)


# ---- other effects


def picture(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 40, 44, generator=generator(9)) * 255


def test_blur_is_the_gaussian_and_moves_nothing() -> None:
    spot = torch.zeros(3, 1, 21, 21)
    spot[..., 10, 10] = 1.0
    sigma = torch.tensor([0.4, 0.7, 1.0])
    spread = effects.gaussian_blur(spot, sigma)
    away = torch.arange(21.0) - 10
    assert torch.allclose(spread.sum((1, 2, 3)), torch.ones(3), atol=1e-5)
    assert (spread * away).sum((1, 2, 3)).abs().max() < 1e-6
    assert (spread * away[:, None]).sum((1, 2, 3)).abs().max() < 1e-6
    # the sampled Gaussian of 0.4 px is narrower than the continuous one
    assert torch.allclose((spread * away**2).sum((1, 2, 3)).sqrt(), torch.tensor([0.284, 0.699, 0.998]), atol=2e-3)


def test_bands_are_permuted_mixed_and_merged() -> None:
    image = picture(30)
    permuted = effects.permute_bands(image, dice())
    assert torch.equal(permuted.sort(1).values, image.sort(1).values)
    assert (
        len({tuple(p[:, 0, 0].tolist()) for p in effects.permute_bands(picture(1).expand(60, -1, -1, -1), dice())}) == 6
    )
    mixed = effects.mix_bands(image, dice())
    assert (mixed <= image.amax(1, keepdim=True) + 1e-3).all()
    assert (mixed >= image.amin(1, keepdim=True) - 1e-3).all()
    # a mixture: the bands explain it completely
    bands, result = image[0].flatten(1).T, mixed[0].flatten(1).T
    weight = torch.linalg.lstsq(bands, result).solution
    assert torch.allclose(bands @ weight, result, atol=1e-2)
    assert torch.allclose(weight.sum(0), torch.ones(3), atol=1e-4)
    assert (mixed[0, 0] - mixed[0, 1]).abs().mean() > 1
    grey = effects.single_band(image, dice())
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert torch.allclose(effects.mix_bands(grey, dice()), grey, atol=1e-3)


def test_tone_keeps_order_and_inversion_reverses_it() -> None:
    ramp = torch.arange(256.0).view(1, 1, 16, 16).expand(20, -1, -1, -1)
    curved = effects.tone(ramp, dice(), gamma=(0.6, 1.6), contrast=(0.6, 1.5), brightness=30.0).flatten(1)
    assert (curved.diff(dim=1) > 0).all()
    assert curved[:, 128].std() > 5
    neutral = effects.tone(ramp, dice(), gamma=(1.0, 1.0), contrast=(1.0, 1.0), brightness=0.0)
    assert torch.allclose(neutral, ramp, atol=1e-3)
    assert torch.equal(effects.invert_contrast(effects.invert_contrast(ramp, dice()), dice()), ramp)
    assert (effects.invert_contrast(ramp, dice()).flatten(1).diff(dim=1) < 0).all()


def test_noise_and_stripes_have_their_deviation() -> None:
    board = 10.0 * (1 - 2 * (torch.arange(64) % 2)).float()
    grey = 100.0 + board.expand(40, 1, 64, 64)  # deviation 10
    rough = effects.noise(grey, dice(), deviation=(0.5, 0.5)) - grey
    assert float(rough.std()) == pytest.approx(5.0, rel=0.03)
    lined = effects.stripes(grey, dice(), deviation=(0.4, 0.4)) - grey
    rows = (lined.std(-1) < 1e-3).flatten(1).all(1)
    columns = (lined.std(-2) < 1e-3).flatten(1).all(1)
    assert (rows ^ columns).all()
    assert 8 < int(rows.sum()) < 32
    assert float(lined.std()) == pytest.approx(4.0, rel=0.15)


def test_clouds_cover_their_share_and_leave_the_rest() -> None:
    ground = torch.full((30, 3, 96, 96), 60.0)
    cloudy = effects.clouds(ground, dice(), cover=(0.2, 0.2))
    covered = (cloudy - ground).amin(1) > 60
    assert 0.14 < float(covered.float().mean()) < 0.26
    assert float(((cloudy - ground).abs().amax(1) < 1e-3).float().mean()) > 0.5
    # one connected mass rather than noise: neighbours agree
    assert float((covered[..., 1:] == covered[..., :-1]).float().mean()) > 0.95


def test_haze_brightens_and_lowers_contrast() -> None:
    image = picture(20) * 0.6
    hazy = effects.haze(image, dice(), opacity=(0.3, 0.5))
    assert (hazy.mean((1, 2, 3)) > image.mean((1, 2, 3))).all()
    assert (hazy.std((1, 2, 3)) < 0.85 * image.std((1, 2, 3))).all()


def test_sharpening_undoes_part_of_a_blur() -> None:
    image = effects.gaussian_blur(picture(), torch.full((3,), 1.0))
    sharp = effects.sharpen(image, dice(), strength=(1.0, 1.0))
    assert (sharp.std((1, 2, 3)) > 1.1 * image.std((1, 2, 3))).all()
    assert torch.allclose(sharp.mean(), image.mean(), rtol=1e-2)


@pytest.mark.parametrize("flip", [-1, -2])
def test_symmetric_effects_commute_with_flips(flip: int) -> None:
    image = picture()
    for step in (partial(effects.blur, sigma=(0.3, 1.0)), partial(effects.sharpen, strength=(0.3, 1.5))):
        assert torch.allclose(step(image.flip(flip), dice()), step(image, dice()).flip(flip), atol=1e-3)


def test_dropped_rectangles() -> None:
    mask = torch.ones(200, 1, 50, 60)
    mask[:, :, :5] = 0
    kept = drop_rectangles(mask, 0.5, (0.2, 0.4), dice())
    hit = (kept != mask).flatten(1).any(1)
    assert (kept[:, :, :5] == 0).all()
    assert 0.4 < float(hit.float().mean()) < 0.6
    lost = (mask - kept).sum((1, 2, 3))[hit] / (50 * 60)
    assert float(lost.max()) <= 3 * 0.42**2
    assert 0.08 < float(lost.mean()) < 0.25
    assert torch.equal(drop_rectangles(mask, 0.0, (0.2, 0.4), dice()), mask)


# ---- batches


def test_no_share_changes_nothing_and_full_shares_change_everything(batch: PairBatch) -> None:
    same = augment(batch, with_shares(0.0), generator())
    for name in ("reference", "moving", "reference_mask", "moving_mask", "truth"):
        assert torch.equal(getattr(same, name), getattr(batch, name))
    other = augment(batch, with_shares(1.0), generator())
    for name in ("reference", "moving"):
        assert ((getattr(other, name) - getattr(batch, name)).abs().mean((1, 2, 3)) > 2).all()
        assert getattr(other, name).min() >= 0
        assert getattr(other, name).max() <= 255
        assert getattr(other, f"{name}_mask").mean() < 0.97
    assert torch.equal(other.truth, batch.truth)


def test_an_effect_befalls_its_share_of_the_images(batch: PairBatch) -> None:
    sar = replace(with_shares(0.0).sar, invert_share=0.3)
    hits = []
    for seed in range(40):
        found = augment(batch, replace(with_shares(0.0), sar=sar), generator(seed))
        assert torch.equal(found.reference, batch.reference)
        inverted = torch.isclose(found.moving, 255 - batch.moving).flatten(1).all(1)
        assert (inverted | (found.moving == batch.moving).flatten(1).all(1)).all()
        hits.append(inverted.float().mean())
    assert 0.22 < float(torch.stack(hits).mean()) < 0.38


def test_the_input_of_augment_is_left_alone(batch: PairBatch) -> None:
    before = batch.moving.clone()
    augment(batch, with_shares(1.0), generator())
    assert torch.equal(batch.moving, before)


@pytest.mark.parametrize("swap", [0.0, 1.0])
def test_a_batch_is_standardised_and_repeatable(tiles: TileSet, swap: float) -> None:
    cfg, index = DrawCfg(crop=96, swap_share=swap), torch.arange(8) % 4
    first, second, other = (make_batch(tiles, index, cfg, AugmentCfg(), generator(seed)) for seed in (1, 1, 2))
    for name in ("reference", "moving"):
        image, mask = getattr(first, name), getattr(first, f"{name}_mask")
        count = mask.sum((2, 3))
        mean = (image * mask).sum((2, 3)) / count
        assert mean.abs().max() < 1e-3
        assert torch.allclose((image.square() * mask).sum((2, 3)) / count, torch.ones_like(mean), atol=1e-2)
        assert (image * (1 - mask) == 0).all()
        assert torch.equal(image, getattr(second, name))
        assert not torch.equal(image, getattr(other, name))
    assert first.modalities == (("sar", "optical") if swap else ("optical", "sar"))
    assert (first.reference.shape[1], first.moving.shape[1]) == ((1, 3) if swap else (3, 1))


def test_without_augmentation_a_batch_is_what_registration_would_see(tiles: TileSet) -> None:
    cfg, index = DrawCfg(crop=96, smooth_share=0.0), torch.arange(4)
    drawn = draw_pairs(tiles, index, cfg, generator(3))
    made = make_batch(tiles, index, cfg, None, generator(3))
    everywhere = np.ones((96, 96), bool)
    for i in range(4):
        for name, modality in (("reference", "optical"), ("moving", "sar")):
            stored = getattr(drawn, name)[i].round().byte().numpy()
            expected = normalise(stored, everywhere, modality)[0]  # type: ignore[arg-type]
            assert np.abs(getattr(made, name)[i].numpy() - expected).mean() < 2e-2


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="haze_share"):
        OpticalAugmentCfg(haze_share=1.2)
    with pytest.raises(ConfigError, match="looks"):
        SarAugmentCfg(looks=(0.2, 3.0))
    with pytest.raises(ConfigError, match="dropout_share"):
        AugmentCfg(dropout_share=-0.1)


def test_images_end_at_a_straight_line() -> None:
    mask = torch.ones(300, 1, 50, 60)
    mask[:, :, :5] = 0
    kept = cut_edges(mask, 0.5, 0.3, dice())
    hit = (kept != mask).flatten(1).any(1)
    assert 0.35 < float(hit.float().mean()) < 0.55
    assert (kept[:, :, :5] == 0).all() and (kept <= mask).all()
    lost = (mask - kept).sum((1, 2, 3)) / (50 * 60)
    assert 0.02 < float(lost[hit].mean()) < 0.3 and float(lost.max()) < 0.45
    # what is lost lies on one side of a line: no row of pixels is lost twice
    changes = (kept[:, 0, 5:].diff(dim=-1) != 0).sum(-1)
    assert int(changes.max()) <= 1
    assert torch.equal(cut_edges(mask, 0.0, 0.3, dice()), mask)
