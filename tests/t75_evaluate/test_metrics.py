import numpy as np
import pytest

from somareg.lab.evaluate import metrics as m
from somareg.lab.evaluate.peers.base import affine_displacement

INF = float("inf")
SHIFT = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -4.0]])
TURN = np.array([[0.9, -0.2, 5.0], [0.2, 0.9, -3.0]])


def test_the_true_affine_has_no_error_and_identity_has_the_shift():
    assert m.rmse(m.point_errors(affine_displacement(TURN, (40, 50)), TURN, (40, 50))) < 1e-5
    assert m.rmse(m.point_errors(np.zeros((2, 40, 50), np.float32), SHIFT, (40, 50))) == pytest.approx(5.0)


def test_overlap_is_where_the_true_position_lies_in_the_moving_frame():
    errors = m.point_errors(np.zeros((2, 40, 50), np.float32), SHIFT, (40, 50))
    # x + 3 <= 49 and y - 4 >= 0
    assert np.isfinite(errors[4:, :47]).all()
    assert np.isnan(errors[:4]).all() and np.isnan(errors[:, 47:]).all()


def test_only_the_overlap_is_scored():
    displacement = affine_displacement(SHIFT, (40, 50))
    displacement[:, :4] = np.nan  # outside the overlap: does not matter
    assert m.rmse(m.point_errors(displacement, SHIFT, (40, 50))) < 1e-6
    displacement[0, 20, 20] = np.nan  # inside: a failure
    assert m.rmse(m.point_errors(displacement, SHIFT, (40, 50))) == INF


def test_failures_are_infinite():
    assert m.rmse(m.point_errors(None, SHIFT, (40, 50))) == INF
    assert np.isinf(m.check_points(m.point_errors(None, SHIFT, (40, 50)))).all()


def test_cmr_and_auc_by_hand():
    errors = np.array([0.4, 1.0, 2.5, 4.0, INF])
    assert [m.cmr(errors, k) for k in (0.5, 1, 2, 3, 5)] == [0.2, 0.2, 0.4, 0.6, 0.8]
    # (4.6 + 4 + 2.5 + 1 + 0) / 5 / 5
    assert m.auc(errors) == pytest.approx(12.1 / 25)


def test_auc_is_the_integral_of_the_empirical_curve():
    errors = np.random.default_rng(0).gamma(2, 1.5, 50)
    axis = (np.arange(50000) + 0.5) / 10000
    curve = [(errors < k).mean() for k in axis]
    assert m.auc(errors) == pytest.approx(np.mean(curve), abs=1e-4)


def test_quantile_and_ce90():
    assert m.quantile(np.arange(1.0, 11.0), 0.9) == 9.0
    assert m.ce90([np.arange(1.0, 6.0), np.arange(6.0, 11.0)]) == 9.0
    assert m.ce90([np.ones(8), np.full(2, INF)]) == INF


def test_auroc_counts_ties_half():
    good = np.array([True, True, False, False])
    assert m.auroc(np.array([0.9, 0.8, 0.2, 0.1]), good) == 1.0
    assert m.auroc(np.array([0.1, 0.2, 0.8, 0.9]), good) == 0.0
    assert m.auroc(np.array([0.9, 0.5, 0.5, 0.1]), good) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert m.auroc(np.ones(4), np.ones(4, bool)) is None


def test_go_rates_by_hand():
    rates = m.go_rates(["go", "go", "review", "no-go"], np.array([1.0, 3.0, 1.5, INF]))
    assert rates == {"go": 0.5, "go_of_good": 0.5, "false_go": 0.5}
    assert m.go_rates([None, None], np.array([1.0, 1.0])) is None
    assert m.go_rates(["no-go"], np.array([1.0])) == {"go": 0.0, "go_of_good": 0.0, "false_go": 0.0}


def test_within_factor():
    assert m.within_factor(np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.4, 0.5, 2.0, 2.1])) == 0.5
    assert m.within_factor(np.array([]), np.array([])) is None


def test_interval_brackets_the_rate_and_repeats():
    errors = np.array([0.5] * 30 + [3.0] * 70)
    low, high = m.cmr_interval(errors, 1.0)
    # the binomial standard error of 0.3 with n = 100 is 0.046
    assert low == pytest.approx(0.3 - 1.96 * 0.046, abs=0.02) and high == pytest.approx(0.3 + 1.96 * 0.046, abs=0.02)
    assert m.cmr_interval(errors, 1.0) == (low, high)


def test_interval_is_wider_when_whole_places_are_drawn():
    errors = np.repeat([0.5, 3.0] * 5, 10)
    groups = [str(i // 10) for i in range(100)]
    low, high = m.cmr_interval(errors, 1.0, groups)
    narrow_low, narrow_high = m.cmr_interval(errors, 1.0)
    assert high - low > 2 * (narrow_high - narrow_low)
