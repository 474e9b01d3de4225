"""The whole network, untrained: one random encoder on both sides must do what the mathematics says, trained or not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.geometry import AffineTransform
from somareg.matching.affine import compose_batch, invert_batch
from somareg.matching.engine import EngineCfg
from somareg.soma.align import align
from tests.t40_matching.textures import Size, affine, off, reference_view, view
from tests.t42_soma.mirrored import mirror
from tests.t42_soma.untrained import IDENTITY, SIZE, match, pair, untrained

# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", [0, 1])
def test_the_same_image_twice_stays_in_place_at_every_stage(ground: int) -> None:
    image = reference_view((192, 192), ground)
    found = match(untrained(), image, image)
    # Windows end somewhere, so that a surface is not quite even around 0 even for the same image.
    for estimate, bound in zip(found.stages, (0.05, 0.05, 0.05), strict=True):
        assert not bool(estimate.refused)
        assert off(estimate.affine, IDENTITY, (192, 192)) < bound
        assert float(estimate.displacement.abs().median()) < bound
    assert found.flow is not None
    assert float(found.flow.abs().max()) < 0.05


@pytest.mark.parametrize(("size", "seed"), [((96, 96), 0), ((131, 97), 1), ((160, 192), 2)])
def test_the_same_image_twice_from_the_coarse_matches_on(size: Size, seed: int) -> None:
    image = reference_view(size)
    found = match(untrained(seed=seed), image, image, None)
    assert found.coarse is not None
    assert float(found.coarse.displacement.abs().median()) < 0.05
    # Cells at the border read the mass of inner neighbours only, which contracts a little.
    assert off(found.coarse.fit.matrix, IDENTITY, size) < 0.1
    for estimate in found.stages:
        assert off(estimate.affine, IDENTITY, size) < 0.2
    assert off(found.affine, IDENTITY, size) < 0.1
    assert found.flow is not None
    assert float(found.flow.abs().max()) < 0.05


# --- a known warp -----------------------------------------------------------------------------------------------------

WARPS = {
    "shift": {"shift": (5.3, -3.7)},
    "half a pixel": {"shift": (0.5, 0.5)},
    "turn": {"degrees": 4.0},
    "scale": {"scale": 1.04},
    "all": {"degrees": 3.0, "scale": 1.03, "shift": (4.2, 2.6)},
    "all, other way": {"degrees": -4.0, "scale": 0.99, "shift": (-6.0, 5.0)},
}
each_warp = pytest.mark.parametrize("warp", WARPS.values(), ids=WARPS.keys())


@each_warp
@pytest.mark.parametrize(
    ("start", "rewarp"), [(IDENTITY, False), (None, True)], ids=["identity", "coarse, encoded again"]
)
def test_a_known_warp_is_recovered(warp: dict[str, float], rewarp: bool, start: Tensor | None) -> None:
    truth = affine(SIZE, **warp)  # type: ignore[arg-type]
    found = match(untrained(12.0), reference_view(SIZE), view(truth, SIZE), start, rewarp=rewarp)
    assert off(found.affine, truth, SIZE) < 0.5
    assert off(found.affine, truth, SIZE) < 0.6 * off(found.stages[0].start, truth, SIZE)


@each_warp
def test_with_the_default_temperature_every_warp_larger_than_a_cell_is_recovered(warp: dict[str, float]) -> None:
    truth = affine(SIZE, **warp)  # type: ignore[arg-type]
    found = match(untrained(), reference_view(SIZE), view(truth, SIZE))
    assert off(found.affine, truth, SIZE) < 0.7


@each_warp
def test_the_engine_recovers_it_with_the_network(warp: dict[str, float]) -> None:
    truth = affine(SIZE, **warp)  # type: ignore[arg-type]
    cfg = replace(EngineCfg(), flow=None)
    found = align(pair(truth), (AffineTransform.identity(),), cfg, network=untrained())
    assert found.failure == ""
    assert off(torch.tensor(found.affine.matrix)[None], truth, SIZE) < 0.4
    assert found.forward_backward_px < 0.5


def test_the_engine_may_be_given_any_kind_of_start() -> None:
    truth = affine(SIZE, degrees=12.0, shift=(20.0, -14.0))
    start = AffineTransform(compose_batch(truth, affine(SIZE, shift=(3.0, 2.0)))[0].numpy())
    found = align(pair(truth), (start,), replace(EngineCfg(), flow=None), network=untrained())
    assert off(torch.tensor(found.affine.matrix)[None], truth, SIZE) < 0.3


def test_the_residual_is_applied_before_the_start() -> None:
    """moving <- A @ D. Were it D @ A, a turn by 30 degrees would send a residual of 5 px 2.6 px astray."""
    start = affine(SIZE, degrees=30.0, shift=(2.0, 1.0))
    truth = compose_batch(start, affine(SIZE, shift=(4.0, -3.0)))
    found = match(untrained(12.0), reference_view(SIZE), view(truth, SIZE), start, rewarp=True)
    assert off(found.affine, truth, SIZE) < 0.5
    residual = compose_batch(invert_batch(start), found.affine)
    assert off(compose_batch(residual, start), truth, SIZE) > 2.0


# --- equivariance -----------------------------------------------------------------------------------------------------

TRUTH = affine(SIZE, degrees=2.0, scale=1.02, shift=(3.0, -2.0))


def test_swapping_the_roles_gives_the_inverse() -> None:
    reference, moving, network = reference_view(SIZE), view(TRUTH, SIZE), untrained(12.0)
    there, back = match(network, reference, moving), match(network, moving, reference)
    assert off(compose_batch(back.affine, there.affine), IDENTITY, SIZE) < 0.6
    assert off(back.affine, invert_batch(TRUTH), SIZE) < 0.5
    cfg = replace(EngineCfg(), flow=None)
    both = pair(TRUTH)
    first, second = (
        torch.tensor(align(p, (AffineTransform.identity(),), cfg, network=network).affine.matrix)[None]
        for p in (both, both.swapped())
    )
    assert off(compose_batch(second, first), IDENTITY, SIZE) < 0.3


def flip(axis: int, size: Size) -> Tensor:
    """(1, 2, 3) what flipping an image does to its pixels."""
    result, row = IDENTITY.clone(), {-1: 0, -2: 1}[axis]
    result[0, row, row], result[0, row, 2] = -1, size[1 - row] - 1
    return result


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize(("is_symmetric", "size", "tolerance"), [(True, (96, 128), 2e-3), (False, SIZE, 0.5)])
def test_flipping_both_images_conjugates_the_affine(
    axis: int, is_symmetric: bool, size: Size, tolerance: float
) -> None:
    """Exactly for an encoder whose filters are symmetric: only wrong cell centres or grids could tell the sides."""
    truth = affine(size, degrees=2.0, scale=1.02, shift=(3.0, -2.0))
    reference, moving, network = reference_view(size), view(truth, size), untrained(12.0)
    if is_symmetric:
        mirror(network)
    plain, turned = match(network, reference, moving), match(network, reference.flip(axis), moving.flip(axis))
    turn = flip(axis, size)
    expected = compose_batch(turn, compose_batch(plain.affine, turn))
    assert off(turned.affine, expected, size) < tolerance
    assert off(turned.affine, plain.affine, size) > 3  # and that is no small thing


def test_quarter_turns_of_both_images_conjugate_the_affine() -> None:
    reference, moving, network = reference_view(SIZE), view(TRUTH, SIZE), untrained(12.0)
    plain = match(network, reference, moving)
    # rot90 takes the pixel (x, y) to (y, W - 1 - x).
    turn = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, SIZE[1] - 1.0]]], dtype=torch.float64)
    for times in (1, 2, 3):
        turned = match(network, reference.rot90(times, (-2, -1)), moving.rot90(times, (-2, -1)))
        all_of_it = IDENTITY
        for _ in range(times):
            all_of_it = compose_batch(turn, all_of_it)
        expected = compose_batch(all_of_it, compose_batch(plain.affine, invert_batch(all_of_it)))
        assert off(turned.affine, expected, SIZE) < 0.5
        assert off(turned.affine, plain.affine, SIZE) > 2


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "moving_size"),
    [((64, 64), (64, 64)), ((65, 111), (65, 111)), ((90, 71), (101, 67)), ((127, 161), (150, 143))],
)
def test_any_size_from_64_px_on(size: Size, moving_size: Size) -> None:
    truth = affine(size, degrees=1.0, shift=(2.4, -1.7))
    network = untrained(12.0)
    for start in (IDENTITY, None):
        found = match(network, reference_view(size), view(truth, moving_size), start)
        assert not bool(found.stages[-1].refused)
        assert found.flow is not None
        assert found.flow.shape[-2:] == (size[0] // 16, size[1] // 16)
    found = match(network, reference_view(size), view(truth, moving_size), IDENTITY)
    assert off(found.affine, truth, size) < 0.9  # one pass of a few windows, of 3 px
    found = match(network, reference_view(size), view(truth, moving_size), found.affine)
    assert off(found.affine, truth, size) < 0.6


@pytest.mark.parametrize("sizes", [((63, 80), (80, 80)), ((80, 80), (80, 63))])
def test_smaller_images_are_refused(sizes: tuple[Size, Size]) -> None:
    with pytest.raises(ConfigError, match="at least 64 px"):
        match(untrained(), reference_view(sizes[0]), reference_view(sizes[1]))


def test_pairs_of_a_batch_do_not_see_each_other() -> None:
    truths = [affine((96, 96), shift=(2.0, 1.0)), affine((96, 96), degrees=2.0)]
    references = [reference_view((96, 96), seed) for seed in (0, 1)]
    movings = [view(truth, (96, 96), seed) for seed, truth in enumerate(truths)]
    network = untrained()
    together = match(network, torch.cat(references), torch.cat(movings), None)
    for i in range(2):
        alone = match(network, references[i], movings[i], None)
        torch.testing.assert_close(together.affine[i : i + 1], alone.affine, atol=1e-3, rtol=0)


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewarp", [False, True])
def test_invalid_pixels_have_no_influence_whatever_they_hold(rewarp: bool) -> None:
    reference, moving = reference_view(SIZE), view(TRUTH, SIZE)
    mask, moving_mask = torch.ones(1, 1, *SIZE), torch.ones(1, 1, *SIZE)
    mask[..., :30, :45], moving_mask[..., 100:, 120:], moving_mask[..., 60:75, :1] = 0, 0, 0
    network = untrained(12.0)
    clean = match(network, reference * mask, moving * moving_mask, None, rewarp=rewarp, masks=(mask, moving_mask))
    noise = 1e4 * torch.randn(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    dirty = match(
        network,
        torch.where(mask > 0, reference, noise[:1]),
        torch.where(moving_mask > 0, moving, noise[1:]),
        None,
        rewarp=rewarp,
        masks=(mask, moving_mask),
    )
    assert torch.equal(clean.affine, dirty.affine)
    assert clean.flow is not None
    assert dirty.flow is not None
    assert torch.equal(clean.flow, dirty.flow)
    assert off(clean.affine, TRUTH, SIZE) < 1.0


@pytest.mark.parametrize("hidden", ["reference", "moving", "both"])
def test_without_imagery_every_stage_refuses_and_returns_the_start(hidden: str) -> None:
    image = reference_view((96, 96))
    none, seen = torch.zeros_like(image), torch.ones_like(image)
    masks = (seen if hidden == "moving" else none, seen if hidden == "reference" else none)
    start = affine((96, 96), degrees=5.0, shift=(3.0, 0.0))
    for given, expected in ((start, start), (None, IDENTITY)):
        found = match(untrained(), image, image, given, masks=masks)
        assert all(bool(estimate.refused) for estimate in found.stages)
        torch.testing.assert_close(found.affine, expected)
        assert found.flow is not None
        assert bool(torch.isfinite(found.flow).all())
        assert float(found.flow.abs().max()) < 1e-3
