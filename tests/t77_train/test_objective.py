"""The objective: least at the truth, the same every time, and every number of the network learns from it."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.features.orientation import OrientationCfg
from somareg.lab.data.batch import PairBatch
from somareg.lab.train.losses import sample_cells
from somareg.lab.train.objective import (
    ObjectiveCfg,
    WeightsCfg,
    _flow_losses,
    _mean_over_windows,
    _perturbation,
    _Starts,
    objective,
)
from somareg.matching.affine import apply_affine_batch, compose_batch
from somareg.soma.encoder import EncoderCfg
from somareg.soma.fge import FgeCfg
from somareg.soma.glam.affine_flow import StageCfg, default_stages
from somareg.soma.glam.coarse import CoarseCfg, cell_centres
from somareg.soma.glam.matcher import GlamCfg, GlamOutput
from somareg.soma.network import NetworkCfg, Soma
from somareg.soma.pyramid import PyramidCfg
from tests.t40_matching.textures import Size, affine, ground, pixels, reference_view, standard, view

SIZE = (96, 96)
WARPS = (
    {"degrees": 2.0, "shift": (3.2, -2.4)},
    {"degrees": -1.5, "scale": 1.02, "shift": (-2.7, 1.6)},
    {"scale": 0.98, "shift": (1.3, 3.1)},
)
FGE = FgeCfg(directions=4, sigmas=(0.8,))
COMPACT = PyramidCfg(4, (8, 12, 16, 16), (1, 1, 1, 1), (8, 8, 8, 16), OrientationCfg(4, ((1.0, 1.0),)))
COARSE = CoarseCfg(channels=16, layers=1, heads=2)


def small(fge: FgeCfg | None = FGE, glam: GlamCfg | None = None) -> NetworkCfg:
    return NetworkCfg(EncoderCfg(compact=COMPACT, fge=fge), glam or GlamCfg(coarse=COARSE))


def build(cfg: NetworkCfg | None = None) -> Soma:
    torch.manual_seed(0)
    return Soma(cfg or small()).train()


def batch_of(truths: list[Tensor], size: Size = SIZE, flow: Tensor | None = None) -> PairBatch:
    """One sensor on both sides, so that an untrained network has something to say."""
    references = torch.cat([reference_view(size, seed) for seed in range(len(truths))])
    if flow is None:
        movings = torch.cat([view(truth, size, seed) for seed, truth in enumerate(truths)])
    else:
        movings = torch.cat([bent_view(truth, flow, size, seed) for seed, truth in enumerate(truths)])
    seen, truth = torch.ones_like(references), torch.cat(truths).float()
    field = None if flow is None else flow.expand(len(truths), -1, -1, -1).contiguous()
    return PairBatch(references, seen, movings, seen, truth, field, ("optical", "optical"))


def wave(size: Size, amplitude: float = 1.5, period: float = 80.0) -> Tensor:
    """(1, 2, H, W) smooth displacement, pixels."""
    x, y = (pixels(size) * (2 * math.pi / period)).unbind(-1)
    return amplitude * torch.stack([torch.sin(y + 0.5), torch.cos(x)]).float()[None]


def bent_view(truth: Tensor, flow: Tensor, size: Size, seed: int) -> Tensor:
    """The moving image of `moving <- truth @ (x + flow(x))`; the ground of pixel q solves that for x."""
    q = apply_affine_batch(torch.linalg.inv(square(truth))[:, :2], pixels(size)[None])[0]
    x = q.clone()
    for _ in range(30):
        x = q - sample_cells(flow.double(), x.reshape(1, -1, 2), 1).reshape(*size, 2)
    return standard(ground(x, seed)).float()[None, None]


def square(truth: Tensor) -> Tensor:
    return torch.cat([truth, truth.new_tensor([[[0.0, 0.0, 1.0]]])], dim=1)


def pairs(size: Size = SIZE, count: int = 2) -> PairBatch:
    return batch_of([affine(size, **warp) for warp in WARPS[:count]], size)  # type: ignore[arg-type]


def evaluate(
    network: Soma, batch: PairBatch, cfg: ObjectiveCfg | None = None, *, progress: float = 0.0, seed: int = 7
) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    total, logs = objective(network, batch, cfg or ObjectiveCfg(), step=0, progress=progress)
    return total, {name: value.detach() for name, value in logs.items()}


def assert_finite(network: Soma, loss: Tensor, logs: dict[str, Tensor]) -> None:
    assert bool(torch.isfinite(loss))
    for name, value in logs.items():
        assert bool(torch.isfinite(value)), name
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name


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


# --- hard batches -----------------------------------------------------------------------------------------------------


def test_no_flow_is_a_flow_of_zero() -> None:
    network, batch = build(), pairs(count=1)
    with torch.no_grad():
        none, logs = evaluate(network, batch)
        zero, zero_logs = evaluate(network, replace(batch, flow=torch.zeros(1, 2, *SIZE)))
    torch.testing.assert_close(none, zero)
    for name in logs:
        torch.testing.assert_close(logs[name], zero_logs[name])


def test_pairs_that_turn_far_train_the_coarse_matcher_only() -> None:
    network = build()
    loss, logs = evaluate(network, batch_of([affine(SIZE, degrees=70.0), affine(SIZE, degrees=-40.0, scale=1.2)]))
    loss.backward()
    assert_finite(network, loss, logs)
    for name in ("window", "nll", "affine", "flow", "certainty"):
        assert float(logs[name]) == pytest.approx(0.0, abs=1e-5), name
    assert float(logs["matching"]) > 0
    assert network.glam.coarse is not None
    coarse = [p.grad for p in network.glam.coarse.parameters()]
    assert sum(float(g.abs().sum()) for g in coarse if g is not None) > 0
    for parameter in network.glam.log_temperature.values():
        assert parameter.grad is None or float(parameter.grad.abs().sum()) == 0


def test_far_pairs_do_not_change_what_near_pairs_teach_the_stages() -> None:
    """A mixed batch: the window loss is that of its near pair, starts being equal."""
    network = build()
    near, far = affine(SIZE, **WARPS[0]), affine(SIZE, degrees=80.0)  # type: ignore[arg-type]
    cfg = ObjectiveCfg(teacher=0.0)
    one = batch_of([near])
    both = batch_of([near, far])
    both = replace(both, reference=torch.cat([one.reference, both.reference[1:]]))
    glam = network.glam
    network.glam.coarse, coarse = None, glam.coarse  # the same start for both: the identity
    with torch.no_grad():
        alone, mixed = (evaluate(network, batch, cfg)[1] for batch in (one, both))
    network.glam.coarse = coarse
    torch.testing.assert_close(alone["window"], mixed["window"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        alone["affine"], 2 * mixed["affine"], atol=1e-3, rtol=1e-3
    )  # the far one counts as right


@pytest.mark.parametrize("hidden", ["reference", "moving", "both"])
def test_batches_without_imagery_are_finite_and_teach_nothing_wrong(hidden: str) -> None:
    network, batch = build(), pairs()
    none = torch.zeros_like(batch.reference_mask)
    if hidden != "moving":
        batch = replace(batch, reference_mask=none)
    if hidden != "reference":
        batch = replace(batch, moving_mask=none)
    cfg = ObjectiveCfg(weights=WeightsCfg(cycle=0.1))
    loss, logs = evaluate(network, batch, cfg, progress=1.0)
    loss.backward()
    assert_finite(network, loss, logs)
    assert float(logs["window"]) == 0.0
    assert float(logs["nll"]) == 0.0


def test_one_pair_without_imagery_does_not_change_what_the_other_teaches() -> None:
    network, batch = build(), pairs()
    masks = torch.ones_like(batch.reference_mask)
    masks[1] = 0
    half = replace(batch, reference_mask=masks, moving_mask=masks)
    network.glam.coarse = None
    cfg = ObjectiveCfg(teacher=0.0)
    with torch.no_grad():
        alone = evaluate(network, batch_of([affine(SIZE, **WARPS[0])]), cfg)[1]  # type: ignore[arg-type]
        mixed = evaluate(network, half, cfg)[1]
    for name in ("window", "nll", "flow"):
        torch.testing.assert_close(alone[name], mixed[name], atol=1e-4, rtol=1e-4)


def test_the_cycle_is_closed_when_both_directions_agree() -> None:
    network, batch = build(), pairs(count=1)
    cfg = ObjectiveCfg(weights=WeightsCfg(cycle=1.0), teacher=0.0)
    loss, logs = evaluate(network, batch, cfg)
    loss.backward()
    assert_finite(network, loss, logs)
    assert 0.0 <= float(logs["cycle"]) < 2.0
    still = batch_of([affine(SIZE)])
    with torch.no_grad():
        assert float(evaluate(network, still, cfg)[1]["cycle"]) < 0.05
        assert "cycle" not in evaluate(network, still)[1]


def test_bfloat16_is_finite_and_close() -> None:
    network, batch = build(), pairs()
    whole, logs = evaluate(network, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, half_logs = evaluate(network, batch)
    half.backward()
    assert_finite(network, half, half_logs)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(whole), rel=0.05)
    for name in ("window", "matching", "affine", "reconstruction"):
        assert float(half_logs[name]) == pytest.approx(float(logs[name]), rel=0.1, abs=0.02), name


# --- ablations --------------------------------------------------------------------------------------------------------

ABLATIONS: dict[str, NetworkCfg] = {
    "full": small(),
    "FGE off": small(None),
    "filters only": small(replace(FGE, attention=False)),
    "attention only": small(replace(FGE, filters="off")),
    "no reconstruction": small(replace(FGE, reconstruction=False)),
    "learnable filters": small(replace(FGE, filters="learnable")),
    "plain convolution": small(replace(FGE, filters="conv")),
    "affine only": small(glam=GlamCfg(coarse=COARSE, local=None)),
    "flow only": small(glam=GlamCfg(coarse=COARSE, affine=False)),
    "no coarse matcher": small(glam=GlamCfg(coarse=None)),
    "no coarse matcher, affine only": small(glam=GlamCfg(coarse=None, local=None)),
    "one stage, twice": small(
        glam=GlamCfg(coarse=COARSE, stages=(replace(default_stages()[2], iterations=2),)),
    ),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_trains(name: str) -> None:
    cfg = ABLATIONS[name]
    network, batch = build(cfg), replace(pairs(count=1), modalities=("optical", "sar"))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss, logs = evaluate(network, batch)  # the same starts, so that the losses can be compared
        optimiser.zero_grad()
        loss.backward()
        assert_finite(network, loss, logs)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert ("matching" in logs) == (cfg.glam.coarse is not None)
    assert ("flow" in logs) == (cfg.glam.local is not None)
    assert {f"px_1_{stage.stride}" for stage in cfg.glam.stages} <= set(logs)
    # The only numbers that do not learn are the heads of maps that nobody reads.
    idle = {key for key, p in network.named_parameters() if p.grad is None}
    read = {stage.stride for stage in cfg.glam.stages} | ({16} if cfg.glam.coarse else set())
    unread = [level for level, stride in enumerate((2, 4, 8, 16)) if stride not in read]
    heads = [f"encoder.branches.{m}.backbone.head.{level}." for m in ("sar", "optical") for level in unread]
    assert idle == {head + part for head in heads for part in ("weight", "bias")}


def test_a_stage_may_be_replaced() -> None:
    """The objective asks the stages what they are, it does not know them."""
    odd = StageCfg(4, default_stages()[1].window, (2.0,), iterations=1)
    loss, logs = evaluate(build(small(glam=GlamCfg(coarse=None, stages=(odd,)))), pairs(count=1))
    assert bool(torch.isfinite(loss))
    assert "px_1_4" in logs
    assert "px_1_2" not in logs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")
def test_a_gpu_gives_the_same_losses() -> None:
    network, batch = build(), pairs()
    cfg = ObjectiveCfg(teacher=0.0)  # lessons are drawn on the device
    with torch.no_grad():
        here = evaluate(network, batch, cfg)[1]
        there = evaluate(network.cuda(), batch.to("cuda"), cfg)[1]
    for name in ("matching", "reconstruction", "coarse_affine"):
        assert float(there[name]) == pytest.approx(float(here[name]), rel=0.01), name
