"""Where windows lie, which are left out, and how their surfaces are read; the signs are the design's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching.correlation import correlate_grid
from somareg.matching.posterior import read_windows, standardise
from somareg.matching.windows import (
    WindowCfg,
    WindowCorrelation,
    correlate_all,
    coverage,
    thinned,
    window_grid,
)


def correlated(*parts: Any) -> WindowCorrelation:
    """`correlate_all` of one pair."""
    return correlate_all(*parts)[0]


def features(seed: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("min_seen", [0.0, 0.6, 0.95])
def test_windows_are_those_of_the_grid_that_see_enough(min_seen: float) -> None:
    reference, moving = features(1, 2, 40, 36), features(2, 2, 48, 44)
    reference_valid, moving_valid = torch.ones(1, 1, 40, 36), torch.ones(1, 1, 48, 44)
    reference_valid[..., 8:30, :14] = 0
    moving_valid[..., 26:, 30:] = 0
    cfg = WindowCfg(size=12, margin=4, stride=6, min_seen=min_seen)
    grid = window_grid((40, 36), cfg)
    found = correlated(reference, reference_valid, moving, moving_valid, cfg)
    surfaces, _ = correlate_grid(reference, reference_valid, moving, moving_valid, grid)
    kept = []
    for i, (y, x) in enumerate(grid.corners):
        known = reference_valid[0, 0, y : y + 12, x : x + 12]
        both = known * moving_valid[0, 0, y + 4 : y + 16, x + 4 : x + 16]
        if known.mean() > 1 / 3 and both.sum() >= min_seen * known.sum():
            kept.append((surfaces[0, i], torch.tensor([x + 5.5, y + 5.5]), both.mean()))
    assert 4 < len(kept) < len(grid.corners)
    for own, expected in zip((found.surfaces, found.centres, found.valid), zip(*kept, strict=True), strict=True):
        torch.testing.assert_close(own, torch.stack(expected))


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, -2), (-4, 1), (2, 4), (-4, -4)])
def test_a_known_shift_is_found_exactly(dx: int, dy: int) -> None:
    """moving_xy = reference_xy + (dx, dy), +x right, +y down."""
    margin = 4
    ground = features(3, 4, 60, 60)
    reference = ground[..., 10:40, 10:45]
    # The reference's cell (x, y) is found in the moving features at (x + dx, y + dy).
    moving = ground[..., 10 - margin - dy : 40 + margin - dy, 10 - margin - dx : 45 + margin - dx]
    cfg = WindowCfg(size=12, margin=margin, stride=6)
    windows = correlated(reference, torch.ones_like(reference[:, :1]), moving, torch.ones_like(moving[:, :1]), cfg)
    flat = windows.surfaces.flatten(1).argmax(1)
    assert set(zip((flat % 9 - margin).tolist(), (flat // 9 - margin).tolist(), strict=True)) == {(dx, dy)}
    assert windows.surfaces[:, margin + dy, margin + dx].min() > 0.98
    matches = read_windows(windows, 2.0, torch.zeros(len(flat), 2), 20.0)
    wanted = torch.tensor([[2.0 * dx, 2.0 * dy]]).expand(len(flat), 2)
    # White features: a parabola through the neighbours of a lone peak is off by their noise.
    torch.testing.assert_close(matches.displacement, wanted, atol=0.05, rtol=0.0)


def test_an_edge_of_the_moving_image_does_not_attract() -> None:
    """A noise window near the valid edge peaks no more often at placements that hang over the edge."""
    margin = 4
    cfg = WindowCfg(size=16, margin=margin, stride=16, min_seen=0.0)
    over = []
    for seed in range(120):
        reference, moving = features(2 * seed, 1, 16, 16), features(2 * seed + 1, 1, 24, 24)
        valid = torch.ones(1, 1, 24, 24)
        valid[..., 16:] = 0
        surface = correlated(reference, torch.ones(1, 1, 16, 16), moving * valid, valid, cfg).surfaces[0]
        over.append(int(surface.argmax()) % 9)
    mean = float(np.mean(over))
    assert 2.8 < mean < 5.2  # the middle is 4; chance deviation of the mean is 0.24


def test_windows_that_see_too_little_are_left_out() -> None:
    reference, moving = features(1, 2, 40, 40), features(2, 2, 48, 48)
    reference_valid, moving_valid = torch.ones(1, 1, 40, 40), torch.ones(1, 1, 48, 48)
    reference_valid[..., :25] = 0  # windows starting at column 0, 8 have under a third of their cells
    moving_valid[..., 28:, :] = 0
    cfg = WindowCfg(size=16, margin=4, stride=8, min_seen=0.6)
    windows = correlated(reference * reference_valid, reference_valid, moving * moving_valid, moving_valid, cfg)
    assert len(windows.surfaces) == len(windows.centres) == len(windows.valid) > 0
    assert (windows.centres[:, 0] - 7.5 >= 16).all()
    assert (windows.centres[:, 1] - 7.5 <= 16).all()
    assert ((windows.valid > 0) & (windows.valid <= 1)).all()
    nothing = correlated(reference * 0, reference_valid * 0, moving, moving_valid, cfg)
    assert nothing.surfaces.shape == (0, 9, 9)


@pytest.mark.parametrize("shape", [(51, 83), (20, 20), (21, 400), (200, 20)])
@pytest.mark.parametrize("stride", [1, 8, 30])
def test_windows_cover_the_whole_image_evenly(shape: tuple[int, int], stride: int) -> None:
    grid = window_grid(shape, WindowCfg(size=20, stride=stride))
    for starts, length in ((grid.rows, shape[0]), (grid.columns, shape[1])):
        assert starts[0] == 0
        if length >= 20 + stride:
            assert starts[-1] == length - 20
        steps = np.diff(starts)
        assert not len(steps) or max(steps) - min(steps) <= 1
        assert not len(steps) or max(steps) < 1.5 * stride + 1
    assert grid.size == (20, 20)
    assert bool((coverage(torch.ones(1, 1, *shape), grid) == 1).all())


@pytest.mark.parametrize(("height", "width"), [(30, 34), (6, 34), (30, 7)])
def test_coverage_is_the_share_of_valid_cells(height: int, width: int) -> None:
    valid = (torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    grid = window_grid((height, width), WindowCfg(size=9, stride=5))
    assert grid.size == (min(9, height), min(9, width))
    expected = [valid[:, 0, y : y + 9, x : x + 9].mean((1, 2)) for y, x in grid.corners]
    torch.testing.assert_close(coverage(valid, grid), torch.stack(expected, 1))


SHAPES = [(60, 60), (128, 128), (256, 128), (512, 700), (1000, 1000)]
STRIPS = [(28, 5000), (40, 4000), (3000, 33), (10, 2000)]


@pytest.mark.parametrize("shape", SHAPES + STRIPS)
@pytest.mark.parametrize("limit", [40, 130, 220, 900])
def test_thinned_windows_number_about_the_limit(shape: tuple[int, int], limit: int) -> None:
    window = WindowCfg(size=28, margin=5, stride=6)
    thin = thinned(window, shape, limit)
    assert (thin.size, thin.margin, thin.min_seen) == (window.size, window.margin, window.min_seen)
    full, count = len(window_grid(shape, window).corners), len(window_grid(shape, thin).corners)
    assert thin.stride >= window.stride
    assert count <= (2.1 if shape in STRIPS else 1.6) * limit + 1
    if full <= limit:
        assert thin == window
    else:
        assert count > 0.5 * limit


@pytest.mark.parametrize("size", [12, 30])
def test_small_features_get_one_window(size: int) -> None:
    reference, moving = features(0, 2, 12, 20), features(0, 2, 20, 28)
    windows = correlated(
        reference,
        torch.ones(1, 1, 12, 20),
        moving,
        torch.ones(1, 1, 20, 28),
        WindowCfg(size=size, margin=4, stride=100),
    )
    assert len(windows.surfaces) == 1
    assert windows.centres[0].tolist() == [(min(size, 20) - 1) / 2, 5.5]


def surfaces_of(peak: tuple[float, float], count: int, margin: int = 5) -> WindowCorrelation:
    """Noisy windows whose correlation has a bump at a sub-cell displacement."""
    y, x = np.mgrid[-margin : margin + 1, -margin : margin + 1]
    bump = 4 * np.exp(-((x - peak[0]) ** 2 + (y - peak[1]) ** 2) / (2 * 1.3**2))
    noise = np.random.default_rng(0).normal(0, 0.8, (count, *bump.shape))
    surfaces = torch.from_numpy((0.05 * (bump + noise)).astype(np.float32))
    return WindowCorrelation(surfaces, torch.tensor([[10.0, 20.0]]).expand(count, 2), torch.ones(count))


@pytest.mark.parametrize("peak", [(0.0, 0.0), (1.5, 0.0), (-1.5, 0.0), (0.0, 2.3), (0.0, -2.3), (0.7, -1.2)])
def test_sub_pixel_peaks_have_the_right_sign_and_axis(peak: tuple[float, float]) -> None:
    """Windows as noisy as between SAR and optical, each rough by itself, agree on a fraction of a cell."""
    windows = surfaces_of(peak, count=60)
    matches = read_windows(windows, 2.0, torch.tensor(peak).expand(60, 2) * 2, 6.0)
    mean = (matches.displacement * matches.weight[:, None]).sum(0) / matches.weight.sum()
    np.testing.assert_allclose(mean.numpy(), 2 * np.array(peak), atol=0.4)
    np.testing.assert_allclose(matches.points[0].numpy(), [20.5, 40.5])  # cell 10 of 2 px is centred on pixel 20.5


def test_the_prior_decides_where_a_window_is_ambiguous() -> None:
    y, x = np.mgrid[-5:6, -5:6]
    twin = np.exp(-((x - 3) ** 2 + y**2) / 2) + np.exp(-((x + 3) ** 2 + y**2) / 2)
    windows = WindowCorrelation(torch.from_numpy(twin[None].astype(np.float32)), torch.zeros(1, 2), torch.ones(1))
    right = read_windows(windows, 1.0, torch.tensor([[2.5, 0.0]]), 1.5)
    left = read_windows(windows, 1.0, torch.tensor([[-2.5, 0.0]]), 1.5)
    open_ = read_windows(windows, 1.0, torch.zeros(1, 2), 50.0)
    assert right.displacement[0, 0] > 2.3
    assert left.displacement[0, 0] < -2.3
    assert abs(float(open_.displacement[0, 0])) < 0.3
    assert open_.variance[0] > 3 * right.variance[0]  # and it says that it does not know
    assert right.precision[0] >= 0


def test_an_empty_window_adds_nothing_to_the_prior() -> None:
    windows = WindowCorrelation(torch.zeros(1, 11, 11), torch.zeros(1, 2), torch.ones(1))
    matches = read_windows(windows, 2.0, torch.tensor([[1.0, -1.0]]), 2.0)
    assert float(matches.evidence[0]) == 0
    assert float(matches.weight[0]) == 0
    np.testing.assert_allclose(matches.displacement[0].numpy(), [1.0, -1.0], atol=0.05)


def test_standardise_leaves_unseen_displacements_out() -> None:
    generator = torch.Generator().manual_seed(0)
    surface = 0.3 + 0.1 * torch.randn(1, 9, 9, generator=generator)
    surface[:, :, :4] = 0
    z = standardise(surface)
    assert not z[:, :, :4].any()
    assert abs(float(z[:, :, 4:].mean())) < 1e-5
    assert float(z[:, :, 4:].std(correction=0)) == pytest.approx(1, abs=1e-4)
