"""GLAM on features that are exact functions of the ground: stages, their order, switches, local flow."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.matching.affine import apply_affine_batch, compose_batch, invert_batch
from somareg.matching.windows import WindowCfg
from somareg.soma.encoder import Encoded
from somareg.soma.glam.affine_flow import StageCfg, StageEstimate, default_stages
from somareg.soma.glam.coarse import cell_centres
from somareg.soma.glam.local_flow import LocalCfg, local_flow
from somareg.soma.glam.matcher import Glam, GlamCfg, GlamOutput
from tests.t40_matching.textures import Size, affine, ground, off, standard

IDENTITY = torch.eye(2, 3, dtype=torch.float64)[None]
CHANNELS = {2: 4, 4: 4, 8: 4, 16: 96}
SIZE = (160, 176)


def encoded(truth: Tensor, size: Size, *, bend: bool = False, valid: bool = True) -> Encoded:
    """Features of an image whose pixel q shows the ground at truth^-1(q), bent by `wave` before."""
    pyramid, seen = {}, {}
    for stride, channels in CHANNELS.items():
        cells = size[0] // stride, size[1] // stride
        where = apply_affine_batch(invert_batch(truth), cell_centres(*cells, stride)[None].double())[0]
        if bend:  # moving <- truth @ (x + wave(x)): a pixel shows the ground x with x + wave(x) = truth^-1(q)
            place = where.clone()
            for _ in range(30):
                place = where - wave(place)
            where = place
        where = where.reshape(*cells, 2) * 4 / max(stride, 4)
        maps = [standard(ground(where, seed, waves=40 if stride == 16 else 96)) for seed in range(channels)]
        pyramid[stride] = torch.stack(maps)[None].float()
        seen[stride] = torch.full((1, 1, *cells), float(valid))
    return Encoded(pyramid, seen, {}, {}, torch.zeros(()))


def wave(points: Tensor) -> Tensor:
    """A smooth displacement of up to about 1.5 px."""
    x, y = points.unbind(-1)
    return 1.5 * torch.stack([torch.sin(y / 22.0 + 0.5), torch.cos(x / 25.0)], dim=-1)


def build(cfg: GlamCfg | None = None, temperature: float = 6.0) -> Glam:
    """Temperature for features that agree exactly; the default is for SAR against optical."""
    torch.manual_seed(0)
    glam = Glam(CHANNELS, cfg or GlamCfg()).eval()
    for parameter in glam.log_temperature.values():
        torch.nn.init.constant_(parameter, math.log(temperature))
    return glam


def match(glam: Glam, truth: Tensor, start: Tensor | None = IDENTITY, **images: bool) -> GlamOutput:
    with torch.no_grad():
        found: GlamOutput = glam(encoded(IDENTITY, SIZE), encoded(truth, SIZE, **images), start=start)
    return found


TRUTH = affine(SIZE, degrees=2.0, scale=1.02, shift=(5.0, -4.0))


# --- stages -----------------------------------------------------------------------------------------------------------


def test_estimates_come_in_order_and_each_starts_where_the_last_one_ended() -> None:
    stages = tuple(replace(stage, iterations=n) for stage, n in zip(default_stages(), (1, 2, 3), strict=True))
    found = match(build(GlamCfg(stages=stages)), TRUTH)
    assert [estimate.name for estimate in found.stages] == ["1/8", "1/4", "1/4", "1/2", "1/2", "1/2"]
    assert [estimate.stride for estimate in found.stages] == [8, 4, 4, 2, 2, 2]
    assert found.coarse is None  # a start replaces it
    start = IDENTITY
    for estimate in found.stages:
        torch.testing.assert_close(estimate.start, start)
        start = estimate.affine
    assert torch.equal(found.affine, start)
    errors = [off(estimate.affine, TRUTH, SIZE) for estimate in found.stages]
    assert errors[-1] < 0.15
    assert errors[0] > errors[2] > errors[-1]


def test_the_coarse_fit_is_the_start() -> None:
    found = match(build(), affine(SIZE, shift=(32.0, -16.0)), None)
    assert found.coarse is not None
    torch.testing.assert_close(found.stages[0].start, found.coarse.fit.matrix)
    assert off(found.coarse.fit.matrix, affine(SIZE, shift=(32.0, -16.0)), SIZE) < 6
    assert off(found.affine, affine(SIZE, shift=(32.0, -16.0)), SIZE) < 0.5  # out of reach of the stages alone


def test_identical_images_stay_where_they_are_at_every_stage() -> None:
    found = match(build(temperature=25.0), IDENTITY)
    for estimate in found.stages:
        # Chance asymmetry of the windows, less with more of them.
        assert off(estimate.affine, IDENTITY, SIZE) < 0.03 * estimate.stride
    assert found.flow is not None
    assert float(found.flow.abs().max()) < 0.05


def test_training_may_bring_its_own_starts() -> None:
    """And every estimate is a function of its own start only: no gradient flows from stage to stage."""
    asked: list[tuple[int, Tensor]] = []
    given = [affine(SIZE, shift=(s, 1.0)) for s in (4.0, 3.0, 6.0)]

    def starts(cfg: StageCfg, so_far: Tensor) -> Tensor:
        asked.append((cfg.stride, so_far))
        return given[len(asked) - 1]

    glam = build()
    fixed, moved = encoded(IDENTITY, SIZE), encoded(TRUTH, SIZE)
    for level in moved.pyramid.values():
        level.requires_grad_()
    found = glam(fixed, moved, start=IDENTITY, starts=starts)
    assert [stride for stride, _ in asked] == [8, 4, 2]
    for estimate, start, (_, so_far) in zip(found.stages, given, asked, strict=True):
        torch.testing.assert_close(estimate.start, start)
        assert not so_far.requires_grad
        assert not estimate.start.requires_grad
        assert estimate.affine.requires_grad
    torch.testing.assert_close(asked[1][1], found.stages[0].affine.detach())
    found.stages[-1].affine.square().sum().backward()
    assert moved.pyramid[2].grad is not None
    assert moved.pyramid[4].grad is None
    assert moved.pyramid[8].grad is None


def test_encoding_again_under_the_start_gives_the_same_answer() -> None:
    """Features warped before the stages: composition with the base must be undone, in this order."""
    start = affine(SIZE, degrees=30.0, shift=(3.0, -2.0))
    truth = compose_batch(start, affine(SIZE, degrees=1.0, shift=(2.5, -3.0)))
    asked: list[Tensor] = []

    def rewarp(base: Tensor) -> tuple[Encoded, Tensor]:
        asked.append(base)
        return encoded(compose_batch(invert_batch(base), truth), SIZE), base

    glam = build()
    with torch.no_grad():
        found = glam(encoded(IDENTITY, SIZE), encoded(truth, SIZE), start=start, rewarp=rewarp)
    assert len(asked) == 1
    torch.testing.assert_close(asked[0], start)
    assert off(found.affine, truth, SIZE) < 0.3


# --- switches ---------------------------------------------------------------------------------------------------------


def test_flow_only_keeps_the_start_and_leaves_all_to_the_flow() -> None:
    truth = affine(SIZE, degrees=0.8, shift=(1.2, -0.8))
    cfg = GlamCfg(affine=False, coarse=None, local=LocalCfg(variance_px2=4.0))
    found = match(build(cfg), truth)
    assert torch.equal(found.affine, IDENTITY)
    for estimate in found.stages:
        assert torch.equal(estimate.start, IDENTITY)
        assert not torch.equal(estimate.affine, IDENTITY)  # fitted all the same, to be trained
    before, after = flow_errors(found, truth, bend=False)
    assert after < 0.35 * before


def test_affine_only_has_no_flow() -> None:
    found = match(build(GlamCfg(local=None)), TRUTH)
    assert found.flow is None
    assert found.certainty is None
    assert torch.equal(found.affine, match(build(), TRUTH).affine)  # nothing else changes


def test_without_a_coarse_matcher_the_identity_is_the_start() -> None:
    glam = build(GlamCfg(coarse=None))
    found = match(glam, TRUTH, None)
    assert glam.coarse is None
    assert found.coarse is None
    assert torch.equal(found.stages[0].start, IDENTITY)


def test_at_least_one_stage_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"glam\.stages is empty"):
        Glam(CHANNELS, GlamCfg(stages=()))


# --- local flow -------------------------------------------------------------------------------------------------------


def flow_errors(found: GlamOutput, truth: Tensor, *, bend: bool = True) -> tuple[float, float]:
    """RMS distance (px) of affine, and of affine @ flow, from the truth at the flow's inner nodes."""
    assert found.flow is not None
    height, width = found.flow.shape[-2:]
    nodes = cell_centres(height, width, 16).double()
    target = apply_affine_batch(truth, (nodes + wave(nodes) if bend else nodes)[None])
    flow = found.flow[0].reshape(2, -1).mT.double()
    errors = []
    for where in (nodes, nodes + flow):
        difference = (apply_affine_batch(found.affine, where[None]) - target).square().sum(-1)
        errors.append(float(difference.reshape(height, width)[1:-1, 1:-1].mean().sqrt()))
    return errors[0], errors[1]


def test_the_flow_is_applied_before_the_affine_and_mends_what_it_left() -> None:
    """With a turn by 35 degrees in the affine, a flow in the moving frame instead would make things worse."""
    truth = affine(SIZE, degrees=35.0, shift=(2.0, 1.0))
    small = StageCfg(2, WindowCfg(size=16, margin=4, stride=5), (4.0, 4.0), limit=400)
    cfg = GlamCfg(stages=(small,), local=LocalCfg(length_px=40.0, variance_px2=8.0))
    found = match(build(cfg, temperature=20.0), truth, truth, bend=True)
    before, after = flow_errors(found, truth)
    assert before > 1.0
    assert after < 0.4 * before
    assert found.flow is not None
    turned = replace(found, flow=torch.einsum("ij,bjhw->bihw", truth[0, :, :2].float(), found.flow))
    assert flow_errors(turned, truth)[1] > 1.5 * after


def test_certainty_falls_where_nothing_was_seen() -> None:
    glam = build(GlamCfg(local=LocalCfg(length_px=30.0, variance_px2=8.0)), temperature=20.0)
    fixed, moved = encoded(IDENTITY, SIZE), encoded(IDENTITY, SIZE)
    for stride, valid in fixed.valid.items():
        valid[..., 80 // stride :] = 0
    with torch.no_grad():
        found = glam(fixed, moved, start=IDENTITY)
    assert found.certainty is not None
    assert found.certainty.shape == (1, 1, 10, 11)
    known, unknown = found.certainty[..., 1:-1, 2:4], found.certainty[..., 1:-1, -2:]
    assert float(known.min()) > 0.5 > 0.05 > float(unknown.max())
    assert float(found.certainty.min()) >= 0.0
    assert float(found.certainty.max()) <= 1.0


def test_without_imagery_there_is_no_flow_and_no_certainty() -> None:
    start = affine(SIZE, degrees=3.0)
    glam = build()
    with torch.no_grad():
        found = glam(encoded(IDENTITY, SIZE, valid=False), encoded(IDENTITY, SIZE), start=start)
    assert all(bool(estimate.refused) for estimate in found.stages)
    assert torch.equal(found.affine, start)
    assert found.flow is not None
    assert found.certainty is not None
    assert float(found.flow.abs().max()) < 0.02
    assert float(found.certainty.max()) < 0.02


def test_the_flow_is_the_posterior_mean_of_what_the_windows_say() -> None:
    """One precise window: at its place its displacement, a length away exp(-1/2) of it, far away nothing."""
    glam = build(GlamCfg(local=LocalCfg(length_px=32.0, variance_px2=2.0)))
    fixed = encoded(IDENTITY, SIZE)
    last = match(glam, IDENTITY).stages[-1]
    one = StageEstimate(
        **{
            **vars(last),
            "points": torch.tensor([[[55.5, 71.5]]]),  # a node: 16 * 3 + 7.5, 16 * 4 + 7.5
            "displacement": torch.tensor([[[1.2, -0.6]]]),
            "precision": torch.tensor([[1e6]]),
        }
    )
    cfg = glam.cfg
    assert cfg.local is not None
    flow, certainty = local_flow(one, one.start, fixed.pyramid, cfg.stages[-1].window, cfg.local)
    for cells, share in ((0, 1.0), (2, math.exp(-0.5)), (6, math.exp(-4.5))):
        expected = torch.tensor([1.2, -0.6]) * share
        torch.testing.assert_close(flow[0, :, 4, 3 + cells], expected, atol=1e-3, rtol=0)
        assert float(certainty[0, 0, 4, 3 + cells]) == pytest.approx(share**2, abs=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (67, 95), (130, 75)])
def test_any_size(size: Size) -> None:
    truth = affine(size, shift=(2.0, -1.5))
    moving_size = size[0] + 9, size[1] + 21
    with torch.no_grad():
        found = build()(encoded(IDENTITY, size), encoded(truth, moving_size), start=IDENTITY)
    assert off(found.affine, truth, size) < 0.8
    assert found.flow is not None
    assert found.flow.shape == (1, 2, size[0] // 16, size[1] // 16)
