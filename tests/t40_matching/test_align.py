"""Refinement, flow and the whole engine on border-free pairs whose truth is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.matching.describe import OrientationFeatures
from somareg.matching.engine import Alignment, EngineCfg, align, preset
from somareg.matching.evidence import disagreement
from somareg.matching.flow import Flow, FlowCfg, estimate_flow
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.refine import refine_affine
from somareg.matching.steps import NEAR
from somareg.matching.warping import reduce, warp_to_reference
from somareg.types import Transform
from tests.synthetic import Array, SyntheticPair, make_pair, pixel_points
from tests.t40_matching.conftest import as_pair

STILL = AffineTransform.identity()
CFG = OrientationCfg()


def matcher(pair: Pair) -> Matcher:
    return Matcher(pair, OrientationFeatures(CFG))


def error(transform: Transform, pair: SyntheticPair) -> float:
    """RMS distance from the truth over the reference, pixels."""
    points = pixel_points(pair.reference.shape[1:])[::7]
    return float(np.sqrt(((transform(points) - pair.to_moving(points)) ** 2).sum(1).mean()))


def true_affine(pair: SyntheticPair) -> AffineTransform:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    origin, right, below = pair.to_moving(points)
    return AffineTransform(np.column_stack([right - origin, below - origin, origin]))


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_identity_warp_is_exact_and_padding_is_invalid() -> None:
    image = torch.randn(1, 2, 33, 40, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 33, 40)
    warped, seen = warp_to_reference(image, mask, STILL, (33, 40), 3)
    torch.testing.assert_close(warped[..., 3:-3, 3:-3], image, atol=1e-5, rtol=0)
    assert bool((seen[..., 3:-3, 3:-3] == 1).all())
    assert float(seen.sum()) == 33 * 40


def test_warp_samples_moving_at_reference_plus_displacement() -> None:
    y, x = np.mgrid[:40, :50].astype(np.float32)
    image = torch.from_numpy(np.stack([x, y]))[None]
    shift = AffineTransform.from_parameters(shift=(2.25, -1.5))
    warped, seen = warp_to_reference(image, torch.ones(1, 1, 40, 50), shift, (40, 50), 0)
    inside = seen[0, 0] > 0
    np.testing.assert_allclose(warped[0, 0][inside].numpy(), (x + 2.25)[inside.numpy()], atol=1e-4)
    np.testing.assert_allclose(warped[0, 1][inside].numpy(), (y - 1.5)[inside.numpy()], atol=1e-4)
    assert not inside[:2].any()
    assert not inside[:, -3:].any()


def test_samples_that_touch_an_invalid_pixel_are_invalid() -> None:
    image, mask = torch.zeros(1, 1, 20, 20), torch.ones(1, 1, 20, 20)
    image[..., 10, 10], mask[..., 10, 10] = 1e6, 0
    half = AffineTransform.from_parameters(shift=(0.5, 0.0))
    warped, seen = warp_to_reference(image, mask, half, (20, 20), 0)
    assert seen[0, 0, 10, 8:12].tolist() == [1, 0, 0, 1]
    assert not (warped * seen).any()


@pytest.mark.parametrize("factor", [2, 3])
def test_reduce_is_the_mean_of_the_valid(factor: int) -> None:
    image, mask = torch.ones(1, 1, 31, 31), torch.ones(1, 1, 31, 31)
    image[..., :4, :], mask[..., :4, :] = 1e6, 0
    small, known = reduce(image, mask, factor)
    assert small.shape[-1] == 31 // factor
    torch.testing.assert_close(small * known, known)


# --- affine -----------------------------------------------------------------------------------------------------------


def test_refining_the_truth_stays_there_and_identical_images_do_not_move() -> None:
    pair = make_pair(0, 192)
    same = as_pair(replace(pair, moving=pair.reference[:1]))
    found = refine_affine(matcher(replace(same, moving=same.reference)), STILL, NEAR).affine
    assert error(found, pair) < 0.05


@pytest.mark.parametrize(("dx", "dy"), [(3.5, 0.0), (-3.5, 0.0), (0.0, 4.6), (0.0, -4.6), (2.3, -1.6)])
def test_sub_pixel_shifts_have_the_right_sign_and_axis(dx: float, dy: float) -> None:
    """moving_xy = reference_xy + (dx, dy), +x right, +y down."""
    pair = make_pair(1, 192, shift=(dx, dy))
    found = refine_affine(matcher(as_pair(pair)), STILL, NEAR).affine
    middle = np.array([[95.5, 95.5]])
    np.testing.assert_allclose(found(middle) - middle, [[dx, dy]], atol=0.3)
    assert error(found, pair) < 0.4


def test_refinement_recovers_a_small_affine() -> None:
    pair = make_pair(2, 256, rotation_deg=2, scale=1.02, shift=(4, -3))
    found = refine_affine(matcher(as_pair(pair)), STILL, NEAR)
    assert error(STILL, pair) > 5
    assert error(found.affine, pair) < 0.4
    # What is left over after the last warp is small: the matches are relative to it.
    assert found.matches.displacement.norm(dim=1).median() < 2


def test_composition_order_is_affine_after_residual() -> None:
    """A residual seen after warping by A is applied first: moving <- A @ D. With a quarter turn in A, the other order
    would turn the correction into a wrong direction."""
    pair = make_pair(3, 192, rotation_deg=90, shift=(5.0, -2.0))
    rough = true_affine(pair).after(AffineTransform.from_parameters(shift=(3.0, 0.0)))
    found = refine_affine(matcher(as_pair(pair)), rough, NEAR).affine
    assert error(rough, pair) == pytest.approx(3.0)
    assert error(found, pair) < 0.4


def test_features_without_content_are_refused() -> None:
    pair = as_pair(make_pair(0, 128))
    flat = replace(pair, moving=torch.zeros_like(pair.moving))
    with pytest.raises(EstimationError):
        refine_affine(matcher(flat), STILL, NEAR)


# --- the whole engine -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warped() -> tuple[SyntheticPair, Alignment]:
    pair = make_pair(0, 320, warp_rms_px=3.5)
    return pair, align(as_pair(pair), (STILL,), EngineCfg())


@pytest.fixture(scope="module")
def straight() -> tuple[SyntheticPair, Alignment]:
    pair = make_pair(5, 224, rotation_deg=15, scale=1.2, shift=(17.9, -9.0))
    return pair, align(as_pair(pair), (STILL,), EngineCfg())


def local(alignment: Alignment) -> Flow:
    assert alignment.flow is not None
    return alignment.flow


def test_engine_recovers_a_strong_affine(straight: tuple[SyntheticPair, Alignment]) -> None:
    pair, alignment = straight
    assert alignment.failure == ""
    assert error(alignment.affine, pair) < 0.4
    assert alignment.support > EngineCfg().search.settled
    assert alignment.evidence.zscore > 2
    assert alignment.evidence.hit_ratio > 0.7
    assert alignment.split_half_px < 0.6
    assert alignment.forward_backward_px < 0.6


def test_flow_adds_nothing_where_the_truth_is_affine(straight: tuple[SyntheticPair, Alignment]) -> None:
    pair, alignment = straight
    both = compose(alignment.affine, local(alignment).field)
    assert error(both, pair) <= error(alignment.affine, pair) + 0.1


def test_flow_follows_a_smooth_warp(warped: tuple[SyntheticPair, Alignment]) -> None:
    pair, alignment = warped
    points = pixel_points(pair.reference.shape[1:])[::7]
    true = pair.to_moving(points) - points
    rms = float(np.sqrt((true**2).sum(1).mean()))
    both = compose(alignment.affine, local(alignment).field)
    assert 3 < rms < 4
    assert error(alignment.affine, pair) > 0.7 * rms  # no affine explains it
    assert error(both, pair) <= 0.4 * rms
    # In the wrong order, or with the wrong sign, it would not.
    negative = replace(local(alignment).field, array=-local(alignment).field.array)
    assert error(compose(alignment.affine, negative), pair) > rms
    assert (local(alignment).field.jacobian_determinant() > 0).all()


def test_coverage_is_high_where_windows_are_and_between_0_and_1(warped: tuple[SyntheticPair, Alignment]) -> None:
    coverage = local(warped[1]).coverage
    assert coverage.shape == local(warped[1]).field.array.shape[1:]
    assert coverage.min() >= 0
    assert coverage.max() <= 1
    assert np.median(coverage) > 0.8


def mostly_blind(pair: SyntheticPair, how: str) -> Pair:
    """A pair whose moving image tells something about the left third of the reference only."""
    edge = pair.moving.shape[-1] // 3
    if how == "invalid":
        mask = np.ones(pair.moving.shape[1:], bool)
        mask[:, edge:] = False
        return as_pair(pair, moving_mask=mask)
    moving = pair.moving.copy()
    moving[..., edge:] = np.median(moving)
    return as_pair(replace(pair, moving=moving))


@pytest.mark.parametrize("how", ["invalid", "featureless"])
def test_coverage_is_about_0_where_nothing_is_seen(how: str) -> None:
    pair = make_pair(6, 320)
    flow = estimate_flow(matcher(mostly_blind(pair, how)), true_affine(pair), FlowCfg())
    columns = flow.coverage.shape[1]
    seen, blind = flow.coverage[:, : columns // 4], flow.coverage[:, -columns // 5 :]
    assert np.median(seen) > 0.8
    assert np.median(blind) < 0.1
    assert np.abs(flow.field.array[:, :, -columns // 5 :]).max() < 0.3  # and no displacement is made up


def test_flow_returns_to_the_affine_beyond_what_is_seen() -> None:
    pair = make_pair(0, 320, warp_rms_px=3.5)
    mask = np.ones((320, 320), bool)
    mask[:, 130:] = False
    flow = estimate_flow(matcher(as_pair(pair, moving_mask=mask)), STILL, FlowCfg())
    amplitude = np.sqrt((flow.field.array**2).sum(0))
    columns = amplitude.shape[1]
    assert amplitude[:, : columns // 4].mean() > 2
    assert amplitude[:, -columns // 6 :].mean() < 1 and amplitude[:, -1].max() < 0.75
    assert flow.coverage[:, -columns // 6 :].max() < 0.2


def test_small_images_get_smaller_windows_and_ask_for_more_evidence() -> None:
    cfg = FlowCfg()
    assert cfg.on((102, 102)) is cfg
    assert cfg.on((40, 1000)) is cfg  # a long strip holds many windows
    small = cfg.on((100, 100))
    assert [(window.size, window.stride, window.margin) for window, _ in small.steps] == [(20, 6, 8)] * 2
    assert [sigma for _, sigma in small.steps] == [sigma for _, sigma in cfg.steps]
    assert small.belief.none > cfg.belief.none and small.begins > cfg.begins and small.clearly > cfg.clearly


@torch.inference_mode()
def test_what_no_field_follows_is_told() -> None:
    """Windows scatter more about an affine than their precision lets expect where displacement is left."""
    told = []
    for size in (0.0, 2.0, 4.0):
        pair = make_pair(0, 320, warp_rms_px=size)
        flow = estimate_flow(matcher(as_pair(pair)), STILL, FlowCfg(follow=False))
        assert flow.unexplained == flow.unexplained_still
        told.append(flow.unexplained)
    assert 2 * told[0] < told[1] < told[2]
    followed = estimate_flow(matcher(as_pair(pair)), STILL, FlowCfg())
    assert followed.unexplained < 0.3 * followed.unexplained_still
    assert followed.without_field().unexplained == followed.unexplained_still


def unpack(alignment: Alignment) -> list[Array]:
    flow = local(alignment)
    assert alignment.ties is not None
    return [
        alignment.affine.matrix,
        flow.field.array,
        flow.coverage,
        flow.sigma_px,
        alignment.ties.displacement.numpy(),
    ]


def test_the_same_input_gives_identical_arrays() -> None:
    pair = as_pair(make_pair(0, 160, warp_rms_px=2.5))
    first, second = (align(pair, (STILL,), EngineCfg()) for _ in range(2))
    for one, other in zip(unpack(first), unpack(second), strict=True):
        np.testing.assert_array_equal(one, other)
    assert first.evidence == second.evidence


@pytest.mark.parametrize("side", ["reference", "moving"])
def test_a_constant_image_is_a_failure_that_stays_at_the_start(side: str) -> None:
    pair = as_pair(make_pair(0, 128))
    flat = replace(pair, **{side: torch.zeros_like(getattr(pair, side))})
    start = AffineTransform.from_parameters(shift=(3, 4))
    alignment = align(flat, (start,), EngineCfg())
    assert alignment.failure
    assert alignment.flow is None
    assert alignment.support == 0.0
    np.testing.assert_array_equal(alignment.affine.matrix, start.matrix)


def test_unrelated_images_have_no_support_from_the_start_on(straight: tuple[SyntheticPair, Alignment]) -> None:
    pair, own = straight
    strangers = replace(make_pair(78, 224), reference=pair.reference)
    other = align(as_pair(strangers), (STILL,), EngineCfg(flow=None))
    assert other.support < 0.6 * own.support
    assert other.evidence.zscore < own.evidence.zscore


def test_progress_only_grows() -> None:
    told: list[tuple[str, float]] = []
    pair = as_pair(make_pair(0, 128, rotation_deg=20.0))  # not where it is expected: it has to be searched
    align(pair, (STILL,), preset("fast"), lambda stage, share: told.append((stage, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert len(shares) >= 4
    assert 0 <= shares[0] < shares[-1] <= 1


def test_disagreement_is_the_rms_distance() -> None:
    shift = AffineTransform.from_parameters(shift=(3.0, 4.0))
    assert disagreement(shift, STILL, (100, 120)) == pytest.approx(5.0)
    bump = FieldTransform(np.zeros((2, 2, 2)), (0, 0), (100, 100))
    assert disagreement(bump, STILL, (100, 120)) == 0


@pytest.mark.parametrize("side", [144, 352])
def test_an_alignment_is_the_same_with_and_without_a_helper(side: int) -> None:
    pair = as_pair(make_pair(3, side, rotation_deg=3, scale=1.03, shift=(6.0, -4.0)))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone, shared = (align(pair, (STILL,), EngineCfg(), cores=cores) for cores in (1, 2))
    torch.set_num_threads(before)
    assert shared.affine.matrix.tolist() == alone.affine.matrix.tolist()
    assert shared.evidence == alone.evidence
    assert (shared.support, shared.split_half_px) == (alone.support, alone.split_half_px)
    assert shared.forward_backward_px == alone.forward_backward_px
