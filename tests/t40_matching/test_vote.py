"""The vote: windows that are mostly wrong elect the right similarity, by counting what each holds for possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching import vote as module
from somareg.matching.describe import OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.vote import Guess, VoteCfg, _block, _count, _linear, ballots, elect, vote
from somareg.matching.windows import WindowCfg, WindowCorrelation
from tests.t40_matching.textures import affine, reference_view, view

CELL = 2.0
SHAPE = (64, 80)  # cells
CENTRE = (79.5, 63.5)  # of the reference, pixels
STEP = 3.0
CFG = VoteCfg(rotation_deg=5.0, scale=0.05, step_px=STEP)
MARGIN, RADIUS = 12, 7


STILL = AffineTransform.identity()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def similarity(degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> AffineTransform:
    return AffineTransform.from_parameters(rotation_deg=degrees, scale=scale, shift=shift, centre=CENTRE)


def background(count: int, margin: int, seed: int = 0) -> Tensor:
    """Smooth noise (count, n, n) of deviation 0.1, as correlation with other ground has."""
    side = 2 * margin + 1
    noise = torch.randn(count, 1, side + 4, side + 4, generator=generator(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, stride=1)[:, 0]
    return 0.1 * smooth / smooth.std()


def bumps(displacement: Tensor, margin: int, height: float = 0.5) -> Tensor:
    """(N, n, n) with a bump at each displacement (N, 2), cells."""
    axis = torch.arange(-margin, margin + 1).double()
    away = (axis - displacement[:, :1]).square()[:, None, :] + (axis - displacement[:, 1:]).square()[:, :, None]
    return height * torch.exp(-away / 2).float()


def places() -> Tensor:
    """(N, 2) window centres, cells."""
    y, x = torch.meshgrid(torch.arange(8.0, 57.0, 8), torch.arange(8.0, 73.0, 8), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def true_displacement(truth: AffineTransform) -> Tensor:
    """(N, 2) of the windows' centres, cells."""
    points = places().double() * CELL + (CELL - 1) / 2
    return (torch.from_numpy(truth(points.numpy())) - points) / CELL


def windows(truth: AffineTransform, wrong: float = 0.0, margin: int = MARGIN, noise: float = 1.0) -> WindowCorrelation:
    """Windows of which all but a share of `wrong` show the truth; wrong ones show a bump elsewhere, as high."""
    centres = places()
    seen = true_displacement(truth)
    away = margin - 1 - (2 * margin - 2) * torch.rand(len(seen), 2, generator=generator(3))
    lost = torch.randperm(len(seen), generator=generator(4)) < round(wrong * len(seen))
    seen = torch.where(lost[:, None], away.double(), seen)
    surfaces = bumps(seen, margin) + noise * background(len(seen), margin)
    return WindowCorrelation(surfaces, centres, torch.ones(len(centres)))


def run(found: WindowCorrelation, radius: int = RADIUS) -> tuple[AffineTransform, float]:
    return elect(found, CELL, SHAPE, radius * CELL, CFG)


def apart(found: AffineTransform, truth: AffineTransform, size: tuple[int, int] = (128, 160)) -> float:
    """Largest distance at the corners of (H, W), pixels."""
    bottom, right = size[0] - 1.0, size[1] - 1.0
    corners = np.array([[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom]])
    return float(np.linalg.norm(found(corners) - truth(corners), axis=1).max())


TRUTHS = [
    similarity(),
    similarity(3.1, 1.03, (6.0, -9.0)),
    similarity(-4.8, 0.96, (-11.0, 4.0)),
    similarity(2.0, 0.97, (0.0, 13.0)),
]


# --- who is elected ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", TRUTHS, ids=range(len(TRUTHS)))
@pytest.mark.parametrize("wrong", [0.0, 0.6])
def test_the_true_similarity_is_elected_though_most_windows_are_wrong(truth: AffineTransform, wrong: float) -> None:
    found, score = run(windows(truth, wrong))
    assert apart(found, truth) < STEP
    assert score > 1.0


def test_the_majority_of_wrong_windows_would_mislead_a_mean() -> None:
    """What the test above means: the average of the windows' own peaks is far off."""
    truth = TRUTHS[1]
    found = windows(truth, 0.6)
    top = found.surfaces.flatten(1).argmax(1)
    peaks = torch.stack([top % 25 - MARGIN, top // 25 - MARGIN], dim=1).double()
    off = (peaks - true_displacement(truth)).norm(dim=1)
    assert (off > 2.5).double().mean() > 0.5
    assert CELL * (peaks - true_displacement(truth)).mean(0).norm() > STEP


def test_noise_has_less_support_than_structure() -> None:
    noise = [run(replace(windows(TRUTHS[0]), surfaces=background(63, MARGIN, seed)))[1] for seed in range(5)]
    structure = [run(windows(truth, 0.6))[1] for truth in TRUTHS]
    clear = [run(windows(truth))[1] for truth in TRUTHS]
    assert 2 * max(noise) < min(structure)
    assert max(structure) < min(clear)


def test_windows_with_several_equal_peaks_agree_on_the_one_in_common() -> None:
    """No window alone knows which of its three peaks is right."""
    truth, own = TRUTHS[1], true_displacement(TRUTHS[1])
    others = [(MARGIN - 1) * (2 * torch.rand(len(own), 2, generator=generator(s)) - 1) for s in (5, 6)]
    surfaces = torch.stack([bumps(d.double(), MARGIN) for d in (own, *others)]).amax(0)
    found, score = run(WindowCorrelation(surfaces, places(), torch.ones(len(own))))
    assert apart(found, truth) < STEP
    assert score > 2.0


def test_a_window_that_is_sure_of_something_else_vetoes_nothing() -> None:
    """It adds no vote where it sees nothing, and takes none away."""
    sure = ballots(WindowCorrelation(bumps(torch.tensor([[5.0, 5.0]]), MARGIN, 0.9), places()[:1], torch.ones(1)), 0.4)
    assert bool((sure >= 0).all())
    assert float(sure[0, :12, :12].max()) < 1e-2 * float(sure.max())


# --- what it does not depend on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("across", "down"), [(3, 0), (0, -4), (-2, 5)])
def test_surfaces_that_move_by_cells_move_the_result_by_cells(across: int, down: int) -> None:
    """Rolled around, so that the noise comes along."""
    before = windows(similarity(2.0, 1.02, (1.0, -2.0)), 0.3, margin=24)
    after = replace(before, surfaces=torch.roll(before.surfaces, (down, across), (1, 2)))
    (first, score), (second, other) = (run(w, 10) for w in (before, after))
    moved = AffineTransform.from_parameters(shift=(CELL * across, CELL * down)).after(first)
    np.testing.assert_allclose(second.matrix, moved.matrix, atol=1e-9)
    assert other == pytest.approx(score, abs=1e-4)


def test_where_the_windows_lie_turns_with_them() -> None:
    """A picture turned by 90 degrees elects the turned similarity: x and y are not mixed up."""
    square, centres = (64, 64), places()[places()[:, 0] < 60]
    truth = AffineTransform.from_parameters(rotation_deg=3, scale=1.03, shift=(6.0, -10.0), centre=(63.5, 63.5))
    points = centres.double() * CELL + 0.5
    seen = (torch.from_numpy(truth(points.numpy())) - points) / CELL
    plain = WindowCorrelation(bumps(seen, MARGIN), centres, torch.ones(len(centres)))
    turn = AffineTransform.from_parameters(rotation_deg=90, centre=(31.5, 31.5))
    turned = replace(
        plain,
        surfaces=plain.surfaces.rot90(-1, (1, 2)),
        centres=torch.from_numpy(turn(centres.double().numpy())).float(),
    )
    first, second = (elect(w, CELL, square, RADIUS * CELL, CFG)[0] for w in (plain, turned))
    whole = AffineTransform.from_parameters(rotation_deg=90, centre=(63.5, 63.5))
    np.testing.assert_allclose(second.matrix, whole.after(first).after(whole.inverse).matrix, atol=1e-9)
    assert abs(second.parameters()["rotation_deg"]) > 2


@pytest.mark.parametrize("chunk", [1, 30_000])
def test_counting_in_pieces_elects_the_same(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = windows(TRUTHS[2], 0.6)
    at_once = run(found)
    monkeypatch.setattr(module, "CHUNK", chunk)
    in_pieces = run(found)
    np.testing.assert_array_equal(in_pieces[0].matrix, at_once[0].matrix)
    assert in_pieces[1] == pytest.approx(at_once[1], abs=1e-5)


@pytest.mark.parametrize("truth", TRUTHS, ids=range(len(TRUTHS)))
@pytest.mark.parametrize("work", [30_000, 1_000_000])
def test_counting_in_blocks_first_elects_the_same(
    truth: AffineTransform, work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = windows(truth, 0.5, margin=20)
    one_by_one = run(found, 12)
    monkeypatch.setattr(module, "WORK", work)
    blocks: list[int] = []
    monkeypatch.setattr(module, "_block", lambda *parts: blocks.append(_block(*parts)) or blocks[-1])
    in_blocks = run(found, 12)
    assert blocks == [{30_000: 5, 1_000_000: 3}[work]]
    # Steps between neighbours differ a little from round to round.
    assert apart(in_blocks[0], truth) < STEP
    assert in_blocks[1] > 0.97 * one_by_one[1]


def test_a_long_strip_is_counted_in_blocks_and_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one there were a thousand million votes for each guess."""
    truth = AffineTransform.from_parameters(rotation_deg=2, scale=1.01, shift=(60.0, -9.0), centre=(399.5, 19.5))
    x = torch.linspace(8, 391, 60)
    centres = torch.stack([x, 10.0 + 0 * x], dim=1)
    points = centres.double() * CELL + 0.5
    seen = (torch.from_numpy(truth(points.numpy())) - points) / CELL
    counted: list[int] = []
    count = module._count
    monkeypatch.setattr(
        module, "_count", lambda *parts: (found := count(*parts), counted.append(60 * found.numel()))[0]
    )
    found, score = elect(WindowCorrelation(bumps(seen, 75), centres, torch.ones(60)), CELL, (20, 400), 112.0, CFG)
    assert score > 2
    assert sum(counted) < 1.5 * module.WORK
    assert apart(found, truth, (40, 800)) < 2 * STEP


def test_a_longer_radius_finds_what_a_short_one_cannot() -> None:
    truth = similarity(1.0, 1.01, (2 * 9.0, 0.0))
    found = windows(truth, 0.2, margin=18)
    (short, little), (long, much) = run(found, 6), run(found, 10)
    assert apart(short, truth) > STEP
    assert apart(long, truth) < STEP
    assert much > 2 * little
    middle = np.array([CENTRE])
    assert np.abs(short(middle) - middle).max() <= 6 * CELL + 1e-9


# --- aspect and shear -------------------------------------------------------------------------------------------------

BENT = replace(CFG, aspect=0.3, shear=0.1)


def bent(
    aspect: float, shear: float = 0.0, degrees: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)
) -> AffineTransform:
    """x stretched against y by `aspect`, both axes leaning by half of `shear`, then turned, about the centre."""
    root = math.sqrt(aspect)
    linear = similarity(degrees).matrix[:, :2] @ np.array([[root, shear / 2], [shear / 2, 1 / root]])
    return AffineTransform(np.column_stack([linear, np.array(CENTRE) + shift - linear @ CENTRE]))


BENT_TRUTHS = [bent(1.3), bent(0.78, 0.0, 3.0, (6.0, -4.0)), bent(0.88, 0.1, -4.0), bent(1.18, -0.08, 2.0, (-9.0, 5.0))]


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.floats(-0.5, 0.5), st.floats(-0.4, 0.4), st.floats(-0.3, 0.3))
def test_a_hypothesis_is_a_rotation_after_a_symmetric_map_of_area_one_and_a_scale(
    turn: float, growth: float, aspect: float, shear: float
) -> None:
    linear = _linear(torch.tensor([[turn, growth, aspect, shear]], dtype=torch.float64))[0]
    assert float(torch.linalg.det(linear)) == pytest.approx(math.exp(2 * growth))
    symmetric = torch.linalg.matrix_exp(torch.tensor([[aspect, shear], [shear, -aspect]], dtype=torch.float64))
    rotation = torch.from_numpy(AffineTransform.from_parameters(rotation_deg=math.degrees(turn)).matrix[:, :2].copy())
    torch.testing.assert_close(linear, math.exp(growth) * rotation @ symmetric, atol=1e-9, rtol=0)


def test_a_hypothesis_says_half_of_aspect_and_shear() -> None:
    assert BENT.reaches == pytest.approx((math.radians(5), 0.05, 0.15, 0.05))
    assert CFG.reaches[2:] == (0.0, 0.0)
    assert [replace(CFG, **more).is_bent for more in ({}, {"aspect": 0.1}, {"shear": 0.1})] == [False, True, True]
    wide, leaning = _linear(torch.tensor([[0.0, 0.0, 0.15, 0.0], [0.0, 0.0, 0.0, 0.05]]).double())
    assert float(wide[0, 0] / wide[1, 1]) == pytest.approx(math.exp(0.3))
    assert float(leaning[0, 1] + leaning[1, 0]) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("truth", BENT_TRUTHS, ids=range(len(BENT_TRUTHS)))
@pytest.mark.parametrize("wrong", [0.0, 0.6])
def test_stretched_and_sheared_maps_are_elected_where_they_are_asked_for(truth: AffineTransform, wrong: float) -> None:
    found = windows(truth, wrong, margin=20)
    (elected, score), (similar, less) = (elect(found, CELL, SHAPE, RADIUS * CELL, cfg) for cfg in (BENT, CFG))
    assert apart(elected, truth) < 1.5 * STEP
    assert apart(similar, truth) > 2 * STEP
    assert score > 1.2 * less


def test_a_similarity_is_elected_among_bent_maps_too() -> None:
    found, _ = elect(windows(TRUTHS[1], 0.5, margin=20), CELL, SHAPE, RADIUS * CELL, BENT)
    assert apart(found, TRUTHS[1]) < 1.5 * STEP


@pytest.mark.parametrize("truth", BENT_TRUTHS[1:], ids=range(1, len(BENT_TRUTHS)))
def test_counting_bent_maps_in_blocks_first_elects_the_same_with_less_work(
    truth: AffineTransform, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = windows(truth, 0.4, margin=16)
    counted: list[int] = []
    blocks: list[int] = []
    monkeypatch.setattr(module, "_count", lambda *parts: (votes := _count(*parts), counted.append(votes.numel()))[0])
    monkeypatch.setattr(module, "_block", lambda *parts: blocks.append(_block(*parts)) or blocks[-1])
    results, work = [], []
    for limit in (1e12, module.BENT_WORK, 60_000):
        monkeypatch.setattr(module, "BENT_WORK", limit)
        results.append(elect(found, CELL, SHAPE, 4 * CELL, BENT))
        work.append(sum(counted))
        counted.clear()
    assert blocks == [1, 3, 5]
    assert work[0] > 3 * work[1]
    for elected, score in results[1:]:
        assert apart(elected, truth) < 1.5 * STEP
        assert score > 0.95 * results[0][1]


# --- on pictures ------------------------------------------------------------------------------------------------------

SIZE = (140, 128)


def pair(truth: AffineTransform, size: tuple[int, int] = SIZE, seed: int = 0) -> Pair:
    reference, moving = reference_view(size), view(torch.tensor(truth.matrix)[None], size, seed)
    return Pair(reference, torch.ones_like(reference), moving, torch.ones_like(moving))


def matcher(truth: AffineTransform, seed: int = 0) -> Matcher:
    return Matcher(pair(truth, seed=seed), OrientationFeatures(OrientationCfg()))


def made(degrees: float, scale: float, shift: tuple[float, float]) -> AffineTransform:
    return AffineTransform(affine(SIZE, degrees=degrees, scale=scale, shift=shift)[0].numpy())


@pytest.mark.parametrize("turn", [0.0, 90.0, -37.0])
def test_the_residual_comes_before_the_guess(turn: float) -> None:
    """The guess knows the turn, the vote the rest: in another frame its shift would point elsewhere."""
    truth, guess = made(turn + 3.0, 1.03, (9.0, -5.0)), made(turn, 1.0, (0.0, 0.0))
    (found,) = vote(matcher(truth), [Guess(guess)], 14.0, VoteCfg())
    assert apart(found.transform, truth, SIZE) < STEP
    assert found.score > 1.5


def test_guesses_are_judged_each_by_itself_and_the_blind_ones_left_out() -> None:
    truth = made(3.0, 0.98, (4.0, 6.0))
    maps = [made(0, 1, (0, 0)), made(0, 1, (1e4, 0)), made(30, 1, (0, 0)), made(5, 1, (3, 3)), made(-8, 1, (0, 0))]
    maps += [made(60, 1, (0, 0)), made(2, 1, (0, 8))]  # more than are computed together
    guesses = [Guess(one, (0.01 * i, 0.0)) for i, one in enumerate(maps)]
    seeing = matcher(truth)
    together = vote(seeing, guesses, 10.0, VoteCfg())
    seen = [one for i, one in enumerate(guesses) if i != 1]
    # What is expected of the shape turns with the map.
    assert [math.hypot(*one.shape) for one in together] == pytest.approx([math.hypot(*one.shape) for one in seen])
    alone = [one for guess in guesses for one in vote(seeing, [guess], 10.0, VoteCfg())]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.transform.matrix, other.transform.matrix, atol=1e-9)
        assert one.score == pytest.approx(other.score, abs=1e-3)
    near = [together[i] for i in (0, 2, 5)]
    assert all(apart(one.transform, truth, SIZE) < STEP for one in near)
    assert min(one.score for one in near) > 1.3 * max(together[i].score for i in (1, 4))


def test_a_stretched_picture_is_elected_by_a_vote_on_aspect() -> None:
    linear = np.array([[1.12, 0.03], [0.03, 0.89]])
    centre, shift = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2]), np.array([5.0, -4.0])
    truth = AffineTransform(np.column_stack([linear, centre + shift - linear @ centre]))
    seeing = matcher(truth)
    asked = VoteCfg(aspect=0.3, shear=0.1)
    (stretched,), (similar,) = (vote(seeing, [Guess(STILL)], 14.0, cfg) for cfg in (asked, VoteCfg()))
    assert apart(stretched.transform, truth, SIZE) < 1.5 * STEP
    assert apart(similar.transform, truth, SIZE) > 2 * STEP
    assert stretched.score > 1.2 * similar.score
    assert stretched.shape == (0.0, 0.0)  # what was expected stays what was expected


def test_unrelated_ground_has_less_support() -> None:
    truth = made(2.0, 1.0, (3.0, 0.0))
    own, other = (vote(matcher(truth, seed), [Guess(made(0, 1, (0, 0)))], 14.0, VoteCfg())[0].score for seed in (0, 9))
    assert other < 0.7 * own


@pytest.mark.parametrize("size", [(140, 128), (64, 200), (90, 90)])
@pytest.mark.parametrize("radius_px", [2.0, 15.0])
def test_the_margin_holds_every_hypothesis_of_every_window(
    size: tuple[int, int], radius_px: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[WindowCfg] = []

    def record(self: Matcher, transforms: Sequence[AffineTransform], window: WindowCfg) -> list[WindowCorrelation]:
        asked.append(window)
        return [self.correlate(one, window) for one in transforms]

    monkeypatch.setattr(Matcher, "correlate_all", record)
    cfg = VoteCfg(rotation_deg=6.0, scale=0.06)
    seeing = Matcher(pair(STILL, size), OrientationFeatures(OrientationCfg()))
    vote(seeing, [Guess(STILL)], radius_px, cfg)
    centres = seeing.correlate(STILL, asked[0]).centres.numpy() * 2 + 0.5
    middle = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    for degrees, scale in ((6.0, 0.06), (-6.0, 0.06), (6.0, -0.06), (-6.0, -0.06)):
        extreme = AffineTransform.from_parameters(rotation_deg=degrees, scale=math.exp(scale), centre=middle)
        assert np.abs(extreme(centres) - centres).max() + radius_px <= 2 * asked[0].margin + 0.5
