"""What the windows compare: which levels are described, and images narrower than a network takes."""

from __future__ import annotations

import pytest
import torch

from somareg.soma.encoder import EncoderCfg
from somareg.soma.features import LearnedFeatures
from somareg.soma.network import NetworkCfg, Soma


@pytest.mark.parametrize(("wanted", "given"), [(None, (2, 4, 8)), ({4}, (2, 4)), (set(), (2,)), ({2, 16}, (2,))])
def test_only_the_strides_that_are_asked_for_are_described(wanted: set[int] | None, given: tuple[int, ...]) -> None:
    """And the finest; they are those of the whole pyramid."""
    network = Soma(NetworkCfg(EncoderCfg(detail=7))).eval()
    image, mask = torch.randn(1, 2, 80, 96), torch.ones(1, 1, 80, 96)
    mask[..., :20] = 0
    describe = LearnedFeatures(network, None if wanted is None else frozenset(wanted))
    assert describe.strides == given
    with torch.inference_mode():
        whole, some = network.encode(image, mask, "sar"), describe(image, mask, "sar")
    assert tuple(some) == given
    for stride, (features, valid) in some.items():
        torch.testing.assert_close(features, whole.pyramid[stride] * whole.valid[stride], rtol=0, atol=0)
        torch.testing.assert_close(valid, whole.valid[stride], rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(33, 200), (90, 40), (33, 40)])
def test_a_narrow_image_is_described_with_nothing_beside_it(height: int, width: int) -> None:
    """A strip's votes see it narrower than a network takes."""
    network = Soma(NetworkCfg(EncoderCfg(detail=7))).eval()
    image, mask = torch.randn(1, 2, height, width), torch.ones(1, 1, height, width)
    tall, wide = max(height, 64), max(width, 64)
    roomy, seen = torch.zeros(1, 2, tall, wide), torch.zeros(1, 1, tall, wide)
    roomy[..., :height, :width], seen[..., :height, :width] = image, mask
    with torch.inference_mode():
        narrow, whole = LearnedFeatures(network)(image, mask, "sar"), LearnedFeatures(network)(roomy, seen, "sar")
    for stride, (features, valid) in narrow.items():
        assert valid.shape == (1, 1, height // stride, width // stride)
        assert valid.all()
        expected = whole[stride][0][..., : height // stride, : width // stride]
        torch.testing.assert_close(features, expected, rtol=0, atol=0)
