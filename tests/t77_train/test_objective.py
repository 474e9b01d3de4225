"""The objective: least at the truth, the same every time, and every number of the network learns from it."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.lab.data.batch import PairBatch
from somareg.lab.train.losses import sample_cells
from somareg.lab.train.objective import (
    ObjectiveCfg,
    WeightsCfg,
    _flow_losses,
    _mean_over_windows,
    _perturbation,
    _Starts,
)
from somareg.matching.affine import apply_affine_batch, compose_batch
from somareg.soma.glam.affine_flow import default_stages
from somareg.soma.glam.coarse import cell_centres
from somareg.soma.glam.matcher import GlamCfg, GlamOutput
from somareg.soma.network import NetworkCfg
from tests.t40_matching.textures import Size, affine, pixels
from tests.t77_train.objective_pairs import (
    SIZE,
    WARPS,
    assert_finite,
    batch_of,
    build,
    evaluate,
    pairs,
    small,
    square,
)


def wave(size: Size, amplitude: float = 1.5, period: float = 80.0) -> Tensor:
    """(1, 2, H, W) smooth displacement, pixels."""
    x, y = (pixels(size) * (2 * math.pi / period)).unbind(-1)
    return amplitude * torch.stack([torch.sin(y + 0.5), torch.cos(x)]).float()[None]


# --- least at the truth -----------------------------------------------------------------------------------------------


def displaced(batch: PairBatch, by: Tensor) -> PairBatch:
    return replace(batch, truth=compose_batch(batch.truth.double(), by.expand(len(batch), 2, 3)).float())


WRONG = {
    "right": affine(SIZE, shift=(4.0, 0.0)),
    "up": affine(SIZE, shift=(0.0, -4.0)),
    "turned": affine(SIZE, degrees=5.0),
    "larger": affine(SIZE, scale=1.08),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_the_truth_costs_less_than_its_neighbours(wrong: Tensor) -> None:
    """And so for each loss by itself that looks at the geometry."""
    network, batch = build(), pairs()
    with torch.no_grad():
        total, right = evaluate(network, batch)
        other_total, other = evaluate(network, displaced(batch, wrong))
        back_total, back = evaluate(network, displaced(batch, torch.linalg.inv(square(wrong))[:, :2]))
    assert float(total) < min(float(other_total), float(back_total))
    for name in ("window", "affine", "nll"):
        assert float(right[name]) < min(float(other[name]), float(back[name])), name
    for name in ("matching", "coarse_affine"):  # coarse cells of 16 px hardly tell 4 px
        assert float(right[name]) < (float(other[name]) + float(back[name])) / 2, name
    assert float(right["reconstruction"]) == pytest.approx(float(other["reconstruction"]))


def test_identical_images_without_offset_cost_almost_nothing() -> None:
    network = build(small(glam=GlamCfg(coarse=None)))
    still = batch_of([affine(SIZE), affine(SIZE)])
    with torch.no_grad():
        # Stages start where they ended: at the identity, which is the truth.
        _, logs = evaluate(network, still, ObjectiveCfg(teacher=0.0))
    assert float(logs["affine"]) < 0.05
    assert float(logs["flow"]) < 0.05
    assert float(logs["uniformity"]) < 0.05
    for name in ("px_1_8", "px_1_4", "px_1_2"):
        assert float(logs[name]) < 0.1, name


@pytest.mark.parametrize("period", [72.0, 150.0])
def test_the_true_flow_costs_less_than_none_and_than_its_opposite(period: float) -> None:
    """Waves about as long as a window too, of which a window sees the mean: at its centre the flow is many times that.

    Were windows compared with the flow at their centres, the true flow would cost more than none.
    """
    size = (160, 160)
    glam = GlamCfg(coarse=None, stages=default_stages()[2:], local=None)
    network, flow = build(small(glam=glam)), wave(size, 2.0, period)
    batch = batch_of([affine(size, degrees=1.0, shift=(1.0, -1.0))], size, flow=flow)
    with torch.no_grad():
        right, none, opposite = (
            evaluate(network, replace(batch, flow=field), ObjectiveCfg(teacher=0.0))[1]
            for field in (batch.flow, None, -flow)
        )
    assert float(right["window"]) < float(none["window"]) < float(opposite["window"])


@pytest.mark.parametrize("size", [(96, 96), (104, 104), (120, 120)])
def test_flow_is_compared_at_its_own_nodes(size: Size) -> None:
    """Nodes lie at 16 i + 7.5 whatever the size of the image; given the true residual there, the loss is 0."""
    batch = batch_of([affine(size, degrees=2.0, shift=(1.0, 2.0))], size, flow=wave(size))
    network = build(small(glam=GlamCfg(coarse=None)))
    with torch.no_grad():
        fixed = network.encode(batch.reference, batch.reference_mask, "optical")
        output: GlamOutput = network.glam(fixed, fixed)
    assert output.flow is not None
    height, width = output.flow.shape[-2:]
    nodes = cell_centres(height, width, 16)[None]
    assert batch.flow is not None
    exact = sample_cells(batch.flow, nodes, 1).mT.reshape(1, 2, height, width)
    perfect = replace(output, affine=batch.truth.double(), flow=exact)
    losses = _flow_losses(perfect, batch, torch.ones(1), fixed.valid[2], 16)
    assert float(losses["flow"]) < 1e-3
    assert float(losses["uniformity"]) < 1e-3
    worse = _flow_losses(replace(perfect, flow=exact + 0.5), batch, torch.ones(1), fixed.valid[2], 16)
    assert float(worse["flow"]) == pytest.approx(math.sqrt(0.5), abs=0.02)


def test_windows_are_held_against_the_mean_of_the_flow_over_them() -> None:
    stage = default_stages()[2]  # windows of 56 px
    flow = wave((160, 160), 1.0, 57.0)  # a period that a window just holds: nothing is left of it
    mean = _mean_over_windows(flow, stage)
    assert mean.shape == flow.shape
    assert float(mean[..., 40:-40, 40:-40].abs().max()) < 0.01
    slow = wave((160, 160), 1.0, 2000.0)
    torch.testing.assert_close(
        _mean_over_windows(slow, stage)[..., 40:-40, 40:-40], slow[..., 40:-40, 40:-40], atol=0.005, rtol=0
    )
    assert torch.equal(_mean_over_windows(torch.ones(1, 2, 70, 70), stage), torch.ones(1, 2, 70, 70))


# --- starts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [5.0, 20.0])
def test_perturbations_stay_within_their_margin_and_use_it(margin: float) -> None:
    torch.manual_seed(0)
    drawn = _perturbation(500, margin, 96, torch.device("cpu"))
    corners = torch.tensor([[0.0, 0.0], [95.0, 0.0], [0.0, 95.0], [95.0, 95.0]], dtype=torch.float64)
    moved = (apply_affine_batch(drawn, corners.expand(500, 4, 2)) - corners).abs().amax((1, 2))
    assert float(moved.max()) <= margin
    assert float(moved.median()) > 0.3 * margin
    assert float(drawn[:, :, 2].mean().abs()) < 0.1 * margin


def test_stages_start_in_reach_of_the_truth() -> None:
    """Where the last stage ended if that is in reach and no lesson is due, near the truth otherwise."""
    batch = pairs(count=3)
    truth = batch.truth.double()
    stage = default_stages()[2]
    near = compose_batch(truth, affine(SIZE, shift=(1.0, 1.0)).expand(3, 2, 3))
    far = compose_batch(truth, affine(SIZE, shift=(60.0, 0.0)).expand(3, 2, 3))
    torch.manual_seed(0)
    own, taught = _Starts(batch, ObjectiveCfg(teacher=0.0)), _Starts(batch, ObjectiveCfg(teacher=1.0))
    assert torch.equal(own(stage, near), near)
    for start in (own(stage, far), taught(stage, near), own(stage, torch.full_like(far, torch.nan))):
        assert not torch.equal(start, near)
        distance = apply_affine_batch(start, pixels(SIZE).expand(3, *SIZE, 2)) - apply_affine_batch(
            truth, pixels(SIZE).expand(3, *SIZE, 2)
        )
        assert 0.0 < float(distance.abs().max()) < stage.window.margin * stage.stride


# --- every number learns ----------------------------------------------------------------------------------------------


def test_every_parameter_of_the_default_network_gets_a_finite_gradient() -> None:
    """No exception: key biases, whose exact gradient is zero (softmax does not see them), get rounding errors."""
    network = build(NetworkCfg())
    for truths in ([affine(SIZE, **WARPS[0])], [affine(SIZE, **WARPS[1])]):  # type: ignore[arg-type]
        batch = batch_of(truths)
        batch = replace(batch, moving=-batch.moving, modalities=("optical", "sar"))
        loss, logs = evaluate(network, batch)
        loss.backward()
        assert_finite(network, loss, logs)
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == []
    still = {name for name, p in network.named_parameters() if not bool((p.grad != 0).any())}  # type: ignore[union-attr]
    assert still == set()


def test_weights_of_zero_leave_their_loss_out() -> None:
    network, batch = build(), pairs(count=1)
    logs = evaluate(network, batch, progress=1.0)[1]
    for item in fields(WeightsCfg):
        if item.name in ("cycle", "sharpen"):
            continue
        only = WeightsCfg(**{f.name: float(f.name == item.name) for f in fields(WeightsCfg)})
        with torch.no_grad():
            total, own = evaluate(network, batch, ObjectiveCfg(weights=only))
        torch.testing.assert_close(total, own[item.name].float())
        if item.name != "affine":
            # Without gradients means are added up in another order.
            torch.testing.assert_close(own[item.name].float(), logs[item.name].float(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"objective\.weights\.flow is negative"):
        ObjectiveCfg(weights=WeightsCfg(flow=-1.0))


def test_the_last_pixel_is_sharpened_late_only() -> None:
    network, batch = build(), pairs(count=1)
    with torch.no_grad():
        early, late = (evaluate(network, batch, progress=p)[1]["affine"] for p in (0.69, 0.7))
        never = evaluate(network, batch, ObjectiveCfg(weights=WeightsCfg(sharpen=0.0)), progress=1.0)[1]["affine"]
    assert float(late) > float(early) == float(never)


def test_one_seed_gives_one_loss_and_one_gradient() -> None:
    results = []
    for seed in (3, 3, 4):
        network = build()
        loss, logs = evaluate(network, replace(pairs(), modalities=("optical", "sar")), seed=seed)
        loss.backward()
        results.append((loss.detach(), logs, [p.grad for p in network.parameters()]))
    (first, logs, gradients), (again, same_logs, same_gradients), (other, _, _) = results
    assert torch.equal(first, again)
    assert all(torch.equal(logs[name], same_logs[name]) for name in logs)
    for a, b in zip(gradients, same_gradients, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
    assert not torch.equal(first, other)  # other starts
