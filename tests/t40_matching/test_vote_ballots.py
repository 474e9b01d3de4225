"""The ballots of windows: log odds of being right, and how votes are added up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from somareg.matching.vote import _count, _steps, ballots
from somareg.matching.windows import WindowCorrelation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("temperature", [None, 6.0])
def test_a_ballot_is_the_log_odds_of_being_right(temperature: float | None) -> None:
    """log (1 + r / (1 - r) n^2 p), p averaged over 3 x 3 displacements."""
    surface = torch.zeros(1, 5, 5)
    surface[0] = 0.1 * torch.randn(5, 5, generator=generator())
    surface[0, 1, 3] = 0.9
    found = WindowCorrelation(surface, torch.zeros(1, 2), torch.tensor([0.8]), temperature)
    if temperature is None:
        likelihood = ((surface - surface.mean()) / surface.std(correction=0)).clamp_min(0).square() / 2
    else:
        likelihood = temperature * surface
    p = torch.softmax(likelihood.flatten(), 0).view(5, 5).numpy()
    for (row, column), ballot in np.ndenumerate(ballots(found, 0.25)[0].numpy()):
        around = np.pad(p, 1)[row : row + 3, column : column + 3].sum() / 9
        assert ballot == pytest.approx(0.8 * math.log(1 + 0.25 / 0.75 * 25 * around), rel=1e-4)


@pytest.mark.parametrize(("margin", "block"), [(7, 3), (8, 3), (6, 3), (12, 5), (4, 5)])
def test_ballots_of_blocks_ask_for_displacements_around_theirs(margin: int, block: int) -> None:
    """Block (i, j) stands for displacement (block i, block j): the middle one for none, whatever the margin."""
    side, half = 2 * margin + 1, margin // block
    found = WindowCorrelation(torch.randn(2, side, side, generator=generator()), torch.zeros(2, 2), torch.ones(2), 3.0)
    papers = ballots(found, 0.4, block)
    assert papers.shape == (2, 2 * half + 1, 2 * half + 1)
    p = torch.softmax(3.0 * found.surfaces.flatten(1), dim=1).view(2, side, side).numpy()
    wide = np.pad(p, ((0, 0), (2 * block, 2 * block), (2 * block, 2 * block)))
    reach = (3 * block - 1) // 2
    for n, j, i in np.ndindex(*papers.shape):
        row, column = (2 * block + margin + block * (k - half) for k in (j, i))
        around = wide[n, row - reach : row + reach + 1, column - reach : column + reach + 1].mean()
        assert float(papers[n, j, i]) == pytest.approx(math.log1p(0.4 / 0.6 * side**2 * around), rel=1e-4)


def test_a_window_that_sees_nothing_favours_nothing() -> None:
    flat = WindowCorrelation(torch.zeros(2, 9, 9), torch.zeros(2, 2), torch.tensor([1.0, 0.0]))
    papers = ballots(flat, 0.4)
    torch.testing.assert_close(papers[0, 1:-1, 1:-1], torch.full((7, 7), -math.log(0.6)))
    assert not papers[1].any()


def test_counting_adds_the_votes_at_each_windows_own_place() -> None:
    votes = torch.rand(4, 11, 11, generator=generator())
    offsets = torch.randint(-3, 4, (6, 4, 2), generator=generator(1)).float()
    counted = _count(votes, offsets, 2)
    assert counted.shape == (6, 5, 5)
    for h, j, i in np.ndindex(6, 5, 5):
        own = [votes[n, 5 + int(y) + j - 2, 5 + int(x) + i - 2] for n, (x, y) in enumerate(offsets[h])]
        assert counted[h, j, i] == pytest.approx(float(sum(own)), abs=1e-5)


def test_nobody_votes_beyond_the_rim() -> None:
    votes = torch.ones(3, 7, 7)
    offsets = torch.zeros(1, 3, 2)
    offsets[0, 0, 0], offsets[0, 1, 1] = 3.0, -30.0
    expected = torch.full((3, 3), 2.0)  # the second window's place lies outside altogether
    expected[:, 2] = 1.0  # and the first one's does with a shift to the right
    torch.testing.assert_close(_count(votes, offsets, 1)[0], expected)


def test_a_vote_between_cells_is_shared() -> None:
    votes = torch.zeros(1, 5, 5)
    votes[0, 2, 3] = 1.0
    assert _count(votes, torch.tensor([[[0.25, 0.0]]]), 0).item() == pytest.approx(0.25)
    assert _count(votes, torch.tensor([[[1.0, 0.5]]]), 0).item() == pytest.approx(0.5)


@pytest.mark.parametrize(("reach", "arm", "step"), [(0.09, 70.0, 3.0), (0.05, 40.0, 1.5), (0.001, 50.0, 3.0)])
def test_hypotheses_are_dense_enough_and_reach_both_ends(reach: float, arm: float, step: float) -> None:
    found = _steps(reach, arm, step)
    assert (found[0], found[-1]) == pytest.approx((-reach, reach))
    assert 0.0 in found
    assert np.diff(found).max() * arm <= step + 1e-9
