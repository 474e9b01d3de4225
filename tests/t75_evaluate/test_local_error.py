"""Errors of an estimate in cells, beside what was known of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from somareg.geometry import AffineTransform, FieldTransform
from somareg.lab.evaluate.local_error import cells
from somareg.matching.engine import Alignment
from somareg.matching.flow import Flow
from somareg.matching.posterior import WindowMatches

SHAPE = (96, 120)
TRUTH = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]])
NONE = torch.zeros(0)


def alignment(matrix: np.ndarray = TRUTH, beyond: np.ndarray | None = None) -> Alignment:
    """One whose left half is covered, with a spread of 0.5 px in its lower half."""
    across, down = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 13))
    array = np.zeros((2, 13, 16)) if beyond is None else beyond
    field = FieldTransform(array, (0.0, 0.0), (8.0, 8.0))
    matches = WindowMatches(torch.zeros(0, 2), torch.zeros(0, 2), *[NONE] * 4, torch.zeros(0, 2), NONE)
    flow = Flow(field, (across < 0.5).astype(float), 0.5 * (down > 0.5), matches, NONE)
    return Alignment(AffineTransform(matrix), flow)


def test_a_true_estimate_has_no_error_anywhere() -> None:
    rows = np.array(cells(alignment(), TRUTH, SHAPE))
    assert rows.shape == (36, 4)
    assert np.abs(rows[:, 0]).max() < 1e-4


def test_a_cell_knows_its_own_error_coverage_spread_and_distance() -> None:
    wrong = TRUTH + np.array([[0.02, 0, 0], [0, 0, 0]])  # off by 2 % of the column
    rows = np.array(cells(alignment(wrong), TRUTH, SHAPE, 4)).reshape(-1, 4)
    columns = np.array([29.0 / 2 + 30 * k for k in range(4)])
    first = rows[-4:]  # the lower row: all of it is seen
    expected = 0.02 * np.sqrt(columns**2 + (30**2 - 1) / 12)
    # The last columns of the reference lie outside the moving image.
    assert first[:3, 0] == pytest.approx(expected[:3], rel=1e-3)
    assert first[0, 1] == pytest.approx(1.0) and first[3, 1] == pytest.approx(0.0)
    assert first[:, 2] == pytest.approx(0.5) and rows[:4, 2] == pytest.approx(0.0)
    assert first[0, 3] > 0.6 and first[1, 3] < first[0, 3]


def test_the_local_field_counts() -> None:
    beyond = np.zeros((2, 13, 16))
    beyond[0, :, :6] = 1.5
    rows = np.array(cells(alignment(beyond=beyond), TRUTH, SHAPE, 3))
    assert rows[3, 0] == pytest.approx(1.5, rel=0.05)
    assert rows[5, 0] < 1e-4


def test_a_dense_truth_is_one_too() -> None:
    dense = np.zeros((2, *SHAPE))
    dense[0], dense[1] = 3.0, -2.0
    assert cells(alignment(), dense, SHAPE) == cells(alignment(), TRUTH, SHAPE)


def test_cells_that_the_moving_image_does_not_show_are_left_out() -> None:
    far = np.array([[1.0, 0.0, 60.0], [0.0, 1.0, 0.0]])
    assert len(cells(alignment(far), far, SHAPE)) == 18
    assert len(cells(alignment(far), far, SHAPE, moving_shape=(96, 240))) == 36


def test_a_failure_has_no_cells() -> None:
    assert cells(replace(alignment(), failure="nothing"), TRUTH, SHAPE) == []
    assert cells(replace(alignment(), flow=None), TRUTH, SHAPE) == []
