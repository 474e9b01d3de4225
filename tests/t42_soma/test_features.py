"""What the windows compare: which levels are described, and images narrower than a network takes."""

from __future__ import annotations

import pytest
import torch

from somareg.matching.describe import OrientationFeatures
from somareg.matching.engine import FRESH_PX, EngineCfg, preset
from somareg.matching.windows import WindowCfg
from somareg.soma.encoder import EncoderCfg
from somareg.soma.features import LearnedFeatures
from somareg.soma.glam.affine_flow import StageCfg
from somareg.soma.glam.matcher import GlamCfg
from somareg.soma.network import NetworkCfg, Soma


def stages(*strides: int) -> tuple[StageCfg, ...]:
    return tuple(StageCfg(stride, WindowCfg(16, 4, 4), iterations=2 if stride == 4 else 1) for stride in strides)


@pytest.mark.parametrize(("of_stages", "given"), [((8, 4, 2), (2, 4, 8)), ((2, 2), (2,)), ((4,), (4,))])
def test_only_the_strides_of_the_stages_are_described(of_stages: tuple[int, ...], given: tuple[int, ...]) -> None:
    """They are those of the whole pyramid."""
    network = Soma(NetworkCfg(EncoderCfg(detail=7), GlamCfg(stages=stages(*of_stages)))).eval()
    image, mask = torch.randn(1, 2, 80, 96), torch.ones(1, 1, 80, 96)
    mask[..., :20] = 0
    describe = LearnedFeatures(network)
    assert describe.strides == given
    with torch.inference_mode():
        whole, some = network.encode(image, mask, "sar"), describe(image, mask, "sar")
    assert tuple(some) == given
    for stride, (features, valid) in some.items():
        torch.testing.assert_close(features, whole.pyramid[stride] * whole.valid[stride], rtol=0, atol=0)
        torch.testing.assert_close(valid, whole.valid[stride], rtol=0, atol=0)


def test_the_engine_takes_the_steps_that_were_trained() -> None:
    network = Soma(NetworkCfg(glam=GlamCfg(stages=stages(8, 4, 2)))).eval()
    features, cfg = LearnedFeatures(network), EngineCfg()
    for shape, last in (((160, 160), FRESH_PX), ((512, 400), cfg.reuse_px)):
        steps = cfg.steps(features, shape)
        assert [step.stride for step in steps] == [8, 4, 4, 2]  # a stage that iterates is a step each time
        assert [step.window for step in steps] == [step.window for step in features.steps]
        assert [step.reuse_px for step in steps] == [None, FRESH_PX, FRESH_PX, last]
    hasty = preset("fast").steps(features, (512, 512))
    assert [step.stride for step in hasty] == [8, 2]
    assert cfg.steps(OrientationFeatures(cfg.features), (512, 512)) == cfg.near


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
