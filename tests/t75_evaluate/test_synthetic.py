"""The synthetic generator: reproducible, physically consistent, and aligned to a fraction of a pixel."""

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
from somareg.lab.data.synthetic.materials import FIRST_LABEL, KINDS, draw_materials
from somareg.lab.data.synthetic.noise import fractal, move, top_share
from somareg.lab.data.synthetic.optical import OpticalCfg
from somareg.lab.data.synthetic.radar import RadarCfg
from somareg.lab.data.synthetic.scenes import build_scene
from somareg.lab.data.synthetic.shapes import grid, parcels, rotate, seeded_cells, subdivide
from somareg.lab.data.tiles import TileSet
from somareg.matching.windows import WindowCfg, correlate_all
from tests.t75_evaluate.synthetic_draws import CPU, draws, seeded


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
