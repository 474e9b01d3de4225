"""The compact pyramid: where its cells lie, and that it does not care about the number and order of bands."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.errors import ConfigError
from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.soma.pyramid import STRIDES, CompactPyramid, FeaturePyramid, PyramidCfg, pad_to_multiple
from tests.t40_matching.textures import reference_view
from tests.t42_soma.mirrored import mirror

SIZE = (64, 96)


def build(**settings: object) -> CompactPyramid:
    torch.manual_seed(0)
    return CompactPyramid(PyramidCfg(**settings)).eval()  # type: ignore[arg-type]


def describe(pyramid: CompactPyramid, image: Tensor) -> FeaturePyramid:
    with torch.no_grad():
        found: FeaturePyramid = pyramid(image, torch.ones_like(image[:, :1]), lambda stride, features: features)
    return found


def bands(count: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.cat([reference_view(size, seed) for seed in range(count)], dim=1)


def test_levels_have_their_strides_and_channels_and_are_not_flat() -> None:
    cfg = PyramidCfg()
    levels = describe(build(), bands(1))
    assert tuple(levels) == STRIDES
    for (stride, level), channels in zip(levels.items(), cfg.outputs, strict=True):
        assert level.shape == (1, channels, SIZE[0] // stride, SIZE[1] // stride)
        assert float(level.std((-2, -1)).min()) > 0.01


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("orientation", [None, OrientationCfg()], ids=["plain", "orientation"])
def test_every_cell_is_centred_between_its_pixels(axis: int, orientation: OrientationCfg | None) -> None:
    """With symmetric filters, flipping commutes with describing only if cell i lies at s * i + (s - 1) / 2.

    Any other offset o of the cells would move them by 2 o between the two sides.
    """
    pyramid = build(orientation=orientation)
    image = bands(2)
    before = describe(pyramid, image.flip(axis))
    plain = describe(pyramid, image)
    mirror(pyramid)
    there, back = describe(pyramid, image.flip(axis)), describe(pyramid, image)
    for stride in STRIDES:
        torch.testing.assert_close(there[stride], back[stride].flip(axis), atol=2e-5, rtol=0)
        # ... and the test sees more than a network that is symmetric whatever its filters.
        assert float((before[stride] - plain[stride].flip(axis)).abs().max()) > 0.05


def test_an_impulse_appears_at_its_place_on_every_level() -> None:
    """Energy of the response to a small bright block, in pixels by the half-pixel rule, lies around the block."""
    pyramid = mirror(build(orientation=None))
    assert isinstance(pyramid, CompactPyramid)
    image = torch.zeros(1, 1, 128, 128)
    # Rows 47, 48 and columns 79, 80 surround corners of cells of all strides: a symmetric place for all levels.
    image[..., 47:49, 79:81] = 8.0
    still = describe(pyramid, torch.zeros_like(image))
    for stride, level in describe(pyramid, image).items():
        energy = (level - still[stride]).square().sum(1)[0]
        energy = torch.where(energy > 0.05 * energy.max(), energy, 0.0)
        place = torch.arange(128 // stride) * stride + (stride - 1) / 2
        assert float((energy.sum(0) * place).sum() / energy.sum()) == pytest.approx(79.5, abs=0.1 * stride)
        assert float((energy.sum(1) * place).sum() / energy.sum()) == pytest.approx(47.5, abs=0.1 * stride)


def test_the_order_of_the_bands_does_not_matter() -> None:
    pyramid, image = build(), bands(3)
    first = describe(pyramid, image)
    for order in permutations(range(3)):
        for stride, level in describe(pyramid, image[:, list(order)]).items():
            torch.testing.assert_close(level, first[stride], atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_grey_image_is_the_same_however_often_its_band_is_repeated(count: int) -> None:
    pyramid, image = build(), bands(1)
    for stride, level in describe(pyramid, image.expand(-1, count, -1, -1)).items():
        torch.testing.assert_close(level, describe(pyramid, image)[stride], atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_band_counts(count: int) -> None:
    pyramid, image = build(), bands(count)
    whole = describe(pyramid, image)[2]
    for band in range(count):
        other = image.clone()
        other[:, band] = reference_view(SIZE, 99)[:, 0]
        assert float((describe(pyramid, other)[2] - whole).abs().mean()) > 0.01


def test_images_of_a_batch_do_not_see_each_other() -> None:
    pyramid = build()
    images = torch.cat([bands(2), reference_view(SIZE, 7).expand(-1, 2, -1, -1)])
    together = describe(pyramid, images)
    for i in range(2):
        for stride, level in describe(pyramid, images[i : i + 1]).items():
            torch.testing.assert_close(together[stride][i : i + 1], level, atol=1e-5, rtol=0)


def test_levels_pass_through_the_enhancer_before_they_are_merged() -> None:
    """Silencing level s in the enhancer must change levels up to s, and none coarser: coarser ones do not use it."""
    pyramid, image = build(), bands(1)
    mask = torch.ones_like(image)
    plain = describe(pyramid, image)
    for silent in STRIDES[:-1]:
        with torch.no_grad():
            found = pyramid(image, mask, lambda stride, x, s=silent: x * 0 if stride == s else x)
        for stride in STRIDES:
            is_changed = float((found[stride] - plain[stride]).abs().max()) > 1e-3
            assert is_changed == (stride <= silent)


def test_padding_repeats_the_last_row_and_column() -> None:
    image = torch.arange(35.0).reshape(1, 1, 5, 7)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 1, 8, 8)
    torch.testing.assert_close(padded[..., :5, :7], image)
    assert bool((padded[..., :, 7] == padded[..., :, 6]).all())
    assert bool((padded[..., 5:, :] == padded[..., 4:5, :]).all())
    assert pad_to_multiple(padded, 4) is padded


def test_orientation_channels_of_another_stride_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pyramid\.orientation\.stride is 4; .* stride 2$"):
        PyramidCfg(orientation=OrientationCfg(stride=4))


# --- the shortcut of the orientation channels -------------------------------------------------------------------------


def oriented(image: Tensor, stride: int) -> Tensor:
    """Orientation channels averaged to `stride`, as large as the features start with them."""
    channels, _ = orientation_channels(image, torch.ones_like(image[:, :1]), OrientationCfg())
    return 4.0 * F.avg_pool2d(channels, stride // 2)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_shortcut_hands_on_the_orientation_channels_and_adds_what_the_heads_say(stride: int) -> None:
    pyramid, image = build(shortcut=True), bands(3)
    untrained = describe(pyramid, image)[stride]
    for head in pyramid.head[:-1]:
        torch.nn.init.zeros_(head.weight)  # type: ignore[arg-type]
        assert not head.bias.any()  # type: ignore[operator, union-attr]
    alone = describe(pyramid, image)[stride]
    count = OrientationCfg().count
    torch.testing.assert_close(alone[:, :count], oriented(image, stride), atol=1e-5, rtol=0)
    assert not alone[:, count:].any()
    # Before training the heads add little, but every channel takes part.
    added = untrained - alone
    assert float(added.std()) < 0.2
    assert float(added.std((0, 2, 3)).min()) > 0.01
    both = torch.stack([untrained[:, :count].flatten(), alone[:, :count].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.8


def test_a_shortcut_leaves_the_coarse_level_alone() -> None:
    image = bands(3)
    plain, short = (describe(build(shortcut=shortcut), image)[16] for shortcut in (False, True))
    assert torch.equal(plain, short)


@pytest.mark.parametrize(
    "settings",
    [{"orientation": None}, {"outputs": (11, 24, 32, 96)}, {"outputs": (16, 24, 11, 96)}],
    ids=["no channels", "too few at 1/2", "too few at 1/8"],
)
def test_a_shortcut_without_room_for_the_channels_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"pyramid\.shortcut needs orientation channels"):
        PyramidCfg(shortcut=True, **settings)  # type: ignore[arg-type]
    PyramidCfg(shortcut=False, **settings)  # type: ignore[arg-type]


def test_a_shortcut_has_room_with_one_output_for_each_channel() -> None:
    pyramid, image = build(shortcut=True, outputs=(12, 12, 12, 4)), bands(1)
    assert [level.shape[1] for level in describe(pyramid, image).values()] == [12, 12, 12, 4]
