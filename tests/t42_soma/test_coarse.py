"""Coarse matching: codes are found where they are, attention tells what it did, robust fits refuse what they must."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from somareg.soma.glam.attention import AttentionBlock, positions
from somareg.soma.glam.coarse import CoarseCfg, CoarseMatcher, CoarseMatches, _read, cell_centres
from tests.t40_matching.textures import off, reference_view

CHANNELS = 96
IDENTITY = torch.eye(2, 3, dtype=torch.float64)[None]


def codes(height: int, width: int, seed: int = 0) -> Tensor:
    """(1, 96, h, w): every cell has a code of its own, nearly orthogonal to all others."""
    return torch.randn(1, CHANNELS, height, width, generator=torch.Generator().manual_seed(seed))


def bare(layers: int = 0) -> CoarseMatcher:
    """A matcher that compares the features themselves."""
    torch.manual_seed(0)
    matcher = CoarseMatcher(CHANNELS, CoarseCfg(channels=CHANNELS, layers=layers))
    with torch.no_grad():
        matcher.project.weight.copy_(torch.eye(CHANNELS)[:, :, None, None])
        matcher.project.bias.zero_()  # type: ignore[union-attr]
    return matcher.eval()


def match(
    reference: Tensor,
    moving: Tensor,
    *,
    mask: Tensor | None = None,
    moving_mask: Tensor | None = None,
    matcher: CoarseMatcher | None = None,
) -> CoarseMatches:
    seen = torch.ones_like(reference[:, :1]) if mask is None else mask
    moving_seen = torch.ones_like(moving[:, :1]) if moving_mask is None else moving_mask
    with torch.no_grad():
        found: CoarseMatches = (matcher or bare())(reference, seen, moving, moving_seen)
    return found


# --- where things are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_cell_centres_follow_the_half_pixel_rule(stride: int) -> None:
    centres = cell_centres(3, 5, stride).reshape(3, 5, 2)
    for j in range(3):
        for i in range(5):
            block = torch.arange(stride, dtype=torch.float32)
            expected = [float((block + stride * i).mean()), float((block + stride * j).mean())]
            assert centres[j, i].tolist() == expected


@pytest.mark.parametrize("layers", [0, 2], ids=["plain", "attention"])
def test_shifted_codes_are_matched_exactly(layers: int) -> None:
    """Reference cell (x, y) is moving cell (x + 2, y - 1): displacement (32, -16) px."""
    world = codes(20, 24)
    reference, moving = world[..., 4:14, 6:18], world[..., 5:17, 4:15]  # sizes differ
    found = match(reference, moving, matcher=bare(layers))
    assert found.points.shape == (120, 2)
    assert found.shape == (12, 11)
    target = found.points + torch.tensor([32.0, -16.0])
    there = (target >= 0).all(-1) & (target < torch.tensor([11.0, 12.0]) * 16).all(-1)
    assert 80 < int(there.sum()) < 120
    torch.testing.assert_close(
        found.displacement[0][there], torch.tensor([[32.0, -16.0]]).expand(int(there.sum()), 2), atol=0.3, rtol=0
    )
    assert float(found.confidence[0][there].min()) > 0.9
    assert float(found.confidence[0][~there].max()) < 0.2
    torch.testing.assert_close(
        found.fit.matrix[0, :, 2], torch.tensor([32.0, -16.0], dtype=torch.float64), atol=0.5, rtol=0
    )
    torch.testing.assert_close(found.fit.matrix[0, :, :2], IDENTITY[0, :, :2], atol=3e-3, rtol=0)
    assert not bool(found.fit.refused)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.3, 0.0), (-0.4, 0.25), (0.5, 0.5)])
def test_positions_are_read_between_the_cells(dx: float, dy: float) -> None:
    """Mass shared bilinearly among the cells around the truth: its mean is the truth, to rounding."""
    height, width = 7, 9
    x, y = 4 + dx, 3 + dy
    columns, rows = torch.arange(width), torch.arange(height)
    mass = (1 - (rows - y).abs()).clamp_min(0)[:, None] * (1 - (columns - x).abs()).clamp_min(0)
    place, confidence = _read((0.8 * mass + 1e-9).log().reshape(1, 1, -1), (height, width))
    torch.testing.assert_close(place[0, 0], torch.tensor([16 * x + 7.5, 16 * y + 7.5]), atol=1e-3, rtol=0)
    assert float(confidence) == pytest.approx(0.8, abs=1e-3)


def test_a_match_at_the_border_reads_only_what_exists() -> None:
    for cell in (0, 8, 54, 62):
        mass = torch.full((63,), 1e-9)
        mass[cell] = 0.7
        place, confidence = _read(mass.log().reshape(1, 1, -1), (7, 9))
        assert place[0, 0].tolist() == pytest.approx([cell % 9 * 16 + 7.5, cell // 9 * 16 + 7.5], abs=1e-3)
        assert float(confidence) == pytest.approx(0.7, abs=1e-3)


def test_a_shift_by_half_a_cell_is_read_as_half_a_cell() -> None:
    world = codes(12, 15)
    moving = (world[..., :-1] + world[..., 1:]) / 2  # moving cell x lies between world cells x and x + 1
    found = match(world[..., :-1], moving)
    inner = found.displacement[0].reshape(12, 14, 2)[1:-1, 2:-1]
    # Which of the two neighbours is a little liker is chance; none is preferred, and nothing else is looked at.
    assert bool(((inner[..., 0] > -16.0) & (inner[..., 0] < 0.0)).all())
    assert float(inner[..., 1].abs().max()) < 0.1
    torch.testing.assert_close(inner.mean((0, 1)), torch.tensor([-8.0, 0.0]), atol=0.4, rtol=0)


def test_identical_maps_stay_in_place() -> None:
    found = match(codes(10, 12), codes(10, 12), matcher=bare(2))
    assert float(found.displacement.abs().max()) < 0.1
    assert off(found.fit.matrix, IDENTITY, (160, 192)) < 0.02


def test_log_assignment_is_the_dual_softmax() -> None:
    reference, moving = codes(5, 6), codes(6, 7, 1) + 0.0
    moving[..., :5, :6] += reference
    matcher = bare(1)
    found = match(reference, moving, matcher=matcher)
    with torch.no_grad():
        ones = (torch.ones_like(reference[:, :1]), torch.ones_like(moving[:, :1]))
        a, b = matcher.tokens(reference, ones[0], moving, ones[1])
    cosine = torch.nn.functional.cosine_similarity(a[0][:, None], b[0][None], dim=-1)
    score = 10.0 * cosine
    expected = score.softmax(1) * score.softmax(0)
    torch.testing.assert_close(found.log_assignment[0].exp(), expected, atol=1e-5, rtol=1e-3)


# --- masks ------------------------------------------------------------------------------------------------------------


def test_masked_cells_are_not_matched_and_have_no_influence() -> None:
    world = codes(10, 12)
    mask, moving_mask = torch.ones(1, 1, 10, 12), torch.ones(1, 1, 10, 12)
    mask[..., :3, :], moving_mask[..., :, 9:] = 0, 0
    matcher = bare(2)
    found = match(world, world, mask=mask, moving_mask=moving_mask, matcher=matcher)
    assert bool((found.confidence[0].reshape(10, 12)[:3] == 0).all())
    assert float(found.confidence[0].reshape(10, 12)[4:, :8].min()) > 0.9
    assert float(found.log_assignment[0].reshape(10, 12, 10, 12)[..., 9:].max()) < -1000
    # The encoder centres features over the whole map, so only attention and the softmax are compared here.
    with torch.no_grad():
        tokens = matcher.tokens(world, mask, world, moving_mask)
        block = matcher.cross[0]
        seen = moving_mask.flatten(1) > 0
        dirty = torch.where(seen[..., None], tokens[1], 1e3 * torch.randn(tokens[1].shape))
        torch.testing.assert_close(block(tokens[0], tokens[1], seen), block(tokens[0], dirty, seen))


def test_nothing_valid_gives_finite_numbers_and_a_refusal() -> None:
    none = torch.zeros(1, 1, 6, 6)
    for masks in ({"mask": none}, {"moving_mask": none}, {"mask": none, "moving_mask": none}):
        found = match(codes(6, 6), codes(6, 6, 1), matcher=bare(2), **masks)  # type: ignore[arg-type]
        for tensor in (found.displacement, found.confidence, found.log_assignment, found.fit.matrix):
            assert bool(torch.isfinite(tensor).all())
        assert float(found.confidence.max()) == 0
        assert bool(found.fit.refused)
        assert torch.equal(found.fit.matrix, IDENTITY)


# --- attention --------------------------------------------------------------------------------------------------------


def test_reported_weights_are_the_ones_that_were_used() -> None:
    """The output, recomputed from them, is the output."""
    torch.manual_seed(0)
    block = AttentionBlock(24, 3)
    torch.nn.init.normal_(block.out.weight)
    tokens, context = torch.randn(2, 10, 24), torch.randn(2, 13, 24)
    seen = torch.rand(2, 13) > 0.3
    with torch.no_grad():
        weights = block.weights(tokens, context, seen)
        value = block.value(block.norm_context(context)).reshape(2, 13, 3, 8)
        read = torch.einsum("bhnm,bmhc->bnhc", weights, value).flatten(2)
        middle = tokens + block.out(read)
        expected = middle + block.perceptron(block.norm_out(middle))
        torch.testing.assert_close(block(tokens, context, seen), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 10))
    assert bool((weights[~seen[:, None, None].expand_as(weights)] == 0).all())
    assert float(weights.std()) > 0.01


def test_an_untrained_block_hardly_changes_its_tokens() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(1, 30, 96)
    with torch.no_grad():
        changed = AttentionBlock(96, 4)(tokens, torch.randn(1, 20, 96), torch.ones(1, 20, dtype=torch.bool))
    assert 0 < float((changed - tokens).abs().mean()) < 0.15


@pytest.mark.parametrize("channels", [16, 96, 98])
def test_every_cell_has_its_own_position_code(channels: int) -> None:
    code = positions(12, 17, channels, torch.device("cpu"))
    assert code.shape == (12 * 17, channels)
    assert float(code.abs().max()) <= 1.0
    apart = torch.cdist(code, code) + 10 * torch.eye(len(code))
    assert float(apart.min()) > 0.05
    grid = code.reshape(12, 17, channels)
    # Shifting both cells leaves their likeness: the code speaks of relative position.
    likeness = (grid[:-2, :-3] * grid[2:, 3:]).sum(-1)
    torch.testing.assert_close(likeness, likeness[0, 0].expand_as(likeness), atol=1e-3, rtol=1e-4)
    larger = positions(20, 30, channels, torch.device("cpu")).reshape(20, 30, channels)
    torch.testing.assert_close(larger[:12, :17], grid)  # and does not depend on the map's size


# --- with image features ----------------------------------------------------------------------------------------------


def test_the_fit_is_differentiable() -> None:
    matcher = bare(1).train()
    reference = torch.nn.functional.avg_pool2d(reference_view((160, 160)), 16).expand(-1, CHANNELS, -1, -1)
    reference = (reference + 0.3 * codes(10, 10)).requires_grad_()
    ones = torch.ones(1, 1, 10, 10)
    found = matcher(reference, ones, (reference.detach() + 0.3 * codes(10, 10, 4)).roll(1, -1), ones)
    found.fit.matrix.square().sum().backward()
    assert reference.grad is not None
    assert bool(torch.isfinite(reference.grad).all())
    assert float(reference.grad.abs().sum()) > 0
    assert matcher.log_temperature.grad is not None
    assert math.isfinite(float(matcher.log_temperature.grad))
