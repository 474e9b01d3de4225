"""Losses of single matches: coarse cells, windows, displacements with a precision of their own."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from somareg.errors import InputError
from somareg.lab.train import losses as L
from somareg.lab.train.window_losses import COARSEST_PX, FINEST_PX, bounded_log_precision
from somareg.soma.glam.coarse import cell_centres

NAN = math.nan


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def heat(truth, margin, sigma=0.55):
    """Log of a Gaussian at (dx, dy) cells, (1, 1, n, n)."""
    axis = torch.arange(-margin, margin + 1, dtype=torch.float64)
    bell = [-((axis - t) ** 2) / (2 * sigma**2) for t in truth]
    return (bell[1][:, None] + bell[0][None])[None, None]


# --- coarse matching ---


def test_targets_hold_the_true_position_and_nothing_outside():
    shape, stride = (6, 8), 16
    positions = torch.tensor([[[30.0, 41.0], [7.5, 7.5], [0.0, 0.0], [127.4, 95.4], [127.6, 50.0], [NAN, 5.0]]])
    targets = L.nearest_cells(positions, shape, stride)
    centres = cell_centres(*shape, stride)
    held = (centres[targets.index] * targets.share[..., None]).sum(-2)
    torch.testing.assert_close(held[0, :2], positions[0, :2])
    # Beyond the outermost centres the nearest cell takes all.
    torch.testing.assert_close(held[0, 2:4], torch.tensor([[7.5, 7.5], [119.5, 87.5]]))
    torch.testing.assert_close(targets.share.sum(-1)[0], torch.tensor([1.0, 1, 1, 1, 0, 0]))


def test_matching_loss_by_hand_and_outside_is_ignored():
    positions = torch.tensor([[[7.5, 7.5], [19.5, 7.5], [900.0, 7.5]]])  # cell 0; 1/4 cell 0 and 3/4 cell 1; outside
    targets = L.nearest_cells(positions, (1, 2), 16)
    score = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0], [-70.0, -80.0]]], requires_grad=True)
    loss = L.matching_loss(score, targets)
    assert loss.item() == pytest.approx((1.0 + (0.25 * 3 + 0.75 * 4)) / 2)
    weighted = L.matching_loss(score, targets, torch.tensor([[3.0, 1.0, 5.0]]))
    assert weighted.item() == pytest.approx((3 * 1.0 + (0.25 * 3 + 0.75 * 4)) / 4)
    loss.backward()
    torch.testing.assert_close(score.grad, torch.tensor([[[-0.5, 0.0], [-0.125, -0.375], [0.0, 0.0]]]))


@pytest.mark.parametrize("masked", [-math.inf, -1e4])
def test_matching_loss_leaves_out_cells_without_imagery(masked):
    targets = L.nearest_cells(torch.tensor([[[7.5, 7.5], [19.5, 7.5], [12.5, 7.5]]]), (1, 2), 16)
    score = torch.tensor([[[-1.0, masked], [-3.0, masked], [-2.0, masked]]], requires_grad=True)
    loss = L.matching_loss(score, targets)  # the second truth lies 3/4 in the masked cell
    loss.backward()
    assert loss.item() == pytest.approx((1.0 + 2.0) / 2)
    assert torch.isfinite(score.grad).all() and (score.grad[0, 1] == 0).all()


def test_matching_loss_is_smallest_for_the_true_assignment():
    positions = cell_centres(3, 4, 16)[None] + torch.tensor([4.0, 0.0])
    targets = L.nearest_cells(positions, (3, 4), 16)
    true = torch.zeros(1, 12, 12).scatter_add_(2, targets.index, targets.share)

    def loss(probability):
        log = (probability + 1e-6).log()
        return float(L.matching_loss(log.log_softmax(2) + log.log_softmax(1), targets))

    best = loss(true)
    assert best < loss(true.roll(1, 2)) and best < loss(torch.eye(12)[None]) and best < loss(torch.ones(1, 12, 12))
    exact = L.nearest_cells(cell_centres(3, 4, 16)[None], (3, 4), 16)
    log = (torch.eye(12)[None] + 1e-9).log()
    assert float(L.matching_loss(log.log_softmax(2) + log.log_softmax(1), exact)) < 1e-5


def test_matching_loss_gradient_and_empty():
    targets = L.nearest_cells(torch.rand(2, 5, 2).double() * 60, (4, 4), 16)
    assert gradcheck(
        lambda s: L.matching_loss(s.log_softmax(2), targets), torch.randn(2, 5, 16).double().requires_grad_()
    )
    nowhere = L.nearest_cells(torch.full((2, 5, 2), -500.0), (4, 4), 16)
    assert float(L.matching_loss(torch.randn(2, 5, 16), nowhere)) == 0.0


# --- windows ---


def test_window_loss_is_zero_at_its_target_and_blind_to_a_constant():
    truth = (1.3, -2.2)
    logits = heat(truth, 4)
    weight, cells = torch.ones(1, 1), torch.tensor([[truth]])
    assert float(L.window_loss(logits, cells, weight)) == pytest.approx(0.0, abs=1e-6)
    assert float(L.window_loss(logits.flatten(2) + 17.0, cells, weight)) == pytest.approx(0.0, abs=1e-6)


def test_window_loss_is_smallest_at_the_true_shift():
    weight, truth = torch.ones(1, 1), (0.7, -1.4)
    moves = [(0.7 + 0.2 * i, -1.4 + 0.2 * j) for i in range(-3, 4) for j in range(-3, 4)]
    values = [float(L.window_loss(heat(move, 4), torch.tensor([[truth]]), weight)) for move in moves]
    assert moves[values.index(min(values))] == pytest.approx(truth)
    # Relative entropy of two Gaussians of the same width a distance r apart: r^2 / 2 sigma^2.
    near = float(L.window_loss(heat((0.9, -1.4), 6), torch.tensor([[truth]]), weight))
    assert near == pytest.approx(0.2**2 / (2 * 0.55**2), rel=0.01)


def test_window_loss_axes():
    """x is the column: a peak at column m + 2, row m - 1 is the displacement (2, -1)."""
    logits = torch.full((1, 1, 7, 7), -20.0)
    logits[0, 0, 3 - 1, 3 + 2] = 20.0
    weight = torch.ones(1, 1)
    right = L.window_loss(logits, torch.tensor([[[2.0, -1.0]]]), weight, 0.2)
    assert float(right) < 1e-3 < 10 < float(L.window_loss(logits, torch.tensor([[[-1.0, 2.0]]]), weight, 0.2))


def test_window_loss_of_flat_heat_is_the_missing_information():
    truth = torch.tensor([[[0.0, 0.0]]])
    sharp = L.window_loss(torch.zeros(1, 1, 9, 9), truth, torch.ones(1, 1), 0.01)  # all on one cell
    assert float(sharp) == pytest.approx(math.log(81), rel=1e-5)


def test_window_loss_ignores_truth_outside_the_search_and_unweighted_windows():
    logits = torch.randn(1, 4, 9, 9, requires_grad=True)
    cells = torch.tensor([[[3.5, 0.0], [3.6, 0.0], [NAN, 0.0], [1.0, 1.0]]])
    with torch.no_grad():
        logits[0, 3] = NAN
    weight = torch.tensor([[0.3, 1.0, 1.0, 0.0]])
    loss = L.window_loss(logits, cells, weight)
    alone = L.window_loss(logits[:, :1], cells[:, :1], torch.ones(1, 1))
    assert loss.item() == pytest.approx(alone.item())
    loss.backward()
    assert (logits.grad[0, 0] != 0).any() and (logits.grad[0, 1:] == 0).all()
    assert L.window_loss(logits, cells, torch.zeros(1, 4)).item() == 0.0


def test_window_loss_with_unreadable_displacements():
    cells, weight = torch.tensor([[[0.0, 0.0]]]), torch.ones(1, 1)
    logits = heat((0.0, 0.0), 3).clone()
    logits[..., 0] = -math.inf  # far from the truth: nothing is lost
    logits.requires_grad_()
    loss = L.window_loss(logits, cells, weight)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6) and torch.isfinite(logits.grad).all()
    blind = torch.zeros(1, 1, 7, 7)
    blind[..., 3:] = -math.inf  # the truth itself
    assert float(L.window_loss(blind, cells, weight)) == 0.0


def test_window_loss_gradient_points_to_the_target():
    logits = torch.randn(2, 3, 5, 5).double().requires_grad_()
    cells, weight = torch.rand(2, 3, 2).double() * 2 - 1, torch.rand(2, 3).double()
    assert gradcheck(lambda x: L.window_loss(x, cells, weight), logits)
    # d/dlogits = softmax - target, so it sums to 0 over each window
    (gradient,) = torch.autograd.grad(L.window_loss(logits, cells, weight), logits)
    assert float(gradient.sum((-2, -1)).abs().max()) < 1e-12


def test_window_loss_wants_square_odd_maps():
    with pytest.raises(InputError):
        L.window_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2), torch.ones(1, 1))
    with pytest.raises(InputError):
        L.window_loss(torch.zeros(1, 1, 10), torch.zeros(1, 1, 2), torch.ones(1, 1))


# --- heteroscedastic ---


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_nll_is_smallest_where_the_precision_tells_the_error(kind):
    error = torch.randn(1, 4000, 2, dtype=torch.float64)
    weight, zero = torch.ones(1, 4000), torch.zeros_like(error)
    grid = torch.logspace(-1.5, 1.5, 301, dtype=torch.float64)
    values = [float(L.displacement_nll(error, p.expand(1, 4000), zero, weight, kind=kind)) for p in grid]
    best = float(grid[values.index(min(values))])
    r = error.square().sum(-1).sqrt()
    # Gaussian: r^2 p / 2 - log p; Laplace: r / b + 2 log b with p = 1 / 3 b^2
    expected = 2 / float(r.square().mean()) if kind == "gaussian" else (2 / float(r.mean())) ** 2 / 3
    assert best == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_nll_is_zero_only_for_certain_and_exact_matches(kind):
    truth, weight = torch.randn(1, 1, 2), torch.ones(1, 1)

    def loss(off, deviation):
        return float(L.displacement_nll(truth + off, torch.full((1, 1), deviation**-2), truth, weight, kind=kind))

    assert loss(0.0, FINEST_PX / 10) == pytest.approx(0.0, abs=1e-3)
    assert 0 < loss(0.0, 1.0) < loss(0.5, 1.0) < loss(0.5, 0.1)
    assert loss(0.0, 2.0) - loss(0.0, 1.0) == pytest.approx(2 * math.log(2), rel=1e-3)


def test_precision_is_bounded_without_losing_its_gradient():
    precision = torch.tensor([0.0, 1e-9, 1e-5, 1.0, 1e4, 1e9, math.inf], dtype=torch.float64)
    log = bounded_log_precision(precision)
    assert torch.isfinite(log[:-1]).all() and (log[:-1].diff() >= 0).all()
    assert float(log[0]) == pytest.approx(-2 * math.log(COARSEST_PX), abs=0.01)
    assert float(log[5]) == pytest.approx(-2 * math.log(FINEST_PX), abs=0.01)
    assert float(log[3]) == pytest.approx(0.0, abs=1e-4)
    # A window that is a little too sure of a wrong displacement is still told so.
    sure = torch.tensor([[(FINEST_PX / 1.5) ** -2]], requires_grad=True)
    L.displacement_nll(torch.ones(1, 1, 2), sure, torch.zeros(1, 1, 2), torch.ones(1, 1)).backward()
    assert float(sure.grad) > 0


def test_nll_gradients_and_empty():
    shape = (2, 3)
    truth, weight = torch.randn(*shape, 2).double(), torch.rand(*shape).double()
    inputs = torch.randn(*shape, 2).double().requires_grad_(), (torch.rand(*shape).double() + 0.1).requires_grad_()
    for kind in ("gaussian", "laplace"):
        assert gradcheck(lambda d, p, k=kind: L.displacement_nll(d, p, truth, weight, kind=k), inputs)
    d = torch.full((1, 2, 2), NAN, requires_grad=True)
    p = torch.full((1, 2), NAN, requires_grad=True)
    loss = L.displacement_nll(d, p, torch.zeros(1, 2, 2), torch.zeros(1, 2))
    loss.backward()
    assert loss.item() == 0.0 and (d.grad == 0).all() and (p.grad == 0).all()
    exact = torch.zeros(1, 1, 2, requires_grad=True)
    L.displacement_nll(exact, torch.ones(1, 1), torch.zeros(1, 1, 2), torch.ones(1, 1)).backward()
    assert (exact.grad == 0).all()
