"""The synthetic generator: reproducible, physically consistent, and aligned to a fraction of a pixel."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from somareg.config import from_mapping, to_mapping
from somareg.errors import InputError
from somareg.features.orientation import OrientationCfg, orientation_channels, smooth
from somareg.lab.data.synthetic import SyntheticCfg, SyntheticSource
from somareg.lab.data.synthetic.canvas import SceneCfg
from somareg.lab.data.synthetic.draws import Draws
from somareg.lab.data.synthetic.materials import FIRST_LABEL, KINDS, draw_materials
from somareg.lab.data.synthetic.noise import blur, fractal, move, top_share
from somareg.lab.data.synthetic.optical import OpticalCfg
from somareg.lab.data.synthetic.radar import Echo, RadarCfg, RadarView, backscatter
from somareg.lab.data.synthetic.relief import Buildings, double_bounce, fold_roofs, shadow, slope_gain, stand, sun_gain
from somareg.lab.data.synthetic.scenes import build_scene
from somareg.lab.data.synthetic.shapes import grid, parcels, rotate, seeded_cells, subdivide
from somareg.lab.data.synthetic.speckle import decibel, from_decibel, gamma_speckle, k_speckle, to_bytes
from somareg.lab.data.tiles import TileSet
from somareg.matching.windows import WindowCfg, correlate_all

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(count: int = 1, seed: int = 0) -> Draws:
    return Draws(seeded(seed), count, CPU)


@pytest.fixture(scope="module")
def tiles() -> TileSet:
    return SyntheticSource().scenes(24, 160, seeded(7))


# ---------------------------------------------------------------- the source


def test_scenes_are_tiles_with_identity_labels(tiles: TileSet) -> None:
    assert tiles.sar.shape == (24, 160, 160) and tiles.sar.dtype == torch.uint8
    assert tiles.optical.shape == (24, 3, 160, 160) and tiles.optical.dtype == torch.uint8
    assert bool(tiles.valid.all())
    torch.testing.assert_close(tiles.label, torch.eye(2, 3).expand(24, 2, 3))
    assert len(set(tiles.name)) == len(set(tiles.group)) == 24
    # Grey levels as in Sentinel-1 and Sentinel-2 tiles: neither flat nor saturated.
    for image in (tiles.sar, tiles.optical):
        means, deviations = image.float().flatten(1).mean(1), image.float().flatten(1).std(1)
        assert 80 < means.mean() < 160 and 15 < deviations.mean() < 60
        assert float(((image == 0) | (image == 255)).float().mean()) < 0.1


def test_a_seed_gives_the_same_scenes_and_another_seed_others() -> None:
    first, again, other = (SyntheticSource().scenes(3, 64, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.sar, again.sar) and torch.equal(first.optical, again.optical)
    assert first.name == again.name and not set(first.name) & set(other.name)
    assert not torch.equal(first.sar, other.sar)
    assert not torch.equal(first.sar[0], first.sar[1])


def test_one_generator_never_repeats_itself() -> None:
    generator, source = seeded(), SyntheticSource()
    first, second = source.scenes(1, 48, generator), source.scenes(1, 48, generator)
    assert not torch.equal(first.sar, second.sar) and first.name != second.name


@pytest.mark.parametrize("size", [32, 75, 130])
def test_any_size(size: int) -> None:
    tiles = SyntheticSource().scenes(1, size, seeded(), "cpu")
    assert tiles.sar.shape[-1] == tiles.optical.shape[-1] == size


def test_a_processor_generator_drives_another_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    runs = [SyntheticSource().scenes(3, 96, seeded(5), "cuda") for _ in range(2)]
    assert runs[0].sar.device.type == runs[0].label.device.type == "cuda"
    assert torch.equal(runs[0].sar, runs[1].sar) and torch.equal(runs[0].optical, runs[1].optical)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(InputError, match="at least 32"):
        SyntheticSource().scenes(1, 31, seeded())
    with pytest.raises(InputError, match="at least 1"):
        SyntheticSource().scenes(0, 64, seeded())


def test_settings_survive_a_file() -> None:
    cfg = SyntheticCfg(scene=SceneCfg(towns=0.9), contrast=(0.7, 0.8))
    assert from_mapping(SyntheticCfg, to_mapping(cfg)) == cfg


# ---------------------------------------------------------------- every setting has its effect


def clear(**changes: Any) -> SyntheticCfg:
    """Scenes without what the settings can add, and the changes: `optical={"haze": 1.0}`."""
    parts = {
        "scene": {"hidden": 0.0, "towns": 0.0, "hills": 0.0, "halls": 0},
        "optical": {"haze": 0.0, "clouds": 0.0},
        "radar": {"looks": [8.0, 8.0], "k_share": 0.0},
        "contrast": [1.0, 1.0],
    }
    return from_mapping(SyntheticCfg, {**parts, **{name: {**parts[name], **own} for name, own in changes.items()}})


def rendered(cfg: SyntheticCfg) -> tuple[Tensor, Tensor]:
    """SAR (8, 96, 96) and optical (8, 96, 96) grey levels of the same draws."""
    tiles = SyntheticSource(cfg).scenes(8, 96, seeded(11))
    return tiles.sar.float(), tiles.optical.float().mean(1)


def test_weather_is_seen_by_the_optical_image_only() -> None:
    plain_sar, plain = rendered(clear())
    for weather in ("haze", "clouds"):
        sar, optical = rendered(clear(optical={weather: 1.0}))
        assert torch.equal(sar, plain_sar), weather
        assert float((optical - plain).abs().mean()) > 0.5, weather


def test_speckle_follows_looks_and_distribution() -> None:
    plain, few = (rendered(clear(radar={"looks": [looks, looks]}))[0] for looks in (8.0, 1.0))

    def noise(image: Tensor) -> float:
        return float((image - smooth(image[:, None], 2.0)[:, 0]).std())

    assert noise(few) > 1.5 * noise(plain)
    assert noise(rendered(clear(radar={"k_share": 1.0}))[0]) > 1.1 * noise(plain)


def test_towns_halls_and_hills_change_the_ground() -> None:
    def ground(**scene: Any) -> Any:
        return build_scene(draws(8, 4), 96, clear(scene=scene).scene)

    assert float(ground().layover.max()) == 0.0
    for kind in ({"towns": 1.0}, {"halls": 6}):
        built = ground(**kind)
        assert float((built.layover > 0).float().mean()) > 0.005, kind
    flat, hilly = (ground(hills=hills).terrain for hills in (0.0, 1.0))
    assert hilly.diff(dim=-1).square().mean().sqrt() > 5 * flat.diff(dim=-1).square().mean().sqrt()


def test_contrast_widens_the_looks_within_a_kind() -> None:
    first, count = FIRST_LABEL["field"], KINDS["field"].labels
    low, high = (
        draw_materials(draws(200), (factor, factor)).backscatter[:, first : first + count].std(1).mean()
        for factor in (0.5, 1.2)
    )
    assert float(high / low) == pytest.approx(1.2 / 0.5, rel=1e-3)


# ---------------------------------------------------------------- both images show one ground


def _surface(sar: Tensor, optical: Tensor, margin: int, scale: float = 1.6) -> Tensor:
    """Correlation of the optical image's orientation channels, as one window, in the SAR image's: (2m+1, 2m+1)."""
    cfg = OrientationCfg(scales=((scale, scale),), stride=1)
    reference, moving = ((x - x.mean()) / x.std() for x in (optical.float().mean(0), sar.float()))
    mask = torch.ones(1, 1, *sar.shape)
    inner = slice(margin, -margin)
    a, valid = orientation_channels(reference[None, None], mask, cfg)
    b, _ = orientation_channels(moving[None, None], mask, cfg)
    size = sar.shape[-1] - 2 * margin
    surface = correlate_all(
        a[..., inner, inner].contiguous(),
        valid[..., inner, inner],
        b,
        valid,
        WindowCfg(size=size, margin=margin, stride=size),
    )[0]
    return surface.surfaces[0]


def test_edges_agree_at_zero_shift_far_above_any_other(tiles: TileSet) -> None:
    margin = 10
    surfaces = torch.stack([_surface(s, o, margin) for s, o in zip(tiles.sar, tiles.optical, strict=True)])
    centre = surfaces[:, margin, margin]
    away = torch.ones(2 * margin + 1, 2 * margin + 1, dtype=torch.bool)
    away[margin - 5 : margin + 6, margin - 5 : margin + 6] = False
    others = surfaces[:, away]
    score = (centre - others.mean(1)) / others.std(1)
    assert score.median() > 4.0 and (score > 2.5).float().mean() > 0.7


def test_ground_is_aligned_to_a_tenth_of_a_pixel() -> None:
    # Without what legitimately differs between the images: relief, buildings, weather, strong noise.
    cfg = SyntheticCfg(
        scene=SceneCfg(towns=0.0, halls=0, hills=0.0, hidden=0.0),
        optical=OpticalCfg(clouds=0.0, haze=0.0),
        radar=RadarCfg(looks=(50.0, 60.0), k_share=0.0),
        contrast=(1.0, 1.2),
    )
    tiles, m = SyntheticSource(cfg).scenes(24, 128, seeded(2)), 2
    mean = torch.stack([_surface(s, o, m, 1.0) for s, o in zip(tiles.sar, tiles.optical, strict=True)]).mean(0)
    for line in (mean[m, m - 1 : m + 2], mean[m - 1 : m + 2, m]):
        low, mid, high = line.tolist()
        assert mid > max(low, high)
        assert abs((high - low) / (2 * (2 * mid - low - high))) < 0.1


def test_contrast_keeps_its_sign_in_some_scenes_and_inverts_in_others(tiles: TileSet) -> None:
    grey = smooth(tiles.optical.float().mean(1, keepdim=True), 2.0).flatten(1)
    sar = smooth(tiles.sar.float()[:, None], 2.0).flatten(1)
    grey, sar = grey - grey.mean(1, keepdim=True), sar - sar.mean(1, keepdim=True)
    agreement = (grey * sar).mean(1) / (grey.std(1) * sar.std(1))
    assert (agreement > 0.05).float().mean() > 0.2 and (agreement < -0.05).float().mean() > 0.2


def test_looks_of_a_label_are_independent_between_modalities() -> None:
    table = draw_materials(draws(400))
    first, count = FIRST_LABEL["field"], KINDS["field"].labels
    optical = table.colour.mean(1)[:, first : first + count].diff(dim=1)
    radar = table.backscatter[:, first : first + count].diff(dim=1)
    assert abs(float(((optical * radar) < 0).float().mean()) - 0.5) < 0.03


def test_a_hidden_layer_is_missing_from_one_modality_only() -> None:
    cfg = SceneCfg(towns=0.0, halls=0)
    plain = build_scene(draws(4, 3), 64, replace(cfg, hidden=0.0))
    assert torch.equal(plain.label, plain.optical_label) and torch.equal(plain.label, plain.radar_label)
    split = build_scene(draws(4, 3), 64, replace(cfg, hidden=1.0))
    by_eye, by_radar = split.label == split.optical_label, split.label == split.radar_label
    assert bool((by_eye | by_radar).all()) and not bool(by_eye.all()) and not bool(by_radar.all())


def test_roofs_are_painted_for_the_eye_and_stand_up_for_the_radar() -> None:
    scene = build_scene(draws(6, 1), 96, SceneCfg(towns=1.0, hills=0.0, hidden=0.0))
    roof = scene.label >= FIRST_LABEL["roof"]
    assert torch.equal(roof, scene.layover > 0) and 0.02 < float(roof.float().mean()) < 0.6
    assert torch.equal(scene.optical_label, scene.label)
    assert not bool((scene.radar_label >= FIRST_LABEL["roof"]).any())
    assert float(scene.layover.max()) <= 6.0


# ---------------------------------------------------------------- speckle


@pytest.mark.parametrize("looks", [1.0, 3.5, 10.0])
def test_gamma_speckle_has_mean_one_and_variance_one_over_looks(looks: float) -> None:
    sample = gamma_speckle(draws(2), torch.full((2,), looks), 400)
    assert float(sample.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(sample.var()) == pytest.approx(1.0 / looks, rel=0.03)


def test_k_speckle_has_its_moments_and_a_heavier_tail() -> None:
    two = torch.full((2,), 2.0)
    sample = k_speckle(draws(2), two, two, 500)
    variance = (1 + 1 / 2) * (1 + 1 / 2) - 1
    assert float(sample.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(sample.var()) == pytest.approx(variance, rel=0.04)
    gamma = gamma_speckle(draws(2, 1), torch.full((2,), 1 / variance), 500)  # the same mean and variance
    assert float((sample > 8).float().mean()) > 1.5 * float((gamma > 8).float().mean()) > 0
    assert float(sample.pow(3).mean()) == pytest.approx((1.5 * 2) ** 2, rel=0.1)
    assert float(sample.pow(3).mean()) > 1.05 * float(gamma.pow(3).mean())


def test_blur_correlates_speckle_as_a_gaussian_does() -> None:
    sigma = torch.tensor([0.7, 1.0])
    field = blur(draws(2).normal(1, 400, 400), sigma)[:, 0]
    step = (field[..., 1:] * field[..., :-1]).mean((1, 2)) / field.var((1, 2))
    torch.testing.assert_close(step, torch.exp(-1 / (4 * sigma**2)), atol=0.02, rtol=0)
    flat = blur(torch.full((2, 1, 9, 9), 3.0), sigma)
    torch.testing.assert_close(flat, torch.full_like(flat, 3.0))


def test_decibels_and_bytes() -> None:
    level = torch.tensor([-20.0, 0.0, 13.0])
    torch.testing.assert_close(decibel(from_decibel(level)), level)
    image = to_bytes(torch.tensor([[[-1.0, 1.0], [-40.0, 40.0]]]), torch.tensor([100.0]), torch.tensor([10.0]))
    assert image.tolist() == [[[90, 110], [0, 255]]]


# ---------------------------------------------------------------- what stands up


def block(size: int = 48, layover: float = 3.0, first: int = 18, last: int = 30) -> Buildings:
    """One square building with a radar incidence of 40 degrees."""
    field = torch.zeros(1, size, size)
    field[:, first:last, first:last] = layover
    return stand(field, size, torch.tensor([math.radians(40)]))


def power(buildings: Buildings, heading: float) -> Tensor:
    shape = buildings.cover.shape
    one = torch.ones(shape)
    echo = Echo(one, 2 * one, torch.full((1, 1, 1), 4.0), torch.full((1, 1, 1), 30.0))
    view = RadarView(torch.tensor([heading]), torch.tensor([math.radians(40)]))
    return backscatter(echo, torch.zeros(shape), buildings, view)[0]


def test_a_building_folds_towards_the_radar_and_shadows_away_from_it() -> None:
    line = power(block(), 0.0)[24]  # the beam travels along +x and meets columns 18 to 29
    assert torch.allclose(line[:14], torch.ones(14)) and torch.allclose(line[36:], torch.ones(12))
    assert bool((line[15:18] > 4.0).all())  # wall, roof and ground folded over three pixels in front
    assert float(line[17]) > 15.0  # the corner of wall and ground
    assert torch.allclose(line[19:26], torch.full((7,), 2.0))  # the rest of the roof, three pixels nearer
    # From the roof's displaced far edge to the shadow's end nothing comes back; height = 3 tan 40, shadow = h tan 40.
    reach = 3.0 * math.tan(math.radians(40)) ** 2
    dark = float((1.0 - line[27:40]).clamp(0, 1).sum())
    assert dark == pytest.approx(3.0 + reach, abs=0.6)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_quarter_turn_of_the_heading_turns_the_picture(quarter: int) -> None:
    straight, turned = power(block(), 0.0), power(block(), quarter * math.pi / 2)
    # torch.rot90 turns +x into -y; the image's y points down, so a heading from +x towards +y is a turn by -90 degrees.
    torch.testing.assert_close(turned, torch.rot90(straight, -quarter), atol=2e-3, rtol=0)


@pytest.mark.parametrize("heading", [0.3, 1.9, 4.0])
def test_shadow_points_away_and_layover_towards_the_radar(heading: float) -> None:
    image = power(block(), heading)
    y, x = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(48.0) - 23.5, indexing="ij")
    along = x * math.cos(heading) + y * math.sin(heading)
    for weight, sign in (((1 - image).clamp_min(0), 1), ((image - 4).clamp_min(0), -1)):
        mean_x, mean_y = (float((weight * axis).sum() / weight.sum()) for axis in (x, y))
        assert sign * float((weight * along).sum() / weight.sum()) > 4.0
        off = math.atan2(sign * mean_y, sign * mean_x) - heading
        assert abs(math.remainder(off, 2 * math.pi)) < 0.35


def test_folding_conserves_the_roofs_power() -> None:
    buildings = block(layover=4.0)
    for heading in (0.0, 0.7, 2.5):
        folded = fold_roofs(buildings.cover, buildings.layover, torch.tensor([heading]))
        # A roof's edge is smeared by the interpolation, its interior moves as it is.
        assert float(folded.sum()) == pytest.approx(144.0, rel=0.12)
        y, x = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(48.0) - 23.5, indexing="ij")
        moved = [float((folded[0] * axis).sum() / folded.sum()) for axis in (x, y)]
        assert moved == pytest.approx([-4.0 * math.cos(heading), -4.0 * math.sin(heading)], abs=0.3)


def test_shadow_reaches_height_times_tangent() -> None:
    height = torch.zeros(1, 9, 60)
    height[:, :, 20] = 10.0
    for degrees in (20.0, 35.0, 50.0):
        dark = shadow(height, torch.tensor([0.0]), torch.tensor([math.radians(degrees)]))
        assert float(dark[0, 4, 21:].sum()) == pytest.approx(10 * math.tan(math.radians(degrees)), abs=0.6)
        assert float(dark[0, 4, :20].sum()) == 0.0


def test_double_bounce_sits_on_the_wall_that_faces_the_radar() -> None:
    bounce = double_bounce(block().cover, torch.tensor([0.0]))[0]
    assert float(bounce[24, 17]) == pytest.approx(1.0) and float(bounce[24, 25:].sum()) == 0.0
    skew = double_bounce(block().cover, torch.tensor([math.radians(40)]))[0]
    assert float(skew[24, 17]) < 0.25


def test_slopes_that_face_the_sensor_are_bright() -> None:
    ramp = torch.arange(40.0)[None, None].expand(1, 40, 40) * 0.2  # rises along +x
    middle, incidence = (0, 20, 20), torch.tensor([0.7])
    gains = [float(slope_gain(ramp, torch.tensor([a]), incidence)[middle]) for a in (0.0, math.pi / 2, math.pi)]
    assert gains[0] == pytest.approx(math.tan(0.7) / math.tan(0.7 - math.atan(0.2)), rel=1e-4)
    assert gains[1] == pytest.approx(1.0, rel=1e-4) and gains[2] < 0.8
    assert float(sun_gain(ramp, torch.tensor([0.0]), incidence)[middle]) > 1.0
    assert float(sun_gain(0 * ramp, torch.tensor([0.0]), incidence)[middle]) == 1.0


# ---------------------------------------------------------------- noise and shapes


def test_noise_is_standard_and_its_wavelength_counts() -> None:
    field = fractal(draws(3), 200, torch.tensor([100.0, 30.0, 8.0]), 0.8, finest=4.0)
    torch.testing.assert_close(field.mean((1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(field.std((1, 2)), torch.ones(3), atol=1e-3, rtol=0)
    near = (field[..., 6:] * field[..., :-6]).mean((1, 2))
    assert near[0] > near[1] + 0.05 and near[1] > near[2] + 0.2


def test_top_share_covers_the_share_it_promises() -> None:
    share = torch.tensor([0.0, 0.1, 0.5, 1.0])
    field = draws(4).normal(300, 300)
    torch.testing.assert_close(top_share(field, share).float().mean((1, 2)), share, atol=0.01, rtol=0)


def test_move_samples_at_the_offset() -> None:
    ramp = torch.arange(20.0)[None, None, None].expand(2, 1, 12, 20)
    moved = move(ramp, torch.tensor([1.5, -2.0]), torch.tensor([0.0, 3.0]))
    torch.testing.assert_close(moved[0, 0, 5, 2:18], ramp[0, 0, 5, 2:18] + 1.5)
    torch.testing.assert_close(moved[1, 0, 5, 2:18], ramp[1, 0, 5, 2:18] - 2.0)


def test_parcels_tile_the_plane_and_lots_tile_parcels() -> None:
    size, oversample = 64, 2
    x, y = grid(size, oversample, CPU)
    pieces = parcels(draws(2), *rotate(x, y, torch.zeros(2)), torch.tensor([20.0, 9.0]), torch.tensor([12.0, 7.0]))
    assert float(pieces.border.min()) >= 0.0
    # Within a parcel, a cell (half a pixel) to the right is half a pixel further from its left side.
    same = pieces.key[..., 1:] == pieces.key[..., :-1]
    torch.testing.assert_close(
        pieces.left.diff(dim=-1)[same], torch.tensor(0.5).expand(int(same.sum())), atol=1e-3, rtol=0
    )
    assert float(same.float().mean()) > 0.8
    lots = subdivide(pieces, torch.tensor([4.0, 4.0]), torch.tensor([4.0, 4.0]))
    assert bool((lots.left + lots.right <= pieces.left + pieces.right + 1e-3).all())
    count = (pieces.left + pieces.right) / (lots.left + lots.right)
    torch.testing.assert_close(count, count.round(), atol=1e-2, rtol=0)


def test_seeded_cells_have_the_size_asked_for() -> None:
    x, y = grid(160, 1, CPU)
    cells = seeded_cells(draws(), *rotate(x, y, torch.tensor([0.5])), torch.tensor([20.0]), torch.tensor([20.0]))
    assert len(cells.unique()) == pytest.approx(160 * 160 / 400, rel=0.35)
