"""What trains is what runs: the network's own forward pass and the engine of `register` arrive at the same affine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import somareg
from somareg.geometry import AffineTransform
from somareg.matching.affine import departure
from somareg.matching.evidence import disagreement
from somareg.matching.fit import fit_windows
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.refine import fit_windows as fit_one
from somareg.matching.refine import refine_affine
from somareg.matching.steps import ShapeCfg, StepCfg
from somareg.matching.windows import WindowCfg, WindowCorrelation, window_grid
from somareg.soma.features import LearnedFeatures
from somareg.soma.network import Soma
from somareg.soma.weights import embedded, load_network
from tests.small_network import small_network
from tests.synthetic import make_pair
from tests.t40_matching.conftest import as_pair

AGREE_PX = 1e-3
START = AffineTransform.from_parameters(rotation_deg=0.6, scale=1.006, shift=(3.0, -2.0), centre=(100, 100))


def shipped() -> Soma:
    if not (models := embedded()):
        pytest.skip("installed without weights")
    return load_network(next(iter(models.values())))


def by_forward(network: Soma, pairs: list[Pair], start: AffineTransform) -> list[AffineTransform]:
    """`Soma.forward` on all of them at once."""
    stacked = (
        torch.cat([getattr(pair, name) for pair in pairs])
        for name in ("reference", "reference_mask", "moving", "moving_mask")
    )
    starts = torch.from_numpy(np.array(start.matrix))[None].expand(len(pairs), 2, 3)
    with torch.inference_mode():
        output = network(*stacked, pairs[0].modalities, start=starts, rewarp=True)
    return [AffineTransform(matrix.numpy()) for matrix in output.affine]


def by_engine(network: Soma, pair: Pair, start: AffineTransform) -> AffineTransform:
    features = LearnedFeatures(network)
    steps = tuple(replace(step, reuse_px=1e3) for step in features.steps)  # described once, as in a forward pass
    with torch.inference_mode():
        return refine_affine(Matcher(pair, features, 6.0), start, steps, network.cfg.glam.stages[0].limit).affine


@pytest.mark.parametrize("network", [shipped, small_network], ids=["shipped", "random"])
def test_forward_and_engine_agree(network: object) -> None:
    assert callable(network)
    net: Soma = network()
    pairs = [as_pair(make_pair(seed, 200, rotation_deg=1.0, scale=1.01, shift=(4.0, -3.0))) for seed in (0, 1)]
    together = by_forward(net, pairs, START)
    for pair, found in zip(pairs, together, strict=True):
        assert disagreement(found, by_forward(net, [pair], START)[0], pair.shape) < 1e-3
        assert disagreement(found, by_engine(net, pair, START), pair.shape) < AGREE_PX


def test_the_shipped_stages_are_the_steps_of_register() -> None:
    network = shipped()
    chosen = somareg.matching.engine.EngineCfg().steps(LearnedFeatures(network), (512, 512))
    assert [replace(step, reuse_px=None) for step in chosen] == [stage.step for stage in network.cfg.glam.stages]


# --- the fit ----------------------------------------------------------------------------------------------------------


def surfaces(seed: int, temperature: float | None) -> WindowCorrelation:
    """Bumps where a stretched map puts them, noise, and a window in eight that sees nothing."""
    generator = torch.Generator().manual_seed(seed)
    centres = window_grid((96, 96), WindowCfg(24, 4, 12)).centres(torch.zeros(1))
    axis = torch.arange(-4.0, 5.0)
    truth = (centres - 48) * torch.tensor([0.02, -0.015]) + torch.randn(2, generator=generator)
    truth = truth + 0.2 * torch.randn(centres.shape, generator=generator)
    squared = (axis - truth[:, :1]).square()[:, None, :] + (axis - truth[:, 1:]).square()[:, :, None]
    values = 0.5 * torch.exp(-squared / 3) + 0.1 * torch.randn(len(centres), 9, 9, generator=generator)
    valid = (torch.rand(len(centres), generator=generator) > 0.125).float()
    return WindowCorrelation(values, centres, valid, temperature)


@pytest.mark.parametrize("temperature", [None, 20.0])
@pytest.mark.parametrize("shape", [None, ShapeCfg(gain=0.5), ShapeCfg(gain=1e9)])
def test_a_batch_is_fitted_as_its_pairs_are(temperature: float | None, shape: ShapeCfg | None) -> None:
    """With windows that see nothing left out, as `correlate_all` leaves them out, or in with no weight."""
    step = StepCfg(WindowCfg(24, 4, 12), (2.0, 1.5, 1.0), 0.4, shape=shape)
    ones = [surfaces(seed, temperature) for seed in range(3)]
    known = (torch.tensor([0.0, 0.01, 0.0]).double(), torch.tensor([0.0, 0.0, -0.02]).double())
    batch = replace(
        ones[0], surfaces=torch.stack([one.surfaces for one in ones]), valid=torch.stack([one.valid for one in ones])
    )
    fits = fit_windows(batch, 2.0, step, 96.0, known)
    assert not fits.refused.any()
    for i, one in enumerate(ones):
        of_one = (float(known[0][i]), float(known[1][i]))
        alone = fit_one(one, 2.0, step, 96.0, of_one)
        torch.testing.assert_close(fits.residual[i], alone.residual)
        torch.testing.assert_close(float(fits.support[i]), alone.support)
        seen = one.valid > 0
        few = replace(one, surfaces=one.surfaces[seen], centres=one.centres[seen], valid=one.valid[seen])
        # Nearly the same: the fit's stiffness counts windows, and a belief how often they overlap.
        torch.testing.assert_close(fit_one(few, 2.0, step, 96.0, of_one).residual, alone.residual, atol=0.05, rtol=0.05)


def test_a_batch_survives_a_pair_that_sees_nothing() -> None:
    step = StepCfg(WindowCfg(24, 4, 12), (2.0, 1.0), 0.4, shape=ShapeCfg())
    one = surfaces(0, 20.0)
    values = torch.stack([one.surfaces, torch.zeros_like(one.surfaces)]).requires_grad_()
    batch = replace(one, surfaces=values, valid=torch.stack([one.valid, torch.zeros_like(one.valid)]))
    fits = fit_windows(batch, 2.0, step, 96.0)
    assert fits.refused.tolist() == [False, True]
    torch.testing.assert_close(fits.residual[1], torch.eye(2, 3).double())
    torch.testing.assert_close(fits.residual[0], fit_one(one, 2.0, step, 96.0).residual)
    fits.residual.square().sum().backward()
    assert values.grad is not None
    assert bool(torch.isfinite(values.grad).all())
    assert float(values.grad[0].abs().sum()) > 0 == float(values.grad[1].abs().sum())


def test_the_shape_of_the_whole_map_is_what_a_step_believes_in() -> None:
    """A start that is stretched already is not stretched back, nor is one that is not stretched further."""
    step = StepCfg(WindowCfg(24, 4, 12), (2.0, 1.0), 0.4, shape=ShapeCfg(gain=1e9))
    stretched = AffineTransform.from_parameters(scale=(1.05, 0.97))
    one = surfaces(0, 20.0)
    batch = replace(one, surfaces=one.surfaces[None], valid=one.valid[None])
    bent = departure(stretched)
    known = torch.tensor([bent[0]]).double(), torch.tensor([bent[1]]).double()
    residual = AffineTransform(fit_windows(batch, 2.0, step, 96.0, known).residual[0].numpy())
    assert np.hypot(*departure(stretched.after(residual))) < 0.4 * np.hypot(*bent)
