"""Window correlation is a masked ZNCC, and its signs are the design's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching.posterior import read_windows, standardise
from somareg.matching.windows import WindowCfg, WindowCorrelation, correlate_windows, place_windows


def features(seed: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


def brute_force(window: np.ndarray, known: np.ndarray, area: np.ndarray, seen: np.ndarray) -> float:
    """Correlation coefficient of one placement, by the definition: over cells that are valid in both.

    The window is centred with its own valid cells; the area's features have mean 0 by construction and stay as they
    are, as the module does; the result is weighted by the root of the share that is seen.
    """
    count = known.sum()
    centred = (window - (window * known).sum((1, 2), keepdims=True) / count) * known
    both = known * seen
    share = both.sum() / count
    if share <= 0.5:
        return 0.0
    top = (centred * area * both).sum()
    bottom = np.sqrt((centred**2 * both).sum() * (area**2 * both).sum())
    return float(top / bottom * np.sqrt(share))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_surfaces_equal_the_definition(masked: bool, channels: int) -> None:
    margin, size = 2, 7
    cfg = WindowCfg(size=size, margin=margin, stride=4, min_seen=0.0)
    reference, moving = features(1, channels, 13, 15), features(2, channels, 13 + 2 * margin, 15 + 2 * margin)
    reference_valid, moving_valid = torch.ones(1, 1, 13, 15), torch.ones(1, 1, 13 + 2 * margin, 15 + 2 * margin)
    if masked:
        reference_valid[..., 4:6, 3:12] = 0
        moving_valid[..., 9:, 8:] = 0
        moving_valid[..., :, :3] = 0
    reference, moving = reference * reference_valid, moving * moving_valid
    result = correlate_windows(reference, reference_valid, moving, moving_valid, cfg)
    corners, _ = place_windows(reference_valid, cfg)
    assert len(result.surfaces) == len(corners) > 3
    for (y, x), surface, centre in zip(corners, result.surfaces, result.centres, strict=True):
        assert centre.tolist() == [x + 3, y + 3]
        cut = slice(y, y + size), slice(x, x + size)
        window, known = reference[0][(slice(None), *cut)].numpy(), reference_valid[0, 0][cut].numpy()
        for j in range(2 * margin + 1):
            for i in range(2 * margin + 1):
                there = slice(y + j, y + j + size), slice(x + i, x + i + size)
                area, seen = moving[0][(slice(None), *there)].numpy(), moving_valid[0, 0][there].numpy()
                expected = brute_force(window, known, area, seen)
                # The denominator has a small floor (0.1 % of the mean), against windows without content.
                assert float(surface[j, i]) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, -2), (-4, 1), (2, 4), (-4, -4)])
def test_a_known_shift_is_found_exactly(dx: int, dy: int) -> None:
    """moving_xy = reference_xy + (dx, dy), +x right, +y down."""
    margin = 4
    ground = features(3, 4, 60, 60)
    reference = ground[..., 10:40, 10:45]
    # The reference's cell (x, y) is found in the moving features at (x + dx, y + dy).
    moving = ground[..., 10 - margin - dy : 40 + margin - dy, 10 - margin - dx : 45 + margin - dx]
    cfg = WindowCfg(size=12, margin=margin, stride=6)
    windows = correlate_windows(
        reference, torch.ones_like(reference[:, :1]), moving, torch.ones_like(moving[:, :1]), cfg
    )
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
        surface = correlate_windows(reference, torch.ones(1, 1, 16, 16), moving * valid, valid, cfg).surfaces[0]
        over.append(int(surface.argmax()) % 9)
    mean = float(np.mean(over))
    assert 2.8 < mean < 5.2  # the middle is 4; chance deviation of the mean is 0.24


def test_windows_that_see_too_little_are_left_out() -> None:
    reference, moving = features(1, 2, 40, 40), features(2, 2, 48, 48)
    reference_valid, moving_valid = torch.ones(1, 1, 40, 40), torch.ones(1, 1, 48, 48)
    reference_valid[..., :25] = 0  # windows starting at column 0, 8 have under a third of their cells
    moving_valid[..., 28:, :] = 0
    cfg = WindowCfg(size=16, margin=4, stride=8, min_seen=0.6)
    windows = correlate_windows(reference * reference_valid, reference_valid, moving * moving_valid, moving_valid, cfg)
    assert len(windows.surfaces) == len(windows.centres) == len(windows.valid) > 0
    assert (windows.centres[:, 0] - 7.5 >= 16).all()
    assert (windows.centres[:, 1] - 7.5 <= 16).all()
    assert ((windows.valid > 0) & (windows.valid <= 1)).all()
    nothing = correlate_windows(reference * 0, reference_valid * 0, moving, moving_valid, cfg)
    assert nothing.surfaces.shape == (0, 9, 9)


def test_windows_cover_the_whole_image_evenly() -> None:
    corners, share = place_windows(torch.ones(1, 1, 51, 83), WindowCfg(size=20, stride=8))
    rows, columns = sorted({y for y, _ in corners}), sorted({x for _, x in corners})
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, 31, 0, 63)
    assert max(np.diff(columns)) - min(np.diff(columns)) <= 1
    assert max(np.diff(rows)) <= 10
    assert (share == 1).all()


@pytest.mark.parametrize("size", [12, 30])
def test_small_features_get_one_window(size: int) -> None:
    reference, moving = features(0, 2, 12, 20), features(0, 2, 20, 28)
    windows = correlate_windows(
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
