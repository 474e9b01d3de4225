"""Window correlation equals its definition, by each of its methods, and can be trained through wherever it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching import correlation
from somareg.matching.bands import band_sums
from somareg.matching.correlation import by_bands, by_fft, by_products, correlate_grid
from somareg.matching.layout import WindowGrid

GRID = WindowGrid((0, 3, 6), (0, 4, 7, 8), (7, 6), 2)
METHODS = {"products": by_products, "fft": by_fft, "bands": by_bands}


@dataclass(frozen=True)
class Scene:
    """Features of a batch and their masks, as `correlate_grid` takes them."""

    reference: Tensor
    reference_valid: Tensor
    moving: Tensor
    moving_valid: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.reference, self.reference_valid, self.moving, self.moving_valid))


def scene(seed: int = 0, batch: int = 1, channels: int = 3, *, holes: bool = False, offset: float = 0.0) -> Scene:
    """White features of 13 x 14 cells around a margin of 2; holes differ in every image of the batch."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(batch, channels, 13, 14, generator=generator) + offset
    moving = torch.randn(batch, channels, 17, 18, generator=generator) + offset
    reference_valid, moving_valid = torch.ones(batch, 1, 13, 14), torch.ones(batch, 1, 17, 18)
    if holes:
        for i in range(batch):
            reference_valid[i, :, 4 : 6 + i, 3:9] = 0
            moving_valid[i, :, 9 + i :, 8:] = 0
            moving_valid[i, :, :, : 3 - i] = 0
    return Scene(reference, reference_valid, moving, moving_valid)


@pytest.fixture(params=list(METHODS))
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way of `correlate_grid`, whatever it would choose by itself; without gradients there are three."""
    monkeypatch.setattr(correlation, "_fastest", lambda *_: METHODS[request.param])
    return str(request.param)


@pytest.fixture(params=["products", "fft"])
def trainable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways that have gradients."""
    monkeypatch.setattr(correlation, "_fastest", lambda *_: METHODS[request.param])
    return str(request.param)


def definition(images: Scene, item: int, grid: WindowGrid) -> np.ndarray:
    """Coefficients (N, n, n) of one pair cell by cell, in float64: features minus their image's mean over its valid
    cells; correlation over the cells that are valid in both; times the root of the share of the window's valid cells
    that are seen, 0 where that is half or less."""
    reference, known, moving, seen = (part[item].double().numpy() for part in images)
    reference = reference - (reference * known).sum((1, 2), keepdims=True) / known.sum()
    moving = moving - (moving * seen).sum((1, 2), keepdims=True) / seen.sum()
    height, width = grid.size
    surfaces = []
    for y, x in ((y, x) for y in grid.rows for x in grid.columns):
        surface = np.zeros((2 * grid.margin + 1, 2 * grid.margin + 1))
        here = np.s_[:, y : y + height, x : x + width]
        for j, i in np.ndindex(*surface.shape):
            there = np.s_[:, y + j : y + j + height, x + i : x + i + width]
            both = known[here] * seen[there]
            share = both.sum() / known[here].sum()
            energies = (reference[here] ** 2 * both).sum() * (moving[there] ** 2 * both).sum()
            if share > 0.5:
                surface[j, i] = (reference[here] * moving[there] * both).sum() / np.sqrt(energies) * np.sqrt(share)
        surfaces.append(surface)
    return np.stack(surfaces)


# --- the coefficient --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_surfaces_equal_the_definition(method: str, channels: int, holes: bool) -> None:
    images = scene(1, 2, channels, holes=holes, offset=0.7)
    surfaces, seen = correlate_grid(*images, GRID)
    assert surfaces.shape == (2, 12, 5, 5)
    for item in range(2):
        expected = definition(images, item, GRID)
        # A floor of 0.1 % of the mean in the denominator, against windows without content, lowers every coefficient.
        np.testing.assert_allclose(surfaces[item].numpy(), expected, atol=1e-5, rtol=0.004)
        known = images.reference_valid[item, 0].numpy()
        there = known * images.moving_valid[item, 0, 2:-2, 2:-2].numpy()
        for (y, x), share in zip(GRID.corners, seen[item].tolist(), strict=True):
            cut = np.s_[y : y + 7, x : x + 6]
            assert share == pytest.approx(there[cut].sum() / known[cut].sum(), abs=1e-6)
    if holes:
        assert bool((surfaces == 0).any())
        assert bool((seen < 1).any())


def test_a_window_of_the_same_image_correlates_fully(method: str) -> None:
    """Windows are not centred by themselves, so nothing but the floor keeps equal ones from 1."""
    ground = scene(2, offset=3.0).moving
    valid = torch.ones(1, 1, 17, 18)
    surfaces, seen = correlate_grid(ground[..., 2:-2, 2:-2], valid[..., 2:-2, 2:-2], ground, valid, GRID)
    # The two images' means are over slightly different cells.
    assert bool((surfaces[:, :, 2, 2] > 0.97).all())
    assert bool((surfaces.flatten(2).argmax(2) == 12).all())
    assert bool((seen == 1).all())


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (-2, 1), (0, -2), (1, 2)])
def test_displacement_sign(method: str, dx: int, dy: int) -> None:
    """moving_xy = reference_xy + (dx, dy), +x right, +y down; entry [m + dy, m + dx]."""
    ground = torch.randn(1, 3, 40, 41, generator=torch.Generator().manual_seed(3))
    reference = ground[..., 10:23, 10:24]
    moving = ground[..., 8 - dy : 25 - dy, 8 - dx : 26 - dx]
    surfaces, _ = correlate_grid(reference, torch.ones(1, 1, 13, 14), moving, torch.ones(1, 1, 17, 18), GRID)
    assert bool((surfaces.flatten(2).argmax(2) == 5 * (2 + dy) + 2 + dx).all())


def test_mirrored_images_have_mirrored_surfaces(method: str) -> None:
    images = scene(4, holes=True)
    grid = WindowGrid((0, 3, 6), (0, 4, 8), (7, 6), 2)  # columns are a mirror image of themselves: 14 - 6 - x
    straight, _ = correlate_grid(*images, grid)
    mirrored, _ = correlate_grid(*(part.flip(3) for part in images), grid)
    expected = straight.reshape(1, 3, 3, 5, 5).flip(2, 4).reshape(1, 9, 5, 5)
    torch.testing.assert_close(mirrored, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_gain_and_offset_of_either_image_do_not_matter(method: str, factor: float) -> None:
    images = scene(5, 2, holes=True)
    first, _ = correlate_grid(*images, GRID)
    gain = torch.tensor([1.0, 2.0, 0.5])[:, None, None].mean() * factor
    second, _ = correlate_grid(
        images.reference * gain + gain,
        images.reference_valid,
        images.moving * factor - 2 * factor,
        images.moving_valid,
        GRID,
    )
    torch.testing.assert_close(second, first, atol=2e-4, rtol=0)


def test_what_is_masked_has_no_influence(method: str) -> None:
    images = scene(6, 2, holes=True)
    first, _ = correlate_grid(*images, GRID)
    spoilt = [
        torch.where(valid > 0, part, torch.full_like(part, 1e4))
        for part, valid in ((images.reference, images.reference_valid), (images.moving, images.moving_valid))
    ]
    second, _ = correlate_grid(spoilt[0], images.reference_valid, spoilt[1], images.moving_valid, GRID)
    torch.testing.assert_close(second, first, atol=1e-4, rtol=0)


def test_a_pair_does_not_depend_on_its_batch(method: str) -> None:
    strong, weak = scene(7, 1, holes=True), scene(8, 1)
    weak = Scene(weak.reference * 1e-3, weak.reference_valid, weak.moving * 1e-3, weak.moving_valid)
    together, seen = correlate_grid(*(torch.cat(parts) for parts in zip(strong, weak, strict=True)), GRID)
    for i, alone in enumerate((strong, weak)):
        surfaces, seen_alone = correlate_grid(*alone, GRID)
        torch.testing.assert_close(together[i : i + 1], surfaces, atol=2e-5, rtol=0)
        torch.testing.assert_close(seen[i : i + 1], seen_alone)


# --- three methods, one figure ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("windows_per_chunk", [1, 5, 1000])
def test_the_methods_agree(holes: bool, batch: int, windows_per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = scene(9, batch, holes=holes)
    masked = Scene(
        images.reference * images.reference_valid,
        images.reference_valid,
        images.moving * images.moving_valid,
        images.moving_valid,
    )
    monkeypatch.setattr(correlation, "CHUNK_ELEMENTS", windows_per_chunk * 6 * batch * 3 * 11 * 10)
    calls: list[int] = []
    areas = correlation.correlate_areas

    def counting(*parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        calls.append(len(parts[0]))
        return areas(*parts)

    monkeypatch.setattr(correlation, "correlate_areas", counting)
    products, fft, bands = (run(*masked, GRID) for run in METHODS.values())
    assert calls == [batch * n for n in {1: [1] * 12, 5: [5, 5, 2], 1000: [12]}[windows_per_chunk]]
    for name, first, *others in zip(("covariance", "energy", "seen", "count"), products, fft, bands, strict=True):
        scale = float(first.abs().max())
        for other in others:
            torch.testing.assert_close(
                other, first, atol=2e-6 * scale, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_the_methods_draw_the_line_at_half_a_window_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly half of a window proves nothing; rounding in the FFT must not make it more."""
    generator = torch.Generator().manual_seed(10)
    grid = WindowGrid((0, 4, 8), (0, 4, 8), (8, 8), 4)
    reference, moving = (torch.randn(1, 2, n, n, generator=generator) for n in (16, 24))
    valid = torch.ones(1, 1, 24, 24)
    valid[..., 12:] = 0
    surfaces = []
    for run in METHODS.values():
        monkeypatch.setattr(correlation, "_fastest", lambda *_, run=run: run)
        surfaces.append(correlate_grid(reference, torch.ones(1, 1, 16, 16), moving, valid, grid)[0])
    # Window column 4 lies at moving columns 8 to 15 without displacement: half of it is seen at displacement 0.
    assert not surfaces[0].reshape(3, 3, 9, 9)[:, 1, :, 4].any()
    assert bool((surfaces[0].reshape(3, 3, 9, 9)[:, 1, :, 3] != 0).all())
    for other in surfaces[1:]:
        torch.testing.assert_close(other, surfaces[0], atol=1e-5, rtol=0)


def test_the_methods_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scene(11, 2, holes=True)
    gradients = []
    for run in (by_products, by_fft):
        monkeypatch.setattr(correlation, "_fastest", lambda *_, run=run: run)
        leaves = images.reference.clone().requires_grad_(), images.moving.clone().requires_grad_()
        surfaces, _ = correlate_grid(leaves[0], images.reference_valid, leaves[1], images.moving_valid, GRID)
        weights = torch.linspace(-1, 1, surfaces.numel()).view_as(surfaces)
        gradients.append(torch.autograd.grad((surfaces * weights).sum(), leaves))
    for first, second, valid in zip(*gradients, (images.reference_valid, images.moving_valid), strict=True):
        assert float(first.abs().max()) > 0.01
        torch.testing.assert_close(second, first, atol=1e-5, rtol=1e-4)
        assert not (first * (1 - valid)).any()


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (2, 3)])
def test_gradient_of_the_shifted_products(batch: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(12)
    reference = torch.randn(batch, channels, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    moving = torch.randn(batch, channels, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    products: Callable[[Tensor, Tensor], Tensor] = lambda a, b: correlation._products(a, b, 3)  # noqa: E731
    assert torch.autograd.gradcheck(products, (reference, moving))
    found = products(reference, moving)
    expected = [(reference * moving[..., j : j + 3, i : i + 4]).sum(1) for j in range(3) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(expected, 1))


def unseen(kind: str) -> Scene:
    """Pairs of which a part, or everything, says nothing."""
    images = scene(13, 2)
    reference, reference_valid, moving, moving_valid = (part.clone() for part in images)
    if kind == "a batch without a valid cell":
        reference_valid.zero_(), moving_valid.zero_()
    elif kind == "one pair without a valid cell":
        reference_valid[0], moving_valid[0] = 0, 0
    elif kind == "no valid cell in the moving image":
        moving_valid.zero_()
    elif kind == "an invalid window":
        reference_valid[..., :8, :7] = 0
    elif kind == "constant images":
        reference, moving = torch.full_like(reference, 2.0), torch.full_like(moving, -1.0)
    elif kind == "a constant window":
        reference[..., :9, :9], moving[..., :11, :11] = 0, 0
        moving_valid[..., 12:, 12:] = 0
    return Scene(reference, reference_valid, moving, moving_valid)


@pytest.mark.parametrize(
    "kind",
    [
        "a batch without a valid cell",
        "one pair without a valid cell",
        "no valid cell in the moving image",
        "an invalid window",
        "constant images",
        "a constant window",
    ],
)
@pytest.mark.usefixtures("trainable")
def test_nothing_seen_is_zero_and_has_finite_gradients(kind: str) -> None:
    images = unseen(kind)
    leaves = images.reference.clone().requires_grad_(), images.moving.clone().requires_grad_()
    surfaces, seen = correlate_grid(leaves[0], images.reference_valid, leaves[1], images.moving_valid, GRID)
    surfaces.exp().sum().backward()
    assert bool(torch.isfinite(surfaces).all())
    assert bool(torch.isfinite(seen).all())
    assert surfaces.abs().max() <= 1.0001
    for leaf in leaves:
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())
        assert leaf.grad.abs().max() < 1e3
    if kind == "an invalid window":
        assert not surfaces[:, 0].any()
    elif kind == "one pair without a valid cell":
        assert not surfaces[0].any()
    elif kind != "a constant window":
        assert surfaces.abs().max() < 1e-5
    if kind == "one pair without a valid cell":  # and the other pair is untouched by it
        own = correlate_grid(*(part[1:] for part in scene(13, 2)), GRID)[0]
        torch.testing.assert_close(surfaces[1:], own, atol=1e-5, rtol=0)
        assert leaves[0].grad is not None
        assert leaves[0].grad[1].abs().max() > 1e-3


def test_mixed_precision_around_it_changes_nothing(method: str) -> None:
    """Sums over thousands of cells do not fit into 8 bits."""
    images = scene(14, 2, holes=True)
    plain, seen = correlate_grid(*images, GRID)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, mixed_seen = correlate_grid(*images, GRID)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain)
    torch.testing.assert_close(mixed_seen, seen)
    half, _ = correlate_grid(*(part.half() for part in images), GRID)
    torch.testing.assert_close(half, plain, atol=2e-3, rtol=0)


# --- the grid and the choice ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0, 2, 21])
def test_sums_of_bands_equal_their_definition(margin: int) -> None:
    """Images that fill blocks of columns in part, and margins wider than a block."""
    generator = torch.Generator().manual_seed(14)
    grid = WindowGrid((0, 5, 11), (0, 3, 30), (6, 9), margin)
    reference = torch.randn(2, 3, 17, 39, generator=generator)
    moving = torch.randn(2, 3, 17 + 2 * margin, 39 + 2 * margin, generator=generator)
    n = 2 * margin + 1
    expected = torch.zeros(2, 9, n, n)
    for k, (y, x) in enumerate(grid.corners):
        window = reference[..., y : y + 6, x : x + 9, None, None]
        around = moving[..., y : y + 6 + 2 * margin, x : x + 9 + 2 * margin]
        expected[:, k] = (window * around.unfold(-2, n, 1).unfold(-2, n, 1)).sum((1, 2, 3))
    torch.testing.assert_close(band_sums(reference, moving, grid), expected, atol=1e-4, rtol=0)


def test_sums_and_centres_are_of_the_windows() -> None:
    maps = torch.arange(2 * 13 * 14, dtype=torch.float32).reshape(2, 13, 14)
    sums = GRID.sums(maps)
    expected = [maps[:, y : y + 7, x : x + 6].sum((1, 2)) for y, x in GRID.corners]
    torch.testing.assert_close(sums, torch.stack(expected, 1))
    y, x = torch.meshgrid(torch.arange(13.0), torch.arange(14.0), indexing="ij")
    middle = GRID.sums(torch.stack([x, y])) / 42
    torch.testing.assert_close(GRID.centres(maps), middle.mT)


def test_the_fastest_way_is_chosen_and_one_with_gradients_where_they_are_needed() -> None:
    few, many = WindowGrid((0,), (20,), (8, 8), 4), WindowGrid(*[tuple(range(0, 57, 4))] * 2, (8, 8), 4)
    wide = WindowGrid((0,), (0,), (8, 8), 40)

    def chosen(grid: WindowGrid, *, gradients: bool) -> str:
        reference, moving = (torch.zeros(1, 1, n, n, requires_grad=gradients) for n in (64, 64 + 2 * grid.margin))
        return correlation._fastest(reference, moving, grid).__name__

    assert [chosen(grid, gradients=True) for grid in (few, many)] == ["by_fft", "by_products"]
    assert [chosen(grid, gradients=False) for grid in (many, wide)] == ["by_bands", "by_fft"]
    with torch.no_grad():
        assert chosen(many, gradients=True) == "by_bands"
    # Of small images the many calls for the product maps take longer than the products.
    small = WindowGrid(*[(0, 4, 8, 12, 16, 20, 22)] * 2, (14, 14), 9)
    reference, moving = torch.zeros(1, 16, 36, 36), torch.zeros(1, 16, 54, 54)
    assert correlation._fastest(reference, moving, small).__name__ == "by_bands"
