"""Pairs from tiles that know where they are: a ramp of x and a ramp of y turn grey values into tile coordinates."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.errors import ConfigError, InputError
from somareg.geometry import AffineTransform
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.dice import Dice
from somareg.lab.data.draw import DrawCfg, draw_pairs
from somareg.lab.data.tiles import TileSet
from somareg.lab.data.waves import LARGEST_PX, draw_waves
from somareg.lab.train.config import load_config

SIZE, CROP, COUNT = 256, 96, 12
FAR = DrawCfg(crop=CROP, near_share=0.0, smooth_share=0.0)
SMOOTH = replace(FAR, smooth_share=1.0, smooth_px=LARGEST_PX)
LABEL = torch.tensor([[1.004, -0.006, 3.4], [0.003, 0.995, -2.6]])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiles(sar: Tensor, optical: Tensor, valid: Tensor | None = None, label: Tensor | None = None) -> TileSet:
    """A set of one tile from (T, T) and (3, T, T) grey values."""
    size = sar.shape[-1]
    valid = torch.ones(size, size, dtype=torch.bool) if valid is None else valid
    label = torch.eye(2, 3) if label is None else label
    return TileSet(
        sar.round().to(torch.uint8)[None],
        optical.round().to(torch.uint8)[None],
        valid[None],
        label[None],
        ("g",),
        ("s",),
        ("n",),
    )


def draw(tile: TileSet, cfg: DrawCfg, seed: int = 0, count: int = COUNT) -> PairBatch:
    return draw_pairs(tile, torch.zeros(count, dtype=torch.long), cfg, generator(seed))


def ramps(label: Tensor) -> tuple[TileSet, TileSet]:
    """Two tiles whose SAR image shows its own x and its own y; both optical images show (x, y, 0)."""
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    optical = torch.stack([x, y, torch.zeros_like(x)])
    return tiles(x, optical, label=label), tiles(y, optical, label=label)


def coordinates(cfg: DrawCfg, seed: int) -> tuple[PairBatch, Tensor, Tensor]:
    """A batch with the tile coordinates (B, 2, S, S) that its reference and its moving image show."""
    along_x, along_y = (draw(tile, cfg, seed) for tile in ramps(LABEL))
    assert torch.equal(along_x.truth, along_y.truth)
    sar = "reference" if along_x.modalities[0] == "sar" else "moving"
    optical = "moving" if sar == "reference" else "reference"
    shown = {sar: torch.cat([getattr(along_x, sar), getattr(along_y, sar)], dim=1)}
    shown[optical] = getattr(along_x, optical)[:, :2]
    return along_x, shown["reference"], shown["moving"]


def apply(matrix: Tensor, points: Tensor) -> Tensor:
    """(B, 2, S, S) points through (B, 2, 3) or (2, 3)."""
    matrix = matrix.double().expand(len(points), 2, 3)
    return torch.einsum("bij,bjhw->bihw", matrix[..., :2], points.double()) + matrix[:, :, 2, None, None]


def look_up(image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear values of an image at pixels (B, 2, S, S), and which of them lie well inside."""
    size = image.shape[-1]
    inside = ((points >= 0) & (points <= size - 1)).all(1, keepdim=True)
    grid = ((points + 0.5) * 2 / size - 1).permute(0, 2, 3, 1)
    return F.grid_sample(image.double(), grid.double(), mode="bilinear", align_corners=False), inside


@pytest.mark.parametrize("cfg", [FAR, SMOOTH], ids=["affine", "smooth"])
@pytest.mark.parametrize("swap", [0.0, 1.0], ids=["sar-moves", "optical-moves"])
def test_truth_leads_from_each_reference_pixel_to_its_place_in_the_moving_image(cfg: DrawCfg, swap: float) -> None:
    batch, reference, moving = coordinates(replace(cfg, swap_share=swap), seed=3)
    label = torch.eye(3).double()
    label[:2] = LABEL
    expected = apply((label.inverse() if swap else label)[:2], reference)
    pixels = torch.stack(torch.meshgrid(torch.arange(CROP), torch.arange(CROP), indexing="xy")).double()
    seen, inside = look_up(moving, pixels + batch.displacement().double())
    error = ((seen - expected).square().sum(1, keepdim=True)).sqrt()[inside]
    assert batch.modalities == (("sar", "optical") if swap else ("optical", "sar"))
    assert inside.float().mean() > 0.6
    # a slope of the look-up is 1 / scale tile pixels per moving pixel: tile pixels are as good as moving ones
    assert error.max() < 0.01


def test_smooth_displacement_matters_and_has_no_affine_part() -> None:
    flow = draw(ramps(LABEL)[0], SMOOTH, seed=1).flow
    assert flow is not None
    line = torch.arange(CROP) - (CROP - 1) / 2
    x, y = line[None, :].expand(CROP, CROP), line[:, None].expand(CROP, CROP)
    basis = torch.stack([torch.ones_like(x), x, y]).flatten(1).T
    plane = torch.linalg.lstsq(basis, flow.flatten(2).permute(2, 0, 1).flatten(1)).solution
    assert flow.square().mean().sqrt() > 0.3
    assert (basis @ plane).abs().max() < 0.02


def test_shares_of_smooth_and_near_pairs() -> None:
    cfg = replace(FAR, crop=64, smooth_share=0.25, near_share=0.75, near_rotation_deg=0.5, near_shear_deg=0.0)
    batch = draw(ramps(LABEL)[0], cfg, count=120)
    assert batch.flow is not None
    waving = (batch.flow != 0).flatten(1).any(1).float().mean()
    angle = torch.atan2(batch.truth[:, 1, 0], batch.truth[:, 0, 0]).rad2deg().abs()
    assert 0.15 < waving < 0.35
    assert 0.65 < (angle <= 0.5001).float().mean() < 0.85
    assert draw(ramps(LABEL)[0], FAR).flow is None


@pytest.mark.parametrize("largest", [0.5, LARGEST_PX])
def test_waves_invert_to_a_hundredth_of_a_pixel(largest: float) -> None:
    waves = draw_waves(64, CROP, largest, Dice(generator(0), torch.device("cpu")))
    line = torch.linspace(-40, CROP + 40, 60)
    x, y = line[None, None, :], line[None, :, None]
    u, v = waves.inverse(x, y)
    dx, dy = waves(u, v)
    assert torch.hypot(u + dx - x, v + dy - y).max() < 0.01
    across, down = waves(x, y)
    assert (torch.maximum(across.abs(), down.abs()).amax((1, 2)) <= waves.reach()).all()


def test_reference_is_an_exact_copy_in_each_of_the_eight_poses() -> None:
    reference = draw(ramps(LABEL)[0], FAR, count=100).reference[:, :2]
    assert torch.equal(reference, reference.round())
    along = reference[..., :, 1:] - reference[..., :, :-1]
    down = reference[..., 1:, :] - reference[..., :-1, :]
    assert (along == along[..., :1, :1]).all()
    assert (down == down[..., :1, :1]).all()
    poses = {tuple(p.int().tolist()) for p in torch.cat([along[..., 0, 0], down[..., 0, 0]], dim=1)}
    assert len(poses) == 8
    assert all(abs(a * d - b * c) == 1 and 0 in (a, b) for a, b, c, d in poses)


@pytest.mark.parametrize(("flips", "turns", "expected"), [(False, False, 1), (True, False, 2), (False, True, 4)])
def test_poses_can_be_switched_off(flips: bool, turns: bool, expected: int) -> None:
    reference = draw(ramps(LABEL)[0], replace(FAR, flips=flips, quarter_turns=turns), count=60).reference[:, :2]
    step = torch.cat([reference[..., 0, 1] - reference[..., 0, 0], reference[..., 1, 0] - reference[..., 0, 0]], dim=1)
    assert len({tuple(p.int().tolist()) for p in step}) == expected


def test_affines_stay_in_their_ranges_and_fill_them() -> None:
    cfg = replace(FAR, crop=160, scale=(0.8, 1.25))
    centre = ((cfg.crop - 1) / 2,) * 2
    truth = torch.cat([draw(ramps(LABEL)[0], cfg, seed, count=100).truth for seed in range(3)])
    found = [AffineTransform(m.double().numpy()).parameters(centre) for m in truth]
    rotation = np.array([p["rotation_deg"] for p in found])
    scale = np.array([p["scale"] for p in found])
    shift = np.array([p["shift"] for p in found])
    shear = np.array([p["shear_deg"] for p in found])
    assert abs(rotation).max() <= cfg.rotation_deg + 1e-3
    assert rotation.std() > 0.7 * cfg.rotation_deg / math.sqrt(3)
    # both axes are scaled alike, up to the length that the shear adds to y
    assert np.allclose(scale[:, 0], scale[:, 1], rtol=1e-4)
    assert 0.8 - 1e-4 <= scale.min() < 0.9
    assert 1.18 < scale.max() <= 1.25 + 1e-4
    assert 0.08 * cfg.crop < abs(shift).max() <= 0.1 * cfg.crop + 1e-3
    assert 2.0 < abs(shear).max() <= 3.0 + 1e-3


@pytest.mark.parametrize("size", [256, 200])
def test_no_pair_sees_the_frame_of_its_tile(size: int) -> None:
    framed = torch.full((size, size), 255.0)
    framed[1:-1, 1:-1] = 100.0
    tile = tiles(framed, framed.expand(3, -1, -1))
    for seed in range(12):
        batch = draw(tile, replace(SMOOTH, crop=128, smooth_share=0.5, swap_share=0.5), seed)
        assert (batch.moving - 100).abs().max() < 1e-3
        assert batch.moving_mask.all()
        assert batch.reference_mask.all()


def test_holes_of_a_tile_are_masked_and_nothing_else() -> None:
    valid = torch.ones(SIZE, SIZE, dtype=torch.bool)
    valid[110:140, 100:150] = False
    picture = torch.where(valid, 100.0, 255.0)
    cfg = replace(FAR, crop=160)
    batch = draw(tiles(picture, picture.expand(3, -1, -1), valid), cfg, seed=5)
    known = batch.moving_mask.bool()
    assert (batch.moving[known] - 100).abs().max() < 1e-3
    assert torch.equal(batch.reference_mask[:, 0] > 0, batch.reference[:, 0] == 100)
    hole = (~known).float().sum((1, 2, 3))
    area = torch.linalg.det(batch.truth[..., :2]) * (30 + 8) * (50 + 8)
    assert (hole <= area).all()
    assert (hole > 0).any()


def test_a_tile_without_room_gives_the_identity_and_masks_what_it_cannot_see() -> None:
    frame = torch.full((CROP, CROP), 90.0)
    tile = tiles(frame, frame.expand(3, -1, -1), label=torch.tensor([[1.0, 0, 9], [0, 1, 0]]))
    batch = draw(tile, replace(FAR, scale=(0.8, 1.0)), seed=2)
    assert torch.allclose(batch.truth, torch.eye(2, 3).expand(COUNT, 2, 3), atol=1e-6)
    share = 1 - batch.moving_mask.mean((1, 2, 3))
    assert (share > 8 / CROP).all()
    assert (share < 14 / CROP).all()


def texture(x: Tensor, y: Tensor) -> Tensor:
    """Grey values with detail down to a wavelength of 12 px."""
    detail = torch.sin(0.5 * x + 0.2 * y) + torch.sin(0.15 * x - 0.45 * y + 1) + torch.cos(0.31 * x * 0.9 - 0.1 * y)
    return 128 + 28 * detail


@pytest.mark.parametrize("cfg", [FAR, SMOOTH], ids=["affine", "smooth"])
def test_grey_values_agree_at_the_truth_and_not_beside_it(cfg: DrawCfg) -> None:
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    optical = texture(x, y)
    label = torch.eye(3)
    label[:2] = LABEL
    back = label.inverse()
    sar = texture(back[0, 0] * x + back[0, 1] * y + back[0, 2], back[1, 0] * x + back[1, 1] * y + back[1, 2])
    batch = draw(tiles(sar, optical.expand(3, -1, -1), label=LABEL), replace(cfg, scale=(0.95, 1.28)), seed=8)
    pixels = torch.stack(torch.meshgrid(torch.arange(CROP), torch.arange(CROP), indexing="xy")).double()
    points = pixels + batch.displacement()

    def rms(shift: float) -> float:
        seen, inside = look_up(batch.moving, points + shift)
        return float((seen - batch.reference[:, :1])[inside].square().mean().sqrt())

    assert rms(0.0) < 1.5
    assert rms(0.0) < 0.6 * min(rms(0.25), rms(-0.25))
    assert rms(0.0) < min(rms(0.05), rms(-0.05))


def test_shrinking_does_not_alias() -> None:
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    board = 255.0 * ((x + y) % 2)
    cfg = replace(FAR, crop=160, scale=(0.7, 0.72), rotation_deg=0.0, shear_deg=0.0, shift=0.0)
    plain = replace(cfg, scale=(1.0, 1.0))
    shrunk, kept = (draw(tiles(board, board.expand(3, -1, -1)), c).moving.std() for c in (cfg, plain))
    assert kept > 120
    assert shrunk < 0.35 * kept


def test_a_generator_decides_everything() -> None:
    tile = ramps(LABEL)[0]
    cfg = replace(SMOOTH, smooth_share=0.5, near_share=0.5, swap_share=0.5)
    first, second, other = (draw(tile, cfg, seed) for seed in (4, 4, 5))
    for name in ("reference", "moving", "moving_mask", "truth", "flow"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.truth, other.truth)


def test_swapping_happens_in_its_share_of_the_batches() -> None:
    tile = ramps(LABEL)[0]
    swapped = [draw(tile, replace(FAR, swap_share=0.3), seed, count=1).modalities[0] == "sar" for seed in range(100)]
    assert 0.18 < sum(swapped) / 100 < 0.42


def test_bad_settings_and_small_tiles_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"draw\.scale"):
        DrawCfg(scale=(1.2, 0.8))
    with pytest.raises(ConfigError, match=r"draw\.smooth_px"):
        DrawCfg(smooth_px=9.0)
    with pytest.raises(ConfigError, match=r"draw\.near_share"):
        DrawCfg(near_share=1.5)
    with pytest.raises(InputError, match="larger tiles"):
        draw(ramps(LABEL)[0], replace(FAR, crop=300))


def shape_of(truth: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Aspect and slope of the y axis of every affine (B, 2, 3)."""
    found = [AffineTransform(matrix.double().numpy()).parameters() for matrix in truth]
    scale = np.array([p["scale"] for p in found])
    return scale[:, 0] / scale[:, 1], np.tan(np.deg2rad([p["shear_deg"] for p in found]))


def test_full_affines_fill_their_ranges_and_similarities_keep_their_shape() -> None:
    tile = tiles(torch.rand(320, 320) * 255, torch.rand(3, 320, 320) * 255)
    wide = replace(FAR, aspect=(0.75, 1.33), shear_deg=math.degrees(math.atan(0.1)), scale=(1.0, 1.3), shift=0.02)
    aspect, lean = shape_of(draw(tile, wide, count=300).truth)
    assert aspect.min() >= 0.75 - 1e-4 and aspect.max() <= 1.33 + 1e-4
    assert np.ptp(aspect) > 0.9 * 0.58 and np.ptp(lean) > 0.18 and np.abs(lean).max() <= 0.1 + 1e-4
    similar = draw(tile, replace(wide, similar_share=1.0), count=40).truth
    aspect, lean = shape_of(similar)
    assert np.abs(aspect - 1).max() < 1e-4 and np.abs(lean).max() < 1e-4
    aspect, _ = shape_of(draw(tile, replace(wide, similar_share=0.5), count=200).truth)
    assert 0.35 < (np.abs(aspect - 1) < 1e-4).mean() < 0.65


def test_a_stretched_pair_shows_what_its_truth_says() -> None:
    stretched = replace(FAR, aspect=(0.75, 1.33), shear_deg=5.0)
    for of_axis, ramp in enumerate(ramps(LABEL)):
        batch = draw(ramp, stretched, seed=4)
        assert batch.moving_mask.mean() > 0.99
        scale = np.array([AffineTransform(m.double().numpy()).parameters()["scale"] for m in batch.truth])
        assert np.abs(np.log(scale[:, 0] / scale[:, 1])).max() > 0.15
        # the optical ramps tell where each reference pixel lies in the tile; the label says where SAR shows that
        seen = batch.reference[:, :2].double().permute(0, 2, 3, 1) @ LABEL[:, :2].double().T + LABEL[:, 2].double()
        y, x = torch.meshgrid(torch.arange(float(CROP)), torch.arange(float(CROP)), indexing="ij")
        places = (
            torch.stack([x, y], dim=-1).double() @ batch.truth[:, None, :, :2].double().mT
            + batch.truth[:, None, None, :, 2]
        )
        grid = (places + 0.5) * 2 / CROP - 1
        inside = ((places > 2) & (places < CROP - 3)).all(-1)
        found = F.grid_sample(batch.moving.double(), grid, align_corners=False)[:, 0]
        assert (found - seen[..., of_axis])[inside].abs().max() < 1.5  # 8-bit ramps on both sides


@pytest.mark.parametrize("view", ["sar", "optical"])
def test_two_views_of_one_image_need_no_label(view: str) -> None:
    cfg = replace(FAR, views=view, swap_share=0.5)
    along_x, along_y = (draw(tile, cfg, seed=5) for tile in ramps(LABEL))
    assert along_x.modalities == (view, view)
    # SAR tiles show x or y, the optical ones both
    at, seen = (
        torch.cat([first, second], dim=1) if view == "sar" else first[:, :2]
        for first, second in ((along_x.reference, along_y.reference), (along_x.moving, along_y.moving))
    )
    y, x = torch.meshgrid(torch.arange(float(CROP)), torch.arange(float(CROP)), indexing="ij")
    places = apply(along_x.truth, torch.stack([x, y])[None].expand(COUNT, -1, -1, -1))
    # the moving image, read where the truth leads, shows the same ground: the label of the pair plays no part
    grid = (2 * places / (CROP - 1) - 1).permute(0, 2, 3, 1).float()
    inside = ((places > 1) & (places < CROP - 2)).all(1)
    shown = F.grid_sample(seen, grid, align_corners=True)
    error = (shown - at).abs().amax(1)[inside]
    assert inside.float().mean() > 0.4
    assert error.max() < 1.0  # grey values are whole tile coordinates


def test_a_view_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="views"):
        load_config(None, ["data.draw.views=map"])
