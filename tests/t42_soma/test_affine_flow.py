"""One affine-flow stage on features that are exact functions of the ground: signs, order, units, masks, refusal."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from somareg.matching.affine import apply_affine_batch, compose_batch, invert_batch
from somareg.matching.posterior import FLOOR_CELLS2
from somareg.matching.windows import WindowCfg
from somareg.soma.glam.affine_flow import (
    StageCfg,
    StageEstimate,
    affine_flow,
    default_stages,
    warp_features,
)
from somareg.soma.glam.coarse import cell_centres
from tests.t40_matching.textures import Size, affine, ground, off, standard

IDENTITY = torch.eye(2, 3, dtype=torch.float64)[None]
CHANNELS = 4
STRIDES = (2, 4, 8)


def features(truth: Tensor, cells: Size, stride: int) -> Tensor:
    """(1, 4, h, w) of an image whose pixel q shows the ground at truth^-1(q); detail grows with the stride."""
    centres = cell_centres(*cells, stride)[None].double()
    where = apply_affine_batch(invert_batch(truth), centres)[0].reshape(*cells, 2)
    return torch.stack([standard(ground(where * 4 / stride, seed)) for seed in range(CHANNELS)])[None].float()


class Stage:
    """A stage with a temperature of its own."""

    def __init__(self, cfg: StageCfg, temperature: float = 25.0) -> None:
        self.cfg, self.temperature = cfg, torch.tensor(temperature, requires_grad=True)

    def __call__(self, *images_and_start: Tensor) -> StageEstimate:
        return affine_flow(self.cfg, self.temperature, *images_and_start)


def stage(stride: int, **settings: float) -> Stage:
    """A stage whose temperature suits features that agree exactly; the default is for SAR against optical."""
    cfg = StageCfg(stride, WindowCfg(size=16, margin=4, stride=4), stiffness=settings.get("stiffness", 0.0))
    return Stage(cfg, temperature=6.0)


def estimate(
    truth: Tensor,
    stride: int,
    start: Tensor = IDENTITY,
    *,
    cells: Size = (56, 48),
    moving_cells: Size | None = None,
    mask: Tensor | None = None,
    moving_mask: Tensor | None = None,
    network: Stage | None = None,
) -> StageEstimate:
    there = moving_cells or cells
    fixed, moved = features(IDENTITY, cells, stride), features(truth, there, stride)
    seen = torch.ones(1, 1, *cells) if mask is None else mask
    moving_seen = torch.ones(1, 1, *there) if moving_mask is None else moving_mask
    with torch.no_grad():
        found: StageEstimate = (network or stage(stride))(fixed, seen, moved, moving_seen, start)
    return found


def pixels(cells: Size, stride: int) -> Size:
    return cells[0] * stride, cells[1] * stride


# --- warping features -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_warped_cells_show_the_ground_at_their_centres(stride: int) -> None:
    """Features that are the pixel coordinates themselves: after warping a cell shows A(its own centre)."""
    cells, margin = (20, 26), 2
    y, x = cell_centres(*cells, stride).flip(-1).mT.reshape(2, *cells)
    truth = affine(pixels(cells, stride), degrees=7.0, scale=1.1, shift=(1.3 * stride, -0.6 * stride))
    moved, known = warp_features(torch.stack([x, y])[None], torch.ones(1, 1, *cells), truth, cells, margin, stride)
    assert moved.shape == (1, 2, cells[0] + 2 * margin, cells[1] + 2 * margin)
    centres = cell_centres(cells[0] + 2 * margin, cells[1] + 2 * margin, stride).double() - margin * stride
    expected = apply_affine_batch(truth, centres[None])[0].mT.reshape(2, *moved.shape[-2:])
    # Beyond the outermost centres the border is repeated: by half a cell at most.
    low, high = (stride - 1) / 2, torch.tensor([cells[1], cells[0]]).reshape(2, 1, 1) * stride - (stride + 1) / 2
    expected = torch.minimum(expected.clamp_min(low), high.double())
    inside = known[0, 0] > 0
    assert 0.5 < float(inside.float().mean()) < 0.95
    torch.testing.assert_close(moved[0][:, inside].double(), expected[:, inside], atol=1e-3 * stride, rtol=0)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_cell_is_known_where_all_that_it_was_read_from_is(stride: int) -> None:
    """Against the definition: every one of the four cells with a share in the value is valid and inside."""
    cells = (18, 22)
    valid = (torch.rand(1, 1, *cells, generator=torch.Generator().manual_seed(2)) > 0.15).float()
    truth = affine(pixels(cells, stride), degrees=4.0, shift=(-1.4 * stride, 0.8 * stride))
    _, known = warp_features(torch.ones(1, 1, *cells), valid, truth, cells, 0, stride)
    mapped = apply_affine_batch(truth, cell_centres(*cells, stride)[None].double())[0]
    place = (mapped - (stride - 1) / 2) / stride
    limit = torch.tensor([cells[1] - 1, cells[0] - 1])
    for number, (x, y) in enumerate(place.tolist()):
        inside = -0.5 * 1.0 < x < limit[0] + 0.5 and -0.5 < y < limit[1] + 0.5
        x, y = min(max(x, 0.0), float(limit[0])), min(max(y, 0.0), float(limit[1]))
        corners = [(math.floor(x) + i, math.floor(y) + j) for i in (0, 1) for j in (0, 1)]
        shares = [(1 - abs(x - i)) * (1 - abs(y - j)) for i, j in corners]
        read = [valid[0, 0, j, i].item() for (i, j), share in zip(corners, shares, strict=True) if share > 1e-3]
        if min(abs(share - 1e-3) for share in shares) > 5e-4:  # rounding decides there
            assert bool(known.flatten()[number]) == (inside and min(read) == 1), (x, y, shares)


def test_invalid_values_at_the_rim_do_not_leak() -> None:
    values, valid = torch.ones(1, 1, 12, 12), torch.ones(1, 1, 12, 12)
    values[..., 6, 0], valid[..., 6, 0] = 1e6, 0
    shift = affine((24, 24), shift=(-0.6, 0.7))  # the first column is read from the outer half of the first cells
    moved, known = warp_features(values, valid, shift, (12, 12), 0, 2)
    assert float(moved.max()) == pytest.approx(1.0)
    assert known[0, 0, 4:8, 0].tolist() == [1, 0, 0, 1]


# --- what a stage finds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", STRIDES)
def test_nothing_to_find(stride: int) -> None:
    network = Stage(StageCfg(stride, WindowCfg(size=16, margin=4, stride=4)), temperature=25.0)
    found = estimate(IDENTITY, stride, cells=(96, 96), network=network)
    assert (
        off(found.affine, IDENTITY, pixels((96, 96), stride)) < 6e-3 * stride
    )  # a parabola through a peak is a little off where its flanks differ
    assert not bool(found.refused)


def test_a_scene_that_is_its_own_mirror_image_does_not_move_at_all() -> None:
    """What identical images leave is the chance asymmetry of windows; in a symmetric scene it cancels exactly."""
    half = features(IDENTITY, (48, 48), 2)
    scene = half + half.flip(-1) + half.flip(-2) + half.flip((-1, -2))
    seen = torch.ones(1, 1, 48, 48)
    with torch.no_grad():
        found = stage(2)(scene, seen, scene, seen, IDENTITY)
    middle = torch.full((1, 1, 2), 47.5, dtype=torch.float64)
    assert float((apply_affine_batch(found.affine, middle) - middle).abs().max()) < 1e-5
    assert float((found.affine - IDENTITY)[0, [0, 1], [1, 0]].abs().max()) < 1e-7  # neither turn nor shear


WARPS = {
    "shift": {"shift": (2.7, -1.9)},
    "half a cell": {"shift": (0.5, 0.5)},
    "turn": {"degrees": 2.5},
    "scale": {"scale": 1.03},
    "all": {"degrees": -1.5, "scale": 0.98, "shift": (-0.9, 1.3)},
}


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("warp", WARPS.values(), ids=WARPS.keys())
def test_a_small_affine_is_found(warp: dict[str, float], stride: int) -> None:
    cells = (56, 48)
    shift = tuple(stride * s for s in warp.get("shift", (0.0, 0.0)))  # type: ignore[attr-defined]
    truth = affine(pixels(cells, stride), **{**warp, "shift": shift})  # type: ignore[arg-type]
    found = estimate(truth, stride, cells=cells)
    before, after = (off(a, truth, pixels(cells, stride)) / stride for a in (IDENTITY, found.affine))
    assert after < 0.25 * before
    assert after < 0.3
    again = estimate(truth, stride, found.affine, cells=cells)  # from there on it must settle, not wander
    assert off(again.affine, truth, pixels(cells, stride)) / stride < 0.08


@pytest.mark.parametrize("moving_cells", [(70, 40), (44, 64)])
def test_the_moving_image_may_have_another_size(moving_cells: Size) -> None:
    truth = affine((96, 112), degrees=1.0, shift=(3.0, -2.0))
    found = estimate(truth, 2, cells=(48, 56), moving_cells=moving_cells)
    assert off(found.affine, truth, (96, 112)) < 0.4
    assert float(found.weight.min()) < float(found.weight.max()) == 1.0  # some windows look past its edge


# --- order ------------------------------------------------------------------------------------------------------------


def test_the_residual_is_applied_before_the_start() -> None:
    """moving <- A @ D: with A a turn by 40 degrees, the other order would be off by |A d - d| = 0.68 |d|."""
    size = (112, 112)
    start, residual = affine(size, degrees=40.0, scale=1.05), affine(size, shift=(4.0, -3.0))
    truth = compose_batch(start, residual)
    found = estimate(truth, 2, start, cells=(56, 56))
    assert off(found.affine, truth, size) < 0.3
    swapped = compose_batch(compose_batch(invert_batch(start), found.affine), start)
    assert off(swapped, truth, size) > 2.5
    torch.testing.assert_close(found.start, start)
    # Each window's own displacement is the residual in the reference's frame, not the moving image's.
    inner = (found.weight[0] == 1) & ((found.points[0] - 55.5).abs().amax(-1) < 25)
    mean = found.displacement[0][inner].mean(0)
    torch.testing.assert_close(mean, torch.tensor([4.0, -3.0]), atol=0.3, rtol=0)


def test_features_that_were_warped_before_give_the_same_estimate() -> None:
    size, cells = (112, 112), (56, 56)
    base, residual = affine(size, degrees=25.0, shift=(5.0, 2.0)), affine(size, degrees=1.0, shift=(2.0, 1.5))
    truth = compose_batch(base, residual)
    # Moving pixels seen through `base`: pixel p of the warped image is moving pixel base(p).
    warped = features(compose_batch(invert_batch(base), truth), cells, 2)
    fixed, seen = features(IDENTITY, cells, 2), torch.ones(1, 1, *cells)
    for start in (base, compose_batch(base, affine(size, degrees=0.5, shift=(1.0, 0.5)))):
        with torch.no_grad():
            found = stage(2)(fixed, seen, warped, seen, start, base)
        assert off(found.affine, truth, size) < 0.3
        torch.testing.assert_close(found.start, start)


def test_swapping_the_roles_gives_the_inverse() -> None:
    size = (112, 112)
    truth = affine(size, degrees=2.0, scale=1.02, shift=(3.0, -2.0))
    there, back = estimate(truth, 2, cells=(56, 56)), estimate(invert_batch(truth), 2, cells=(56, 56))
    assert off(compose_batch(back.affine, there.affine), IDENTITY, size) < 0.4


@pytest.mark.parametrize("axes", [(-1,), (-2,), (-1, -2)])
def test_flipping_both_images_conjugates_the_affine(axes: tuple[int, ...]) -> None:
    """Exactly, as the windows lie symmetrically and correlation knows no direction."""
    cells, size = (56, 56), (112, 112)
    truth = affine(size, degrees=2.0, scale=1.02, shift=(3.0, -2.0))
    fixed, moved, seen = features(IDENTITY, cells, 2), features(truth, cells, 2), torch.ones(1, 1, *cells)
    network = stage(2)
    with torch.no_grad():
        plain = network(fixed, seen, moved, seen, IDENTITY)
        turned = network(fixed.flip(axes), seen, moved.flip(axes), seen, IDENTITY)
    flip = IDENTITY.clone()
    for axis in axes:
        row = {-1: 0, -2: 1}[axis]
        flip[0, row, row], flip[0, row, 2] = -1, size[row] - 1
    expected = compose_batch(flip, compose_batch(plain.affine, flip))
    assert off(plain.affine, IDENTITY, size) > 3
    torch.testing.assert_close(turned.affine, expected, atol=1e-4, rtol=0)


def test_a_quarter_turn_of_both_images_conjugates_the_affine() -> None:
    cells, size = (56, 56), (112, 112)
    truth = affine(size, degrees=2.0, scale=1.02, shift=(3.0, -2.0))
    fixed, moved, seen = features(IDENTITY, cells, 2), features(truth, cells, 2), torch.ones(1, 1, *cells)
    network = stage(2)
    with torch.no_grad():
        plain = network(fixed, seen, moved, seen, IDENTITY)
        turned = network(fixed.rot90(1, (-2, -1)), seen, moved.rot90(1, (-2, -1)), seen, IDENTITY)
    # rot90 takes the pixel (x, y) to (y, W - 1 - x).
    turn = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, size[1] - 1]]], dtype=torch.float64)
    expected = compose_batch(turn, compose_batch(plain.affine, invert_batch(turn)))
    torch.testing.assert_close(turned.affine, expected, atol=1e-4, rtol=0)


# --- units of what is reported ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", STRIDES)
def test_all_lengths_are_pixels(stride: int) -> None:
    cells = (48, 48)
    truth = affine(pixels(cells, stride), shift=(1.6 * stride, -1.2 * stride))
    found = estimate(truth, stride, cells=cells)
    assert found.name == f"1/{stride}"
    assert found.logits.shape == (1, found.points.shape[1], 81)
    whole = found.weight[0] > 0.99
    expected = torch.tensor([1.6 * stride, -1.2 * stride]).expand(int(whole.sum()), 2)
    assert float((found.displacement[0][whole] - expected).abs().median()) < 0.2 * stride
    # A window of 16 cells starts at cell 0: its centre is 7.5 cells from there, of pixel (stride - 1) / 2.
    torch.testing.assert_close(found.points[0, 0], torch.full((2,), 7.5 * stride + (stride - 1) / 2))
    # Entry [m + j, m + i] of the heat map is the displacement (i, j) cells.
    best = found.logits[0][whole].mean(0).argmax().item()
    assert (best % 9 - 4, best // 9 - 4) == (2, -1)
    assert bool((found.precision > 0).all())
    assert float(found.precision.max()) <= 1 / (FLOOR_CELLS2 * stride**2) + 1e-6  # the floor of the variance


def test_sharper_heat_maps_are_more_precise() -> None:
    truth = affine((96, 96), shift=(1.0, 1.0))
    blurred, sharp = (Stage(stage(2).cfg, temperature=t) for t in (1.0, 20.0))
    low, high = (estimate(truth, 2, cells=(48, 48), network=network).precision for network in (blurred, sharp))
    assert bool((high > 1.5 * low).all())


def test_windows_are_limited() -> None:
    cfg = replace(stage(2).cfg, limit=20)
    found = estimate(IDENTITY, 2, cells=(96, 96), network=Stage(cfg))
    assert 9 <= found.points.shape[1] <= 36


# --- masks and refusal ------------------------------------------------------------------------------------------------


def test_windows_that_see_too_little_do_not_count() -> None:
    """Half of the moving image lies elsewhere; with a mask over it the affine of the other half is found."""
    cells, size = (56, 56), (112, 112)
    truth, wrong = affine(size, shift=(3.0, -2.0)), affine(size, shift=(-6.0, 6.0))
    fixed, moved = features(IDENTITY, cells, 2), features(truth, cells, 2)
    moved[..., 24:] = features(wrong, cells, 2)[..., 24:]
    seen, half = torch.ones(1, 1, *cells), torch.ones(1, 1, *cells)
    half[..., 24:] = 0
    with torch.no_grad():
        misled = stage(2, stiffness=0.4)(fixed, seen, moved, seen, IDENTITY)
        for masks in ((seen, half), (half, seen), (half, half)):
            found = stage(2, stiffness=0.4)(fixed, masks[0], moved, masks[1], IDENTITY)
            torch.testing.assert_close(found.affine[..., 2], truth[..., 2], atol=0.6, rtol=0)
            hidden = found.weight[0] == 0
            assert bool(hidden.any())
            assert bool((found.precision[0][hidden] == 0).all())
    assert off(misled.affine, truth, size) > 3


@pytest.mark.parametrize("side", ["reference", "moving", "both"])
def test_without_imagery_the_start_stays_and_gradients_are_finite(side: str) -> None:
    cells = (40, 40)
    start = affine((80, 80), degrees=3.0, shift=(1.0, 2.0))
    fixed, moved = (features(t, cells, 2).requires_grad_() for t in (IDENTITY, start))
    none, all_of_it = torch.zeros(1, 1, *cells), torch.ones(1, 1, *cells)
    seen = none if side != "moving" else all_of_it
    moving_seen = none if side != "reference" else all_of_it
    network = stage(2)
    found = network(fixed, seen, moved, moving_seen, start)
    assert bool(found.refused)
    assert torch.equal(found.affine, start)
    assert math.isinf(float(found.condition))
    assert bool((found.precision == 0).all())
    sums = (found.affine, found.displacement, found.precision, found.logits, found.weight)
    assert all(bool(torch.isfinite(x).all()) for x in sums)
    torch.stack([x.double().sum() for x in sums]).sum().backward()
    for tensor in (fixed, moved, network.temperature):
        assert tensor.grad is None or bool(torch.isfinite(tensor.grad).all())


def test_gradients_reach_both_images_and_the_parameters() -> None:
    cells = (48, 48)
    truth = affine((96, 96), shift=(1.5, -1.0))
    fixed, moved = (features(t, cells, 2).requires_grad_() for t in (IDENTITY, truth))
    seen, network = torch.ones(1, 1, *cells), stage(2)
    (network(fixed, seen, moved, seen, IDENTITY).affine - truth).square().sum().backward()
    for tensor in (fixed, moved, network.temperature):
        assert tensor.grad is not None
        assert float(tensor.grad.abs().sum()) > 0
        assert bool(torch.isfinite(tensor.grad).all())


@pytest.mark.parametrize("side", [64, 68, 72, 80, 100])
def test_small_images_have_windows_enough_for_an_affine(side: int) -> None:
    """The network takes images from 64 px on: a single window could tell a shift at best."""
    for cfg in default_stages():
        cells = (side // cfg.stride, side // cfg.stride)
        truth = affine(pixels(cells, cfg.stride), shift=(0.9 * cfg.stride, -0.6 * cfg.stride))
        found = estimate(truth, cfg.stride, cells=cells, network=Stage(cfg, temperature=6.0))
        assert found.points.shape[1] >= 4
        assert not bool(found.refused)
        assert off(found.affine, truth, pixels(cells, cfg.stride)) < 0.6 * off(
            IDENTITY, truth, pixels(cells, cfg.stride)
        )
