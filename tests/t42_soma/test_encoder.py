"""The encoder: any size, half-pixel rule through the whole of it, and masks that nothing passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.soma.encoder import Encoded, Encoder, EncoderCfg, detail, three_bands
from somareg.soma.fge import FgeCfg
from somareg.types import Modality
from tests.t40_matching.textures import reference_view
from tests.t42_soma.mirrored import mirror

STRIDES = (2, 4, 8, 16)


def build(cfg: EncoderCfg | None = None) -> Encoder:
    torch.manual_seed(0)
    return Encoder(cfg or EncoderCfg()).eval()


def describe(encoder: Encoder, image: Tensor, mask: Tensor | None = None, modality: Modality = "optical") -> Encoded:
    with torch.no_grad():
        found: Encoded = encoder(image, torch.ones_like(image[:, :1]) if mask is None else mask, modality)
    return found


@pytest.mark.parametrize("size", [(64, 64), (65, 79), (71, 130), (127, 64)])
@pytest.mark.parametrize("modality", ["sar", "optical", "other"])
def test_any_size_gives_whole_cells(size: tuple[int, int], modality: Modality) -> None:
    found = describe(build(), reference_view(size), modality=modality)
    for stride in STRIDES:
        shape = size[0] // stride, size[1] // stride
        assert found.pyramid[stride].shape == (1, EncoderCfg().outputs[stride], *shape)
        assert found.valid[stride].shape == (1, 1, *shape)
        assert bool((found.valid[stride] == 1).all())
        assert bool(torch.isfinite(found.pyramid[stride]).all())


@pytest.mark.parametrize("size", [(63, 64), (200, 63)])
def test_smaller_images_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=rf"at least 64 px, not {size[0]} x {size[1]}"):
        describe(build(), reference_view(size))


def test_what_lies_beyond_the_last_whole_cell_moves_no_cell() -> None:
    """An odd image is its even part plus a rim: inner cells stay where they are and (almost) what they are."""
    encoder, image = build(), reference_view((112, 112))
    whole, cut = describe(encoder, image), describe(encoder, image[..., :101, :107])
    for stride in (2, 4):
        inner = slice(0, 64 // stride)
        a, b = whole.pyramid[stride][..., inner, inner], cut.pyramid[stride][..., inner, inner]
        assert float((a - b).square().mean() / a.var()) < 0.03  # normalisation over the image makes the difference
        off_by_one = whole.pyramid[stride][..., inner, slice(1, 64 // stride + 1)]
        assert float((off_by_one - b).square().mean() / a.var()) > 0.1


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("fge", [None, FgeCfg()], ids=["without", "with"])
def test_every_cell_is_centred_between_its_pixels_with_the_enhancer(axis: int, fge: FgeCfg | None) -> None:
    encoder, image = build(EncoderCfg(fge=fge)), reference_view((64, 96))
    plain, turned = describe(encoder, image), describe(encoder, image.flip(axis))
    assert float((turned.pyramid[2].flip(axis) - plain.pyramid[2]).abs().max()) > 0.05
    mirror(encoder)
    plain, turned = describe(encoder, image), describe(encoder, image.flip(axis))
    for stride in STRIDES:
        torch.testing.assert_close(turned.pyramid[stride].flip(axis), plain.pyramid[stride], atol=5e-5, rtol=0)


# --- masks ------------------------------------------------------------------------------------------------------------


def hole(size: tuple[int, int]) -> Tensor:
    """A mask with an invalid corner and an invalid block inside."""
    mask = torch.ones(1, 1, *size)
    mask[..., :23, :31] = 0
    mask[..., 50:67, 60:75] = 0
    return mask


@pytest.mark.parametrize("garbage", [1e4, -3e5])
@pytest.mark.parametrize("size", [(96, 96), (91, 99)])
def test_values_of_invalid_pixels_have_no_influence(garbage: float, size: tuple[int, int]) -> None:
    encoder, image, mask = build(), reference_view(size), hole(size)
    clean = describe(encoder, image * mask, mask)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    dirty = describe(encoder, torch.where(mask > 0, image, garbage * noise), mask)
    for stride in STRIDES:
        assert torch.equal(clean.pyramid[stride], dirty.pyramid[stride])
        assert torch.equal(clean.valid[stride], dirty.valid[stride])


def test_a_cell_is_valid_where_most_of_it_is_imagery() -> None:
    mask = torch.ones(1, 1, 64, 64)
    mask[..., :8, :9] = 0  # 72 of the first 256 pixels
    mask[..., 16:32, 0:9] = 0  # 144 of 256
    valid = describe(build(), reference_view((64, 64)), mask).valid
    assert valid[16][0, 0, :2, 0].tolist() == [1, 0]
    assert valid[8][0, 0, 0, :2].tolist() == [0, 1]  # 64 and 8 of 64 are invalid
    assert valid[2][0, 0, 0, 3:6].tolist() == [0, 0, 1]  # half of the cell at columns 8 and 9 is not most of it


def test_an_image_without_any_valid_pixel_is_described_by_finite_numbers() -> None:
    found = describe(build(), torch.randn(1, 1, 64, 80), torch.zeros(1, 1, 64, 80))
    for stride in STRIDES:
        assert bool(torch.isfinite(found.pyramid[stride]).all())
        assert float(found.valid[stride].sum()) == 0


# --- modalities, modes, switches --------------------------------------------------------------------------------------


def test_sar_has_its_own_branch_and_everything_else_shares_one() -> None:
    encoder, image = build(), reference_view((64, 64))
    sar, optical, other = (describe(encoder, image, modality=m).pyramid[2] for m in ("sar", "optical", "other"))
    assert torch.equal(optical, other)
    assert float((sar - optical).abs().mean()) > 0.05
    ours = {name.split(".")[1] for name, _ in encoder.named_parameters()}
    assert ours == {"sar", "optical"}


def test_train_mode_adds_the_reconstruction_loss_and_changes_no_feature() -> None:
    encoder, image = build(), reference_view((64, 64))
    quiet = describe(encoder, image)
    encoder.train()
    loud = describe(encoder, image)
    assert float(quiet.reconstruction) == 0
    assert float(loud.reconstruction) > 0
    for stride in STRIDES:
        torch.testing.assert_close(quiet.pyramid[stride], loud.pyramid[stride], atol=1e-6, rtol=0)


def test_before_and_after_are_what_enters_and_leaves_the_enhancers() -> None:
    encoder, image = build(), reference_view((64, 64))
    found = describe(encoder, image)
    enhancers = encoder.branches["optical"].enhancers  # type: ignore[union-attr]
    assert tuple(found.before) == tuple(found.after) == STRIDES[:-1]
    for stride in STRIDES[:-1]:
        with torch.no_grad():
            again = enhancers[str(stride)].enhance(found.before[stride])  # type: ignore[index,operator]
        torch.testing.assert_close(found.after[stride], again)
    bare = describe(build(EncoderCfg(fge=None)), image)
    assert not bare.before
    assert not bare.after


def test_an_untrained_enhancer_leaves_the_features_nearly_as_they_are() -> None:
    found = describe(build(), reference_view((64, 64)))
    for stride in STRIDES[:-1]:
        cosine = torch.nn.functional.cosine_similarity(found.before[stride], found.after[stride], dim=1)
        assert float(cosine.mean()) > 0.8


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_published_backbone_sees_three_bands(count: int) -> None:
    image = torch.randn(1, count, 4, 5)
    seen = three_bands(image)
    assert seen.shape == (1, 3, 4, 5)
    for band in range(3):
        torch.testing.assert_close(seen[:, band], image[:, min(band, count - 1)])


def test_detail_takes_out_the_mean_around_and_spares_what_is_not_valid() -> None:
    generator = torch.Generator().manual_seed(0)
    features, valid = torch.randn(2, 3, 20, 30, generator=generator), torch.ones(2, 1, 20, 30)
    valid[..., :12] = 0
    found = detail(features + 100.0 * valid, valid, 5)
    for y, x in ((0, 12), (9, 14), (19, 29)):
        rows, columns = slice(max(0, y - 2), y + 3), slice(max(12, x - 2), x + 3)
        torch.testing.assert_close(
            found[..., y, x], features[..., y, x] - features[..., rows, columns].mean((-2, -1)), atol=1e-4, rtol=0
        )
    assert not found[..., :12].any()


def test_an_encoder_may_hand_out_detail_only() -> None:
    plain, fine = (Encoder(EncoderCfg(detail=side)).eval() for side in (None, 7))
    fine.load_state_dict(plain.state_dict())
    image, mask = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(1)), torch.ones(1, 1, 96, 96)
    with torch.no_grad():
        first, second = plain(image, mask, "sar"), fine(image, mask, "sar")
    for stride in (2, 4, 8):
        torch.testing.assert_close(second.pyramid[stride], detail(first.pyramid[stride], first.valid[stride], 7))
    torch.testing.assert_close(second.pyramid[16], first.pyramid[16])
    for bad in (1, 4):
        with pytest.raises(ConfigError, match=r"encoder\.detail"):
            EncoderCfg(detail=bad)
