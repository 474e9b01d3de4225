"""Hard batches, ablations and devices: the objective stays finite and every variant trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from somareg.lab.train.objective import (
    ObjectiveCfg,
    WeightsCfg,
)
from somareg.soma.glam.affine_flow import StageCfg, default_stages
from somareg.soma.glam.matcher import GlamCfg
from somareg.soma.network import NetworkCfg
from tests.t40_matching.textures import affine
from tests.t77_train.objective_pairs import (
    COARSE,
    FGE,
    SIZE,
    WARPS,
    assert_finite,
    batch_of,
    build,
    evaluate,
    pairs,
    small,
)

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
        assert float(evaluate(network, still, cfg)[1]["cycle"]) < 0.2
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
