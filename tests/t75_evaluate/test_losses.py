"""Positions, and losses of whole estimates: flow, affine, certainty, uniformity, cycle."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from somareg.errors import InputError
from somareg.lab.train import losses as L
from somareg.matching.affine import invert_batch
from somareg.soma.glam.coarse import cell_centres

NAN = math.nan
SIZE = (96, 128)
TURN = torch.tensor([[[0.9, -0.2, 12.0], [0.15, 1.1, -7.0]]], dtype=torch.float64)
IDENTITY = torch.eye(2, 3, dtype=torch.float64)[None]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def shifted(dx, dy, affine=IDENTITY):
    return affine + torch.tensor([[[0.0, 0.0, dx], [0.0, 0.0, dy]]], dtype=affine.dtype)


# --- positions ---


def test_what_is_measured_from_a_singular_map_stays_finite():
    points = torch.rand(1, 9, 2, dtype=torch.float64) * 500
    assert torch.isfinite(L.true_residual(points, torch.zeros(1, 2, 3), L.apply_affine(TURN, points))).all()


def test_a_linear_map_is_sampled_exactly_at_every_stride():
    points = torch.tensor([[[20.3, 31.7], [40.0, 11.5]]], dtype=torch.float64)
    for stride in (1, 2, 8):
        grid = cell_centres(96 // stride, 128 // stride, stride).double()
        cells = (0.5 * grid[:, 0] - 2 * grid[:, 1] + 3).reshape(1, 1, 96 // stride, 128 // stride)
        expected = 0.5 * points[..., 0] - 2 * points[..., 1] + 3
        torch.testing.assert_close(L.sample_cells(cells, points, stride)[..., 0], expected)


def test_the_flow_is_applied_before_the_affine():
    flow = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1).expand(1, 2, 6, 8)
    found = L.map_points(torch.tensor([[[10.0, 20.0]]]), TURN, flow, 16)
    expected = L.apply_affine(TURN, torch.tensor([[[12.0, 19.0]]], dtype=torch.float64))
    torch.testing.assert_close(found, expected)


def test_true_residual_closes_the_gap_when_applied_first():
    points = torch.rand(1, 7, 2, dtype=torch.float64) * 90
    truth = L.apply_affine(TURN, points)
    start = shifted(3.0, 1.0, TURN * torch.tensor([1.02, 0.97, 1.0], dtype=torch.float64))
    residual = L.true_residual(points, start, truth)
    torch.testing.assert_close(L.apply_affine(start, points + residual), truth)
    assert float(residual.abs().max()) > 1.0
    assert float(L.true_residual(points, TURN, truth).abs().max()) < 1e-9


def test_positions_keep_their_digits_under_autocast():
    points = torch.tensor([[[501.25, 499.75]]])
    with torch.autocast("cpu", torch.bfloat16):
        found = L.map_points(points, IDENTITY.float(), torch.full((1, 2, 32, 32), 0.125), 16)
    assert float((found - points - 0.125).abs().max()) < 1e-6


# --- flow, reconstruction ---


def test_flow_loss_by_hand():
    flow = torch.zeros(1, 2, 2, 2)
    truth = torch.zeros(1, 2, 2, 2)
    truth[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    truth[0, :, 1, 1] = NAN
    valid = torch.tensor([[[[1.0, 1.0], [2.0, 0.0]]]])
    assert float(L.flow_loss(flow, truth, valid)) == pytest.approx(5.0 / 4, abs=0.01)
    assert float(L.flow_loss(truth[..., :1, :], truth[..., :1, :], valid[..., :1, :])) == 0.0


def test_flow_loss_ignores_what_is_not_valid_and_gives_it_no_gradient():
    flow = torch.randn(1, 2, 3, 3, requires_grad=True)
    truth = torch.full((1, 2, 3, 3), NAN)
    assert L.flow_loss(flow, truth, torch.zeros(1, 1, 3, 3)).item() == 0.0
    truth[..., 1, 1] = 1.0
    valid = torch.zeros(1, 1, 3, 3)
    valid[..., 1, 1] = 1.0
    L.flow_loss(flow, truth, valid).backward()
    assert torch.isfinite(flow.grad).all() and (flow.grad[..., 1, 1] != 0).all()
    assert int((flow.grad != 0).sum()) == 2


def test_flow_loss_in_half_precision_neither_overflows_nor_rounds():
    flow = torch.full((1, 2, 300, 300), 200.0, dtype=torch.float16)  # squares and sums beyond 65504
    loss = L.flow_loss(flow, torch.zeros_like(flow), torch.ones(1, 1, 300, 300, dtype=torch.float16))
    assert loss.item() == pytest.approx(200 * 2**0.5, rel=1e-4)


def test_flow_loss_gradient():
    truth, valid = torch.randn(2, 2, 3, 4).double(), torch.rand(2, 1, 3, 4).double()
    assert gradcheck(lambda f: L.flow_loss(f, truth, valid), torch.randn(2, 2, 3, 4).double().requires_grad_())


def test_reconstruction_loss_is_the_mean():
    assert float(L.reconstruction_loss(torch.tensor(1.0), torch.tensor(4.0, dtype=torch.float16))) == 2.5
    assert float(L.reconstruction_loss()) == 0.0


# --- affine ---


def test_grid_error_by_hand():
    assert float(L.affine_grid_error(shifted(3, -4), IDENTITY, SIZE)) == pytest.approx(5.0)
    assert float(L.affine_grid_error(TURN, TURN, SIZE)) < 1e-5


def test_grid_error_is_the_rms_over_all_pixels_of_the_overlap():
    estimate = shifted(0.7, 0.2, TURN) + torch.tensor([[[0.01, -0.004, 0], [0.006, 0.012, 0]]])
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(1, -1, 2)
    for truth in (shifted(30.0, 10.0), TURN, IDENTITY):
        off = estimate - TURN + truth
        true = L.apply_affine(truth, pixels)
        inside = ((true >= 0) & (true <= torch.tensor([127, 95]))).all(-1)[0]
        squared = (L.apply_affine(off, pixels) - true).square().sum(-1)[0]
        exact = float(squared[inside].mean().sqrt())
        assert float(L.affine_grid_error(off, truth, SIZE)) == pytest.approx(exact, rel=0.02)


def test_lattice_weighs_the_rim_no_more_than_pixels_do():
    """A pure scale error about the centre: its mean square over N pixel centres is scale^2 (N^2 - 1) / 12 per axis."""
    off = torch.tensor([[[1.1, 0.0, -0.1 * 63.5], [0.0, 1.1, -0.1 * 47.5]]], dtype=torch.float64)
    exact = 0.1 * ((128**2 - 1 + 96**2 - 1) / 12) ** 0.5
    assert float(L.affine_grid_error(off, IDENTITY, SIZE)) == pytest.approx(exact, rel=0.003)


def test_grid_error_scales_with_the_pixels():
    """The same geometry in an image of three times as many pixels has three times the error in pixels."""
    fine = L.affine_grid_error(shifted(1.5, 0.3, TURN), TURN, SIZE)
    k = 3.0
    # pixel centres: x' = k x + (k - 1) / 2
    to_fine = torch.tensor([[[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2]]], dtype=torch.float64)
    scale = lambda a: L.compose_batch(L.compose_batch(to_fine, a), invert_batch(to_fine))  # noqa: E731
    big = L.affine_grid_error(scale(shifted(1.5, 0.3, TURN)), scale(TURN), (SIZE[0] * 3, SIZE[1] * 3))
    assert float(big) == pytest.approx(k * float(fine), rel=1e-6)


def test_grid_error_is_finite_and_differentiable_at_the_truth_and_without_overlap():
    estimate = TURN.clone().requires_grad_()
    L.affine_grid_error(estimate, TURN, SIZE).sum().backward()
    assert (estimate.grad == 0).all()
    away = shifted(5000.0, 0.0)
    assert float(L.affine_grid_error(shifted(0.0, 2.0, away), away, SIZE)) == pytest.approx(2.0)
    assert gradcheck(lambda a: L.affine_grid_error(a, TURN, SIZE), shifted(1.0, 2.0, TURN).requires_grad_())


def test_saturation_and_sharpening_by_hand():
    error = torch.tensor([0.0, 0.01, 10.0, 1000.0], dtype=torch.float64)
    rho = L.saturated(error, 10.0)
    assert float(rho[1]) == pytest.approx(0.01, rel=1e-3)
    assert rho.tolist()[2:] == pytest.approx([10 * math.log(2), 10 * math.log(101)])
    sharp = L.sharpen(torch.tensor([0.0, 0.1, 1.0, 50.0], dtype=torch.float64))
    assert sharp.tolist() == pytest.approx([0.0, 0.55, 1.0, 1.0])  # e (1 + 0.1) / (e + 0.1)
    near = torch.tensor([0.05, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    L.sharpen(near).sum().backward()
    assert float(near.grad[0]) > float(near.grad[1]) > float(near.grad[2]) == 0.0


def test_sharpening_has_the_gradient_of_the_reciprocal():
    error = torch.linspace(0.05, 0.95, 10, dtype=torch.float64).requires_grad_()
    (ours,) = torch.autograd.grad(L.sharpen(error).sum(), error)
    (theirs,) = torch.autograd.grad((-1 / (error + 0.1)).sum(), error)
    torch.testing.assert_close(ours / ours[0], theirs / theirs[0])


def test_affine_loss_weighs_the_last_iteration_most():
    loss = L.affine_loss([shifted(2, 0), shifted(1, 0)], IDENTITY, SIZE, gamma=0.5, saturation_px=1e6)
    assert loss.item() == pytest.approx((0.5 * 2 + 1) / 1.5, abs=0.01)
    sharper = L.affine_loss([shifted(0.1, 0)], IDENTITY, SIZE, sharpening=2.0, saturation_px=1e6)
    assert float(sharper) == pytest.approx(0.1 + 2 * 0.55, abs=0.01)
    assert float(L.affine_loss([TURN, TURN], TURN, SIZE, sharpening=1.0)) < 1e-4
    with pytest.raises(InputError):
        L.affine_loss([], TURN, SIZE)


def test_a_hopeless_sample_does_not_drown_the_others():
    estimate = torch.cat([shifted(0.5, 0.0), shifted(500.0, 0.0)]).requires_grad_()
    L.affine_loss([estimate], IDENTITY.expand(2, -1, -1), SIZE).backward()
    pull = estimate.grad[:, 0, 2].abs()
    assert 0 < float(pull[1]) < 0.05 * float(pull[0])


def test_affine_loss_under_autocast_is_the_same():
    estimates = [shifted(0.3, 0.1, TURN).float(), shifted(0.02, 0.01, TURN).float()]
    plain = float(L.affine_loss(estimates, TURN.float(), (512, 512)))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(L.affine_loss(estimates, TURN.float(), (512, 512))) == plain


# --- certainty, uniformity, cycle ---


def test_certainty_is_zero_at_the_truth_and_grows_away_from_it():
    error = torch.tensor([[0.0, 0.5, 3.0, 100.0]])
    truth = torch.exp(-error)
    assert float(L.certainty_loss(truth, error)) == pytest.approx(0.0, abs=1e-6)
    assert float(L.certainty_loss(torch.exp(-error / 2), error, scale_px=2.0)) == pytest.approx(0.0, abs=1e-6)
    for off in (0.1, 0.4):
        assert float(L.certainty_loss((truth - off).abs(), error)) > 0.01
    # relative entropy of a coin of 1/2 against one of 1/4
    known = L.certainty_loss(torch.tensor([0.25]), torch.tensor([math.log(2.0)]))
    assert float(known) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-3)


def test_certainty_that_is_wrong_and_sure_gets_a_finite_gradient_also_in_half_precision():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        certainty = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
        L.certainty_loss(certainty, torch.tensor([0.0, 50.0])).backward()
        assert torch.isfinite(certainty.grad).all()
        assert float(certainty.grad[0]) < -1 and float(certainty.grad[1]) > 1


def test_certainty_mask_and_no_gradient_to_the_error():
    certainty = torch.tensor([0.5, NAN], requires_grad=True)
    error = torch.tensor([1.0, NAN], requires_grad=True)
    L.certainty_loss(certainty, error, torch.tensor([1.0, 0.0])).backward()
    assert error.grad is None and torch.isfinite(certainty.grad).all() and float(certainty.grad[1]) == 0.0
    assert L.certainty_loss(certainty, error, torch.zeros(2)).item() == 0.0
    e = torch.rand(5).double() * 3
    assert gradcheck(lambda c: L.certainty_loss(c, e), (torch.rand(5).double() * 0.8 + 0.1).requires_grad_())


def test_uniformity_by_hand():
    patch = torch.tensor([[1.0, 3.0], [1.0, 3.0]])
    errors = patch.repeat_interleave(5, 0).repeat_interleave(5, 1)[None, None]
    assert float(L.uniformity_loss(errors, patches=2)) == pytest.approx(1.0, rel=1e-4)
    assert float(L.uniformity_loss(torch.full((2, 1, 9, 11), 4.2))) < 1e-5
    # Spread inside a patch is not the point.
    fine = torch.tensor([1.0, 3.0]).repeat(8)[None, None, None].expand(1, 1, 16, 16)
    assert float(L.uniformity_loss(fine)) < 1e-5


def test_uniformity_ignores_what_is_not_valid():
    errors = torch.ones(1, 1, 8, 8)
    errors[..., :4, :] = NAN
    valid = torch.ones(1, 1, 8, 8)
    valid[..., :4, :] = 0.0
    errors[..., 4:, 4:] = 3.0
    errors.requires_grad_()
    loss = L.uniformity_loss(errors, valid, patches=2)
    loss.backward()
    assert loss.item() == pytest.approx(1.0, rel=1e-4) and torch.isfinite(errors.grad).all()
    assert abs(L.uniformity_loss(errors, torch.zeros(1, 1, 8, 8)).item()) < 1e-9
    assert gradcheck(lambda e: L.uniformity_loss(e), torch.rand(1, 1, 8, 8).double().requires_grad_())


def test_cycle_loss_is_zero_for_the_inverse_and_known_for_a_shift():
    assert float(L.cycle_loss(TURN, invert_batch(TURN), SIZE)) < 1e-4
    known = float(L.cycle_loss(shifted(3.0, 0.0), shifted(0.0, 4.0), SIZE, saturation_px=1e6))
    assert known == pytest.approx(5.0, abs=0.011)
    # A residual left in the moving image comes back through the linear part of the way back.
    back = invert_batch(TURN)
    off = torch.tensor([1.0, 2.0], dtype=torch.float64)
    expected = float((back[0, :, :2] @ off).norm())
    found = L.cycle_loss(shifted(1.0, 2.0, TURN), back, SIZE, saturation_px=1e6)
    assert float(found) == pytest.approx(expected, abs=0.011)
    inputs = shifted(1.0, 2.0, TURN).requires_grad_(), back.clone().requires_grad_()
    assert gradcheck(lambda f, b: L.cycle_loss(f, b, SIZE), inputs)


def test_everything_stays_on_its_device():
    """On the meta device any tensor made elsewhere is an error."""
    z = lambda *shape: torch.zeros(shape, device="meta", dtype=torch.float16)  # noqa: E731
    affine, points = z(2, 2, 3), z(2, 5, 2)
    positions = L.map_points(points, affine, z(2, 2, 6, 8), 16)
    results = [
        L.flow_loss(z(2, 2, 3, 3), z(2, 2, 3, 3), z(2, 1, 3, 3)),
        L.reconstruction_loss(z(), z()),
        L.matching_loss(z(2, 5, 12), L.nearest_cells(positions, (3, 4), 16), z(2, 5)),
        L.window_loss(z(2, 5, 81), L.true_residual(points, affine, positions), z(2, 5)),
        L.displacement_nll(points, z(2, 5), points, z(2, 5)),
        L.affine_loss([affine, affine.double()], affine, SIZE, sharpening=1.0),
        L.certainty_loss(z(2, 5), z(2, 5)),
        L.uniformity_loss(z(2, 1, 9, 9), z(2, 1, 9, 9)),
        L.cycle_loss(affine, affine, SIZE),
    ]
    assert all(loss.device.type == "meta" and loss.shape == () for loss in results)
    assert all(loss.dtype in (torch.float32, torch.float64) for loss in results)
