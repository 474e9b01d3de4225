"""The matcher looks where the transform says, at every stride, and computes features no more often than it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.matching import matcher as module
from somareg.matching.describe import Describe, Levels, OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.posterior import read_windows
from somareg.matching.refine import refine_affine
from somareg.matching.steps import NEAR
from somareg.matching.windows import WindowCfg, WindowCorrelation, correlate_all
from somareg.types import Modality, Transform
from tests.synthetic import make_pair
from tests.t40_matching.conftest import as_pair

STILL = AffineTransform.identity()
STRIDES = (2, 4, 8)


class Means:
    """A stand-in for features that keeps its input: the mean of every cell, at several strides."""

    strides = STRIDES

    def __init__(self) -> None:
        self.asked: list[tuple[Modality, tuple[int, ...]]] = []

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        self.asked.append((modality, tuple(image.shape[-2:])))
        return {s: (F.avg_pool2d(image * mask, s), (F.avg_pool2d(mask, s) > 0.999).float()) for s in self.strides}

    def temperature(self, stride: int) -> float | None:
        return 10.0 * stride


@dataclass(frozen=True)
class Seen:
    """What the windows were given."""

    reference: Tensor
    reference_valid: Tensor
    moving: Tensor
    moving_valid: Tensor


Look = Callable[[Matcher, Transform, int, int], Seen]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Features that a matcher compares under a transform, at a margin and a stride."""
    parts: list[Seen] = []

    def record(a: Tensor, b: Tensor, c: Tensor, d: Tensor, cfg: WindowCfg) -> list[WindowCorrelation]:
        parts.append(Seen(a, b, c, d))
        return correlate_all(a, b, c, d, cfg)

    monkeypatch.setattr(module, "correlate_all", record)

    def run(matcher: Matcher, transform: Transform, margin: int, stride: int) -> Seen:
        matcher.correlate(transform, WindowCfg(size=6, margin=margin, stride=100), stride)
        return parts[-1]

    return run


def coordinates(height: int, width: int) -> Tensor:
    """(1, 2, height, width) image whose bands are x and y of each pixel's centre."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y])[None]


def places(shape: tuple[int, int] = (97, 130), wide: int = 400) -> Pair:
    """A reference of odd size somewhere inside a large moving image; both hold their coordinates."""
    reference, moving = coordinates(*shape), coordinates(wide, wide)
    return Pair(
        reference, torch.ones_like(reference[:, :1]), moving, torch.ones_like(moving[:, :1]), ("optical", "sar")
    )


def centres(shape: tuple[int, int], margin: int, stride: int) -> np.ndarray:
    """(h, w, 2) pixel centres of a reference's cells and of `margin` more around them."""
    y, x = np.mgrid[-margin : shape[0] // stride + margin, -margin : shape[1] // stride + margin]
    return np.stack([x, y], axis=-1) * stride + (stride - 1) / 2


BASE = AffineTransform.from_parameters(rotation_deg=12, scale=1.1, shift=(140, 120))
NUDGE = AffineTransform.from_parameters(rotation_deg=0.6, scale=1.005, shift=(2.3, -3.1))
BEND = FieldTransform(np.random.default_rng(0).uniform(-1, 1, (2, 5, 6)), (0.0, 0.0), (32.0, 32.0))


def check(seen: Seen, transform: Transform, margin: int, stride: int, shape: tuple[int, int] = (97, 130)) -> None:
    """Every compared cell holds the place that the transform maps its centre to."""
    assert bool((seen.moving_valid == 1).all())
    cells = centres(shape, margin, stride)
    expected = transform(cells.reshape(-1, 2)).reshape(cells.shape)
    assert seen.moving.shape[-2:] == cells.shape[:2]
    np.testing.assert_allclose(seen.moving[0].permute(1, 2, 0).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("stride", STRIDES)
def test_reference_cells_are_centred_where_they_say(look: Look, stride: int) -> None:
    matcher = Matcher(places(), Means())
    assert matcher.cells(stride) == (97 // stride, 130 // stride)
    assert matcher.cells() == matcher.cells(2)
    seen = look(matcher, BASE, 1, stride)
    np.testing.assert_allclose(seen.reference[0].permute(1, 2, 0).numpy(), centres((97, 130), 0, stride), atol=1e-4)
    windows = matcher.correlate(BASE, WindowCfg(size=5, margin=1, stride=4), stride)
    assert windows.centres[0].tolist() == [2.0, 2.0]  # cells; in pixels 2 * stride + (stride - 1) / 2
    assert windows.temperature == 10.0 * stride


@pytest.mark.parametrize("reuse_px", [0.0, 8.0])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("margin", [1, 3])
def test_features_are_taken_where_the_transform_says(look: Look, reuse_px: float, stride: int, margin: int) -> None:
    describe = Means()
    matcher = Matcher(places(), describe, reuse_px)
    check(look(matcher, BASE, margin, stride), BASE, margin, stride)
    moved = BASE.after(NUDGE)
    check(look(matcher, moved, margin, stride), moved, margin, stride)
    check(look(matcher, BASE, margin, stride), BASE, margin, stride)
    assert len(describe.asked) == (2 if reuse_px else 4)


@pytest.mark.parametrize("stride", STRIDES)
def test_kept_features_serve_a_local_flow(look: Look, stride: int) -> None:
    """Bent transforms are sampled from features kept under an affine; bilinear between the cells."""
    describe = Means()
    matcher = Matcher(places(), describe, 8.0)
    look(matcher, BASE, 3, 8)
    bent = compose(BASE, BEND)
    check(look(matcher, bent, 2, stride), bent, 2, stride)
    assert len(describe.asked) == 2


def test_a_local_flow_without_kept_features(look: Look) -> None:
    """Computed under the bent transform itself; each cell holds the mean of its pixels' places."""
    describe = Means()
    matcher = Matcher(places(), describe)
    bent = compose(BASE, BEND)
    seen = look(matcher, bent, 2, 2)
    pixels = centres((97, 130), 0, 1)[:96].reshape(-1, 2)
    mean = bent(pixels).reshape(48, 2, 65, 2, 2).mean((1, 3))
    np.testing.assert_allclose(seen.moving[0, :, 2:-2, 2:-2].permute(1, 2, 0).numpy(), mean, atol=1e-3)
    # It is not kept: an affine afterwards is computed under itself.
    check(look(matcher, BASE, 2, 2), BASE, 2, 2)
    assert len(describe.asked) == 3


@pytest.mark.parametrize("asked", [((8, 5), (4, 6), (2, 9), (8, 3)), ((2, 9), (8, 1), (4, 3))])
def test_every_stride_after_one_description(look: Look, asked: tuple[tuple[int, int], ...]) -> None:
    describe = Means()
    matcher = Matcher(places(), describe, 8.0)
    for stride, margin in asked:
        check(look(matcher, BASE, margin, stride), BASE, margin, stride)
        check(look(matcher, BASE.after(NUDGE), margin, stride), BASE.after(NUDGE), margin, stride)
    assert [modality for modality, _ in describe.asked] == ["optical", "sar"]


@pytest.mark.parametrize("more", range(1, 5))
def test_a_wider_margin_is_not_cut_short_by_what_is_kept(look: Look, more: int) -> None:
    """Features kept with just enough room for a margin have none for it once they are displaced."""
    matcher = Matcher(places(), Means(), 8.0)
    look(matcher, BASE, 2, 8)
    moved = BASE.after(AffineTransform.from_parameters(shift=(7.5, -7.5)))
    check(look(matcher, moved, 2 + more, 8), moved, 2 + more, 8)


def test_features_are_computed_anew_when_the_transforms_part(look: Look) -> None:
    describe = Means()
    matcher = Matcher(places(), describe, 4.0)
    look(matcher, BASE, 2, 4)

    def asked(transform: Transform) -> int:
        before = len(describe.asked)
        check(look(matcher, transform, 2, 4), transform, 2, 4)
        return len(describe.asked) - before

    def shifted(dx: float, dy: float = 0.0) -> AffineTransform:
        return BASE.after(AffineTransform.from_parameters(shift=(dx, dy)))

    assert asked(shifted(3.9)) == 0
    assert asked(shifted(-3.9)) == 0
    assert asked(shifted(4.1)) == 1
    assert asked(shifted(7.9)) == 0  # measured from what was kept last
    assert asked(shifted(0.0)) == 1
    assert asked(shifted(3.0, 3.0)) == 1  # 4.2 px apart
    assert asked(BASE) == 1
    # A turn by 3 degrees about the middle moves the corners by 4.2 px.
    assert asked(BASE.after(AffineTransform.from_parameters(rotation_deg=3.0, centre=(64.5, 48.0)))) == 1


@pytest.mark.parametrize("stride", STRIDES)
def test_kept_features_have_room_for_wider_margins(look: Look, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow margin first does not make a wider one later compute them again."""
    describe = Means()
    monkeypatch.setattr("somareg.matching.matcher.ROOM_PX", 32)
    matcher = Matcher(places(), describe, 8.0)
    look(matcher, BASE, 1, stride)
    assert describe.asked[-1] == ("sar", (97 + 64, 130 + 64))
    widest = (32 - STRIDES[-1] - 8) // stride
    for margin in (2, widest):
        for transform in (BASE, BASE.after(NUDGE)):
            check(look(matcher, transform, margin, stride), transform, margin, stride)
    assert len(describe.asked) == 2
    further = BASE.after(AffineTransform.from_parameters(shift=(1.0, 0.0)))
    check(look(matcher, further, widest + 1, stride), further, widest + 1, stride)
    assert len(describe.asked) == 3


def test_nothing_is_kept_without_being_asked(look: Look) -> None:
    describe = Means()
    matcher = Matcher(places(), describe)
    for _ in range(3):
        check(look(matcher, BASE, 2, 4), BASE, 2, 4)
    assert len(describe.asked) == 4
    assert describe.asked[1:] == [("sar", (97 + 16, 130 + 16))] * 3


@pytest.mark.parametrize("reuse_px", [0.0, 8.0])
@pytest.mark.parametrize("stride", STRIDES)
def test_what_leaves_the_moving_image_is_invalid(look: Look, reuse_px: float, stride: int) -> None:
    """And what is called valid is exact, next to the edge and next to a hole too."""
    pair = places(wide=200)
    mask = pair.moving_mask.clone()
    mask[..., 100:131, 90:122] = 0
    pair = replace(pair, moving=pair.moving * mask, moving_mask=mask)
    matcher = Matcher(pair, Means(), reuse_px)
    base = AffineTransform.from_parameters(rotation_deg=4, shift=(60.0, 75.0))
    moved = base.after(NUDGE)
    look(matcher, base, 3, stride)
    seen = look(matcher, moved, 3, stride)
    cells = centres((97, 130), 3, stride)
    expected = moved(cells.reshape(-1, 2)).reshape(cells.shape)
    valid = seen.moving_valid[0, 0].numpy() > 0
    # A thousandth of an invalid pixel may be read.
    np.testing.assert_allclose(seen.moving[0].permute(1, 2, 0).numpy()[valid], expected[valid], atol=0.15)
    if reuse_px:
        assert not seen.moving[0][:, ~valid].any()
    # Places whose whole surroundings are known are valid, those outside or in the hole are not.
    x, y = expected[..., 0], expected[..., 1]
    away = np.maximum(np.abs(x - 105.5) - 16, np.abs(y - 115) - 15.5)  # > 0 outside the hole
    inside = np.minimum.reduce([x, y, 199 - x, 199 - y])
    assert not valid[(inside < 0) | (away < 0)].any()
    assert valid[(inside > 2.5 * stride + 1) & (away > 2.5 * stride + 1)].all()
    assert (~valid).any()


# --- on pictures ------------------------------------------------------------------------------------------------------


class Counting:
    """Orientation channels that count how often they are computed."""

    def __init__(self) -> None:
        self.inner = OrientationFeatures(OrientationCfg())
        self.strides = self.inner.strides
        self.calls = 0

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        self.calls += 1
        return self.inner(image, mask, modality)

    def temperature(self, stride: int) -> float | None:
        return None


CFG = WindowCfg(size=24, margin=4, stride=8)


def test_reused_features_find_the_same_displacements() -> None:
    pair = as_pair(make_pair(3, 192, rotation_deg=3, shift=(2.0, -1.0)))
    start = AffineTransform.from_parameters(rotation_deg=2, shift=(5.0, -2.0))
    fresh, saving = Counting(), Counting()
    exact, reusing = Matcher(pair, fresh), Matcher(pair, saving, 6.0)
    reusing.correlate(start, CFG)
    for turn, dx in ((0.3, 1.3), (-0.4, -2.7), (1.0, 0.5)):
        nudge = AffineTransform.from_parameters(rotation_deg=turn, shift=(dx, 1.0 - dx), centre=(96, 96))
        first, second = (matcher.correlate(start.after(nudge), CFG) for matcher in (exact, reusing))
        torch.testing.assert_close(second.centres, first.centres)
        both = torch.stack([first.surfaces.flatten(), second.surfaces.flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.995
        assert (both[0] - both[1]).abs().mean() < 0.03
        one, other = (read_windows(w, 2.0, torch.zeros(len(w.centres), 2), 3.0) for w in (first, second))
        assert (one.displacement - other.displacement).norm(dim=1).median() < 0.35  # pixels; a cell has 2
    assert (fresh.calls, saving.calls) == (4, 2)


def test_refinement_from_reused_features_ends_at_the_same_place() -> None:
    truth = make_pair(1, 192, rotation_deg=1.0, shift=(2.3, -1.6))
    points = np.stack(np.meshgrid([20.0, 96.0, 170.0], [20.0, 96.0, 170.0]), axis=-1).reshape(-1, 2)
    fresh, saving = Counting(), Counting()
    found = [
        refine_affine(Matcher(as_pair(truth), describe, reuse_px), STILL, NEAR).affine(points)
        for describe, reuse_px in ((fresh, 0.0), (saving, 6.0))
    ]
    assert (fresh.calls, saving.calls) == (4, 2)
    for own in found:
        assert np.linalg.norm(own - truth.to_moving(points), axis=1).max() < 0.6
    assert np.linalg.norm(found[0] - found[1], axis=1).max() < 0.3


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("margin", [1, 5])
def test_several_affines_at_once_are_correlated_as_one_by_one(stride: int, margin: int) -> None:
    """Also one that leaves the moving image, and with features of several strides."""
    describe, window = Means(), WindowCfg(size=6, margin=margin, stride=4, min_seen=0.3)
    pair = as_pair(make_pair(4, 160))
    pair = replace(pair, reference=pair.reference[:, :1])
    off = AffineTransform.from_parameters(shift=(1e3, 0.0))
    affines = [STILL, AffineTransform.from_parameters(rotation_deg=14, shift=(30.0, -20.0)), off]
    matcher = Matcher(pair, describe)
    together = matcher.correlate_all(affines, window, stride)
    assert [modality for modality, _ in describe.asked] == ["other", "other"]
    assert [len(found.surfaces) > 0 for found in together] == [True, True, False]
    assert float(together[1].valid.min()) < 1.0
    for found, affine in zip(together, affines, strict=True):
        alone = matcher.correlate(affine, window, stride)
        assert found.temperature == alone.temperature == 10.0 * stride
        torch.testing.assert_close(found.centres, alone.centres)
        torch.testing.assert_close(found.valid, alone.valid)
        torch.testing.assert_close(found.surfaces, alone.surfaces, atol=2e-5, rtol=0)


def test_what_was_kept_survives_a_look_at_several_affines() -> None:
    saving = Counting()
    matcher = Matcher(as_pair(make_pair(3, 160)), saving, 6.0)
    before = matcher.correlate(STILL, CFG)
    matcher.correlate_all([AffineTransform.from_parameters(shift=(40.0, 0.0))], CFG)
    after = matcher.correlate(STILL, CFG)
    assert saving.calls == 3
    torch.testing.assert_close(after.surfaces, before.surfaces)


@pytest.mark.parametrize("reuse_px", [0.0, 6.0])
@pytest.mark.parametrize(("across", "down"), [(3, 0), (0, -2), (-1, 3)])
def test_a_transform_by_whole_cells_moves_the_surfaces_by_whole_cells(reuse_px: float, across: int, down: int) -> None:
    """Warping by (dx, dy) first leaves a residual that is (dx, dy) smaller."""
    pair = as_pair(make_pair(6, 192))
    inner = Pair(
        pair.reference[..., 32:160, 32:160], pair.reference_mask[..., 32:160, 32:160], pair.moving, pair.moving_mask
    )
    shift = (32.0 + 2 * across, 32.0 + 2 * down)
    matcher = Matcher(inner, OrientationFeatures(OrientationCfg()), reuse_px)
    before = matcher.correlate(AffineTransform.from_parameters(shift=(32.0, 32.0)), CFG).surfaces
    after = matcher.correlate(AffineTransform.from_parameters(shift=shift), CFG).surfaces
    own = np.s_[:, max(0, down) : 9 + min(0, down), max(0, across) : 9 + min(0, across)]
    other = np.s_[:, max(0, -down) : 9 + min(0, -down), max(0, -across) : 9 + min(0, -across)]
    assert before.abs().max() > 0.2
    difference = (after[other] - before[own]).abs()
    # The outermost displacements see features that were computed next to the border of what was warped.
    assert difference.mean() < 3e-3
    assert difference.max() < 0.05


def test_where_the_moving_image_begins_does_not_matter() -> None:
    """The same ground cut 10 and 6 pixels further in, with the transform that says so."""
    pair = as_pair(make_pair(7, 192))
    cut = replace(pair, moving=pair.moving[..., 6:, 10:], moving_mask=pair.moving_mask[..., 6:, 10:])
    describe: Describe = OrientationFeatures(OrientationCfg())
    middle = WindowCfg(size=40, margin=4, stride=8, min_seen=1.0)
    whole = Matcher(pair, describe).correlate(STILL, middle)
    part = Matcher(cut, describe).correlate(AffineTransform.from_parameters(shift=(-10.0, -6.0)), middle)
    known = {tuple(centre): surface for centre, surface in zip(whole.centres.tolist(), whole.surfaces, strict=True)}
    far = [i for i, c in enumerate(part.centres.tolist()) if min(c) > 32 and max(c) < 64]
    assert len(far) >= 4
    for i in far:
        torch.testing.assert_close(part.surfaces[i], known[tuple(part.centres[i].tolist())], atol=0.01, rtol=0)


def test_window_count_is_of_what_the_reference_allows() -> None:
    pair = as_pair(make_pair(0, 128))
    mask = pair.reference_mask.clone()
    mask[..., :64] = 0
    half = replace(pair, reference_mask=mask, reference=pair.reference * mask)
    describe = OrientationFeatures(OrientationCfg())
    window = WindowCfg(size=16, margin=4, stride=16)
    assert Matcher(pair, describe).window_count(window) == 16
    assert Matcher(half, describe).window_count(window) == 8
    found = Matcher(half, describe).correlate(STILL, window)
    assert len(found.surfaces) <= 8
    assert bool((found.centres[:, 0] > 32).all())
