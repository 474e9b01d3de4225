"""Labels of tiles measured again: a shift that was planted is found by all windows of a group together."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.lab.data.clean import CleanCfg, Shift, clean, common_shift, main, quarter_votes
from somareg.lab.data.tiles import TileSet
from somareg.matching.describe import OrientationFeatures
from tests.synthetic import Scene, pixel_points, speckled

SIDE = 128
SHIFT = (1.4, -0.9)
STRAIGHT = AffineTransform.from_parameters(shift=(2.0, -1.0))
TURNED = AffineTransform.from_parameters(rotation_deg=90, shift=(1.0, 3.0), centre=(63.5, 63.5))
FEATURES = OrientationFeatures(OrientationCfg())
CFG = CleanCfg()


def tile(
    seed: int,
    shift: tuple[float, float] = SHIFT,
    *,
    label: AffineTransform = STRAIGHT,
    group: str = "meadow",
    other_ground: bool = False,
    looks: float = 4.0,
) -> TileSet:
    """One tile whose true map is `label(x + shift)`, while its label says `label(x)`."""
    shape, rng = (SIDE, SIDE), np.random.default_rng(seed)
    scene, elsewhere = Scene(seed), Scene(seed + 500)
    truth = label.after(AffineTransform.from_parameters(shift=shift))
    optical = np.clip(scene.optical(pixel_points(shape), shape) / 0.8, 0, 1)
    ground = truth.inverse(pixel_points(shape))
    power = speckled((elsewhere if other_ground else scene).backscatter(ground, shape), looks, rng)
    decibel = 10 * np.log10(np.maximum(power, 1e-6))
    sar = np.clip((decibel + 30) / 35 * 255, 1, 255)
    return TileSet(
        torch.from_numpy(np.rint(sar).astype(np.uint8))[None],
        torch.from_numpy(np.rint(255 * optical).astype(np.uint8))[None],
        torch.ones(1, SIDE, SIDE, dtype=torch.bool),
        torch.tensor(label.matrix, dtype=torch.float32)[None],
        (group,),
        ("synthetic",),
        (f"tile-{group}-{seed}",),
    )


@pytest.fixture(scope="module")
def meadow() -> TileSet:
    """Three tiles of one place and one shift, though their labels differ."""
    return TileSet.concat([tile(0), tile(1, label=TURNED), tile(2)])


@pytest.fixture(scope="module")
def lost() -> TileSet:
    """SAR of other ground than the optical image."""
    return TileSet.concat([tile(seed, group="lost", other_ground=True) for seed in (3, 4)])


def off(shift: Shift | None, truth: tuple[float, float] = SHIFT) -> float:
    assert shift is not None
    return math.hypot(shift.xy[0] - truth[0], shift.xy[1] - truth[1])


# --- what is measured -------------------------------------------------------------------------------------------------


def test_a_planted_shift_is_measured_and_taken_out(meadow: TileSet) -> None:
    """In the frame of the optical image: the label of the second tile turns it by 90 degrees."""
    done: list[int] = []
    better, found = clean(meadow, FEATURES, CFG, done.append)
    assert done == [1, 2, 3]
    assert set(found) == {"meadow"}
    shift = found["meadow"]
    assert shift is not None
    assert off(shift) < 0.3
    assert shift.error_px < 0.3
    assert shift.height > 1.0
    x = np.array([[20.0, 30.0], [100.0, 70.0]])
    for before, after in zip(meadow.label, better.label, strict=True):
        old, new = (AffineTransform(label.double().numpy()) for label in (before, after))
        np.testing.assert_allclose(new.matrix[:, :2], old.matrix[:, :2])
        np.testing.assert_allclose(new(x), old(x + shift.xy), atol=1e-4)
        assert np.linalg.norm(new(x) - old(x + SHIFT), axis=1).max() < 0.3
    assert torch.equal(better.sar, meadow.sar)
    assert (better.name, better.group) == (meadow.name, meadow.group)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (-2.3, 1.2), (0.6, 2.4)])
def test_one_tile_by_itself(shift: tuple[float, float]) -> None:
    _, found = clean(tile(0, shift), FEATURES, replace(CFG, by="tile"))
    assert off(found["tile-meadow-0"], shift) < 0.3


def test_a_label_that_was_measured_needs_no_second_correction(meadow: TileSet) -> None:
    once, _ = clean(meadow, FEATURES, CFG)
    _, found = clean(once, FEATURES, CFG)
    assert off(found["meadow"], (0.0, 0.0)) < 0.2


def test_a_group_shares_what_its_tiles_say(meadow: TileSet) -> None:
    """The votes of the tiles add up; so the group is no worse than its worst tile."""
    parts = [quarter_votes(meadow, i, FEATURES, CFG) for i in range(3)]
    together = common_shift(sum(s for s, _ in parts), sum(c for _, c in parts), 2.0)  # type: ignore[arg-type]
    _, found = clean(meadow, FEATURES, CFG)
    group = found["meadow"]
    assert together is not None
    assert group is not None
    assert group.xy == pytest.approx(together.xy, abs=1e-4)
    _, each = clean(meadow, FEATURES, replace(CFG, by="tile"))
    assert sorted(each) == sorted(meadow.name)
    errors = [off(shift) for shift in each.values()]
    assert off(group) <= max(errors)


def test_groups_do_not_mix() -> None:
    tiles = TileSet.concat(
        [tile(0, (2.0, 0.0), group="a"), tile(0, (-1.0, 1.5), group="b"), tile(1, (2.0, 0.0), group="a")]
    )
    better, found = clean(tiles, FEATURES, CFG)
    assert off(found["a"], (2.0, 0.0)) < 0.3
    assert off(found["b"], (-1.0, 1.5)) < 0.3
    moved = (better.label - tiles.label)[:, :, 2]
    torch.testing.assert_close(moved[0], moved[2])
    assert (moved[0] - moved[1]).norm() > 2


# --- what cannot be measured ------------------------------------------------------------------------------------------


def test_without_common_ground_labels_stay_or_tiles_go(meadow: TileSet, lost: TileSet) -> None:
    tiles = TileSet.concat([lost.select([0]), meadow, lost.select([1])])
    kept, found = clean(tiles, FEATURES, CFG)
    assert found["lost"] is None or not CFG.takes(found["lost"])
    assert kept.name == tiles.name
    assert torch.equal(kept.label[[0, 4]], tiles.label[[0, 4]])
    assert not torch.equal(kept.label[1:4], tiles.label[1:4])
    dropped, _ = clean(tiles, FEATURES, replace(CFG, drop=True))
    assert dropped.name == meadow.name
    assert torch.equal(dropped.label, kept.label[1:4])


@pytest.mark.parametrize("seed", range(3, 8))
def test_one_tile_of_other_ground_is_not_taken(seed: int) -> None:
    stranger = tile(seed, other_ground=True)
    same, _ = clean(stranger, FEATURES, replace(CFG, by="tile"))
    assert torch.equal(same.label, stranger.label)


def test_invalid_ground_says_nothing() -> None:
    whole = tile(0)
    blank = replace(whole, valid=torch.zeros_like(whole.valid))
    same, found = clean(blank, FEATURES, CFG)
    assert found["meadow"] is None
    assert torch.equal(same.label, whole.label)


def test_a_shift_beyond_the_largest_is_measured_but_not_taken() -> None:
    far = tile(0, (4.0, -3.0))
    same, found = clean(far, FEATURES, CFG)
    assert off(found["meadow"], (4.0, -3.0)) < 0.4
    assert torch.equal(same.label, far.label)
    taken, _ = clean(far, FEATURES, replace(CFG, largest_px=6.0))
    assert not torch.equal(taken.label, far.label)


# --- the arithmetic of a common shift ---------------------------------------------------------------------------------


def hill(x: float, y: float, margin: int = 6, height: float = 3.0) -> Tensor:
    axis = torch.arange(-margin, margin + 1.0)
    away = (axis[None, :] - x).square() + (axis[:, None] - y).square()
    return height * torch.exp(-away / 8)


def test_equal_quarters_have_no_scatter() -> None:
    found = common_shift(torch.stack([hill(1.3, -0.6)] * 4) * 5, torch.full((4,), 5.0), 2.0)
    assert found is not None
    assert found.xy == pytest.approx((2.6, -1.2), abs=0.1)  # cells of 2 px
    assert (found.error_px, found.spread_px) == pytest.approx((0.0, 0.0), abs=1e-5)
    assert found.height == pytest.approx(3.0, rel=0.05)


def test_scatter_of_the_quarters_is_the_error_of_their_mean() -> None:
    """Quarters 1 cell of 2 px to the left, right, above and below: 2 px away each, by axis sqrt 2, of 4 quarters."""
    quarters = torch.stack([hill(1.0, 0.0), hill(-1.0, 0.0), hill(0.0, 1.0), hill(0.0, -1.0)])
    found = common_shift(quarters, torch.ones(4), 2.0)
    assert found is not None
    assert found.xy == pytest.approx((0.0, 0.0), abs=1e-4)
    assert found.spread_px == pytest.approx(2.0, rel=0.1)
    assert found.error_px == pytest.approx(found.spread_px / math.sqrt(2) / math.sqrt(3))
    assert not CFG.takes(found)


def test_one_quarter_alone_tells_no_error() -> None:
    sums, counts = torch.zeros(4, 13, 13), torch.tensor([0.0, 0.0, 3.0, 0.0])
    sums[2] = hill(0.5, 0.5)
    found = common_shift(sums, counts, 2.0)
    assert found is not None
    assert found.error_px == math.inf
    assert not replace(CFG, precise_px=1e6).takes(found)


def test_a_hill_on_the_rim_is_none() -> None:
    assert common_shift(torch.stack([hill(6.0, 0.0)] * 4), torch.ones(4), 2.0) is None
    assert common_shift(torch.zeros(4, 13, 13), torch.zeros(4), 2.0) is None
    assert not CFG.takes(None)


def test_every_limit_counts() -> None:
    good = Shift((1.0, 1.0), 0.1, 0.5, 2.0)
    assert CFG.takes(good)
    for worse in (replace(good, xy=(2.5, 2.5)), replace(good, error_px=0.5), replace(good, spread_px=1.3)):
        assert not CFG.takes(worse)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match="--by is 'scene'; give group, pair, tile"):
        CleanCfg(by="scene")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_measured_tiles(
    meadow: TileSet, lost: TileSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TileSet.concat([meadow, lost]).save(tmp_path / "in" / "tiles-00000.safetensors")
    arguments = ["--tiles", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--drop"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "1 of 2 groups measured; 3 of 5 tiles" in out
    expected, _ = clean(meadow, FEATURES, CFG)
    written = TileSet.load(tmp_path / "out")
    assert written.name == meadow.name
    torch.testing.assert_close(written.label, expected.label)
    # A second run does not overwrite the first.
    before = (tmp_path / "out" / "tiles-00000.safetensors").read_bytes()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{tmp_path / 'out'} already holds tiles; give another folder" in error
    assert (tmp_path / "out" / "tiles-00000.safetensors").read_bytes() == before


def test_limits_of_the_command_are_those_of_the_settings(
    meadow: TileSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meadow.save(tmp_path / "in" / "tiles-00000.safetensors")
    common = ["--tiles", str(tmp_path / "in"), "--out"]
    assert main([*common, str(tmp_path / "tight"), "--precise", "1e-6"]) == 0
    assert "0 of 1 groups measured; 3 of 3 tiles" in capsys.readouterr().out
    assert torch.equal(TileSet.load(tmp_path / "tight").label, meadow.label)
    assert main([*common, str(tmp_path / "single"), "--by", "tile"]) == 0
    assert "of 3 tiles measured" in capsys.readouterr().out


def test_a_folder_without_tiles_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiles", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_two_dates_of_one_place_have_a_shift_each() -> None:
    """Tiles of one pair share it; pairs of one group do not."""
    parts = [tile(0, (2.0, 0.0)), tile(1, (2.0, 0.0)), tile(2, (-1.0, 1.5))]
    names = ("meadow/before.png@0,0", "meadow/before.png@128,0", "meadow/after.png@0,0")
    tiles = replace(TileSet.concat(parts), name=names)
    _, found = clean(tiles, FEATURES, replace(CFG, by="pair"))
    assert set(found) == {"meadow/before.png", "meadow/after.png"}
    assert off(found["meadow/before.png"], (2.0, 0.0)) < 0.3
    assert off(found["meadow/after.png"], (-1.0, 1.5)) < 0.3
