import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from somareg.errors import ConfigError, InputError
from somareg.geometry import AffineTransform
from somareg.lab.data.pairs import load_pair
from somareg.lab.evaluate.list_file import committed_list, dump_list, list_name, parse_list, set_lists
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.protocol import (
    AFFINE_LEVELS,
    LEVELS,
    SETS,
    WARP_LENGTHS_PX,
    WARP_PX,
    WARPED_LEVELS,
    SetInfo,
    asked_levels,
)
from somareg.lab.evaluate.sample import load_sample
from somareg.lab.evaluate.sampling import draw_affine, make_list

COMMITTED = [
    (info, split) for infos in SETS.values() for info in infos for split in ("test", "val") if split in info.roles
]
UNCHANGED = {  # of the samples that were drawn before there was level N, as JSON
    "sih-test": "ad5908a13b014bb0",
    "sih-val": "d9ff12542af26b3c",
    "ombria-test": "6a1bfdf886151e7d",
    "ombria-val": "eb0dcd90e280cadc",
    "sen12-test": "3ea722945d70ca3c",
    "vhr-val": "a021194c8c3ca1f9",
}


@pytest.fixture
def wide(info):
    """Crops in which warps of 120 px correlation length are not too steep."""
    return replace(info, crop=128)


def committed(info, split):
    return next(made for made in set_lists("no-data-needed", info.name, split) if made.role == info.roles[split])


def committed_text(info, split):
    return dump_list(committed(info, split))


def test_a_list_is_the_same_twice_and_differs_by_seed(data_dir, wide):
    first, again, other = (
        dump_list(make_list(data_dir, wide, "test", levels=tuple(LEVELS), seed=seed)) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_a_list_survives_its_file(data_dir, wide):
    text = dump_list(make_list(data_dir, wide, "test", levels=["H", "N2"]))
    assert dump_list(parse_list(text)) == text
    rows = json.loads(text)["samples"]
    assert max(len(str(v).split(".")[-1]) for row in rows["H"] for v in row[3:]) <= 6
    assert {len(row) for row in rows["H"]} == {9} and {len(row) for row in rows["N2"]} == {12}


def test_a_list_cycles_through_all_pairs(data_dir, info):
    samples = make_list(data_dir, info, "test", levels=["m"], count=6).samples["m"]
    assert [sample.index for sample in samples] == list(range(6))
    assert sorted(sample.pair.name for sample in samples[:3]) == ["p0.png", "p1.png", "p2.png"]


@pytest.mark.parametrize("name", LEVELS)
def test_drawn_affines_keep_the_levels_ranges(name):
    level, crop, rng = LEVELS[name], 160, np.random.default_rng(0)
    middle = (crop - 1) / 2
    drawn = [AffineTransform(draw_affine(level, crop, rng)).parameters((middle, middle)) for _ in range(400)]
    rotation = np.array([p["rotation_deg"] for p in drawn])
    scale = np.array([p["scale"] for p in drawn])
    shift = np.array([p["shift"] for p in drawn])
    assert 0.9 * level.rotation_deg < np.abs(rotation).max() <= level.rotation_deg + 1e-3
    aspect, size = scale[:, 0] / scale[:, 1], np.sqrt(scale.prod(axis=1))
    lean = np.tan(np.deg2rad([p["shear_deg"] for p in drawn]))
    for values, (low, high) in ((size, level.scale), (aspect, level.aspect), (lean, (-level.shear, level.shear))):
        assert low - 1e-5 <= values.min() and values.max() <= high + 1e-5
        assert np.ptp(values) >= 0.9 * (high - low)
    assert 0.9 * level.shift * crop < np.abs(shift).max() <= level.shift * crop + 1e-3


@pytest.mark.parametrize("level", ["m", "H", "R", "A", "N0.5", "N4"])
def test_pixels_of_a_sample_are_those_of_the_true_scene(level, data_dir, wide, truth):
    rows, cols = np.mgrid[: wide.crop, : wide.crop].astype(float)
    for sample in make_list(data_dir, wide, "test", levels=[level], count=4).samples[level]:
        phase = float(sample.pair.name[1])
        loaded = load_sample(data_dir, sample)
        x, y = sample.origin
        assert np.abs(loaded.reference[0] - truth(cols + x, rows + y, phase)).max() <= 0.51
        xy = AffineTransform(loaded.matrix).inverse(np.stack([cols.ravel(), rows.ravel()], axis=-1))
        if sample.warp is not None:
            xy = sample.warp.inverse(xy)
        expected = truth(xy[:, 0] + x, xy[:, 1] + y, phase).reshape(rows.shape)
        # two roundings to 8 bits, the kernel's error on these waves, a little blur where the scene shrinks
        assert np.abs(loaded.moving - expected).mean() < 0.5
        assert np.abs(loaded.moving - expected).max() < 3.0


def test_the_truth_of_a_warped_sample_finds_the_same_ground(data_dir, wide, truth):
    """`truth()` goes from reference to moving, `load_sample` the other way: both must tell one story."""
    rows, cols = np.mgrid[: wide.crop, : wide.crop].astype(float)
    for sample in make_list(data_dir, wide, "test", levels=["N4"], count=4).samples["N4"]:
        loaded, shape = load_sample(data_dir, sample), (wide.crop, wide.crop)
        there = np.stack([cols, rows]) + loaded.truth()
        inside = (there > 1).all(axis=0) & (there < wide.crop - 2).all(axis=0)
        x, y = np.rint(there[:, inside]).astype(int)
        back = sample.warp.inverse(AffineTransform(loaded.matrix).inverse(np.stack([x, y], axis=-1).astype(float)))
        seen = truth(back[:, 0] + sample.origin[0], back[:, 1] + sample.origin[1], float(sample.pair.name[1]))
        assert np.abs(loaded.moving[y, x] - seen).max() < 3.0
        away = np.hypot(back[:, 0] - cols[inside], back[:, 1] - rows[inside])
        assert away.max() < 1.2  # the rounding to a pixel, seen through slopes of at most a half
        assert rmse(point_errors(loaded.truth().astype(np.float32), loaded.truth(), shape)) < 1e-4
        affine_alone = AffineTransform(loaded.matrix)
        points = np.stack([cols, rows], axis=-1).reshape(-1, 2)
        still = (affine_alone(points) - points).T.reshape(2, *shape).astype(np.float32)
        assert 3.0 < rmse(point_errors(still, loaded.truth(), shape)) < 5.0  # 4 px over the whole crop


def test_strengths_of_level_n_share_places_affines_and_warps(data_dir, wide):
    made = make_list(data_dir, wide, "test", levels=["m", *WARPED_LEVELS], count=4).samples
    alike = [
        [(s.pair, s.origin, s.matrix.tolist(), s.warp.seed, s.warp.length_px) for s in made[n]] for n in WARPED_LEVELS
    ]
    assert all(each == alike[0] for each in alike)
    assert [made[name][0].warp.rms_px for name in WARPED_LEVELS] == list(WARP_PX)
    assert [sample.warp.length_px for sample in made["N1"]] == [*WARP_LENGTHS_PX] * 2
    assert len({sample.warp.seed for sample in made["N1"]}) == 4
    assert all(sample.warp is None for sample in made["m"])


def test_warps_too_steep_for_the_crop_are_told(data_dir, info):
    with pytest.raises(InputError, match="'N4': warps are too steep for 24 px crops"):
        make_list(data_dir, replace(info, crop=24), "test", levels=["N4"])


def test_samples_avoid_nodata(data_dir, wide):
    lists = make_list(data_dir, wide, "test", count=20, levels=[*AFFINE_LEVELS, "N4"])
    touched = [sample for rows in lists.samples.values() for sample in rows if sample.pair.name == "p1.png"]
    assert len(touched) >= 30 and any(sample.warp for sample in touched)
    for sample in touched:
        valid = load_pair(data_dir, sample.pair).valid
        assert not valid[:20, :20].any() and valid[100:, 100:].all()
        assert load_sample(data_dir, sample).moving.max() < 250  # no-data is 255, the scene ends at 220
        x, y = sample.origin
        assert valid[y : y + sample.crop, x : x + sample.crop].all()


def test_a_crop_larger_than_the_pairs_is_refused(data_dir, info):
    with pytest.raises(InputError, match="no pair of set 'mini' holds a border-free 400 px crop"):
        make_list(data_dir, replace(info, crop=400), "test", levels=["m"])


def test_level_n_has_a_fifth_of_the_samples_and_thirty_at_least():
    info = SetInfo("x", 160, "", 1.0, {"val": "val"}, {"val": 200})
    counts = [replace(info, count={"val": count}).count_of("N1", "val") for count in (200, 132, 20)]
    assert (info.count_of("m", "val"), *counts) == (200, 40, 30, 20)
    assert replace(info, quoted_from=None).count_of("N1", "val") == 0


@pytest.mark.parametrize(
    ("info", "split"), COMMITTED, ids=lambda v: f"{v.name}-{v.roles}" if isinstance(v, SetInfo) else v
)
def test_committed_samples_are_border_free_and_within_their_level(info, split):
    made = committed(info, split)
    assert (made.set, made.role, made.crop) == (info.name, info.roles[split], info.crop)
    assert (made.residual, made.quoted_from) == (info.residual, info.quoted_from)
    middle = (made.crop - 1) / 2
    for level, samples in made.samples.items():
        assert len(samples) == info.count_of(level, split)
        for sample in samples:
            assert sample.fits(), f"{info.name} {split} {level} {sample.index}"
            outline = sample.outline_in_sar()  # independent of `fits`: the plain rule
            assert outline.min() >= 2 and (outline.max(axis=0) <= (sample.pair.width - 3, sample.pair.height - 3)).all()
            drawn = AffineTransform(sample.matrix).parameters((middle, middle))
            assert abs(drawn["rotation_deg"]) <= LEVELS[level].rotation_deg + 1e-3
            (wide, high), of_level = drawn["scale"], LEVELS[level]
            assert of_level.scale[0] - 1e-5 <= math.sqrt(wide * high) <= of_level.scale[1] + 1e-5
            assert of_level.aspect[0] - 1e-5 <= wide / high <= of_level.aspect[1] + 1e-5
            assert abs(math.tan(math.radians(drawn["shear_deg"]))) <= of_level.shear + 1e-5
            if of_level.warp_px:
                assert (sample.warp.rms_px, sample.warp.crop) == (of_level.warp_px, made.crop)
                assert level != "N4" or sample.warp.slope() <= 0.5
            else:
                assert sample.warp is None
    expected = LEVELS if info.quoted_from is not None else AFFINE_LEVELS
    assert list(made.samples) == list(expected)
    for level in expected:
        assert made.rejected[level].keys() == {"size", "nodata", *(["steep"] if level in WARPED_LEVELS else [])}


@pytest.mark.parametrize("name", UNCHANGED)
def test_samples_of_earlier_levels_are_what_they_were(name):
    info, split = next((i, s) for i, s in COMMITTED if list_name(i, s) == f"{name}.json")
    raw = json.loads(committed_text(info, split))
    told = json.dumps([raw["pairs"], [raw["samples"][level] for level in AFFINE_LEVELS]])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == UNCHANGED[name]


def test_a_sample_that_leaves_the_image_does_not_fit():
    sample = committed_list("ombria", "test").samples["E"][0]
    assert not replace(sample, origin=(sample.pair.width - sample.crop, 0)).fits()
    assert not replace(sample, origin=(-1, 40)).fits()


def test_test_pairs_never_serve_as_val():
    with pytest.raises(ConfigError, match="only test pairs"):
        committed_list("sen12", "val")
    assert committed_list("vhr", "test").role == "val-vhr"
    with pytest.raises(ConfigError, match="Did you mean 'ombria'"):
        committed_list("ombrya", "test")
    tests = {s.pair.group for s in committed_list("ombria", "test").samples["m"]}
    assert tests.isdisjoint(s.pair.group for s in committed_list("ombria", "val").samples["m"])


def test_a_set_with_several_roles_has_a_list_for_each():
    lists = set_lists("no-data-needed", "multisensor", "val")
    assert [(made.role, made.quoted_from) for made in lists] == [("val", 1.0), ("val-3px", 3.0), ("unlabelled", None)]
    names = [{s.pair.name for rows in made.samples.values() for s in rows} for made in lists]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert [made.role for made in set_lists("no-data-needed", "multisensor", "test")] == [
        "val",
        "val-3px",
        "unlabelled",
    ]
    assert [list_name(info, "val") for info in SETS["vhrcity"]] == ["vhrcity-val.json", "vhrcity-val-3px.json"]
    assert list_name(SETS["vhrpublished"][0], "val") == "vhrpublished-val.json"
    with pytest.raises(ConfigError, match="Did you mean 'crossmodal'"):
        set_lists("no-data-needed", "crosmodal", "val")


def test_level_n_stands_for_all_its_strengths():
    assert asked_levels(["m", "N", "N2", "m"]) == ["m", "N0.5", "N1", "N1.5", "N2", "N4"]
    assert asked_levels(["N2", "whole"]) == ["N2", "whole"]
    with pytest.raises(ConfigError, match="unknown level 'N3'"):
        asked_levels(["N3"])


def test_a_broken_list_is_named():
    with pytest.raises(InputError, match=r"my.json is not a list"):
        parse_list("{}", "my.json")
    with pytest.raises(InputError, match="protocol 99"):
        parse_list('{"protocol": 99}', "my.json")
    raw = json.loads(committed_text(*COMMITTED[0]))
    raw["samples"]["N1"][0] = raw["samples"]["N1"][0][:-1]  # a warp without its seed
    with pytest.raises(InputError, match=r"my.json is not a list"):
        parse_list(json.dumps(raw), "my.json")
