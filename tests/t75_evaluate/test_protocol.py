import json
import math
from dataclasses import replace

import numpy as np
import pytest

from somareg.errors import ConfigError, InputError
from somareg.geometry import AffineTransform
from somareg.lab.data.pairs import load_pair
from somareg.lab.evaluate.list_file import committed_list, dump_list, parse_list
from somareg.lab.evaluate.protocol import LEVELS, SETS, load_sample
from somareg.lab.evaluate.sampling import draw_affine, make_list

COMMITTED = [("sih", "test"), ("sih", "val"), ("ombria", "test"), ("ombria", "val"), ("sen12", "test"), ("vhr", "val")]


def test_a_list_is_the_same_twice_and_differs_by_seed(data_dir, info):
    first = dump_list(make_list(data_dir, info, "test", seed=3))
    assert first == dump_list(make_list(data_dir, info, "test", seed=3))
    assert first != dump_list(make_list(data_dir, info, "test", seed=4))


def test_a_list_survives_its_file(data_dir, info):
    text = dump_list(make_list(data_dir, info, "test"))
    assert dump_list(parse_list(text)) == text
    assert max(len(str(v).split(".")[-1]) for row in json.loads(text)["samples"]["H"] for v in row[3:]) <= 6


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


def test_pixels_of_a_sample_are_those_of_the_true_scene(data_dir, info, truth):
    rows, cols = np.mgrid[: info.crop, : info.crop].astype(float)
    for level in ("m", "H", "R", "A"):
        for sample in make_list(data_dir, info, "test", levels=[level], count=4).samples[level]:
            phase = float(sample.pair.name[1])
            loaded = load_sample(data_dir, sample)
            x, y = sample.origin
            assert np.abs(loaded.reference[0] - truth(cols + x, rows + y, phase)).max() <= 0.51
            xy = AffineTransform(loaded.matrix).inverse(np.stack([cols.ravel(), rows.ravel()], axis=-1))
            expected = truth(xy[:, 0] + x, xy[:, 1] + y, phase).reshape(rows.shape)
            # two roundings to 8 bits, the kernel's error on these waves, a little blur where the scene shrinks
            assert np.abs(loaded.moving - expected).mean() < 0.5
            assert np.abs(loaded.moving - expected).max() < 3.0


def test_samples_avoid_nodata(data_dir, info):
    lists = make_list(data_dir, info, "test", count=30)
    touched = [sample for rows in lists.samples.values() for sample in rows if sample.pair.name == "p1.png"]
    assert len(touched) >= 30
    for sample in touched:
        valid = load_pair(data_dir, sample.pair).valid
        assert not valid[:20, :20].any() and valid[100:, 100:].all()
        assert load_sample(data_dir, sample).moving.max() < 250  # no-data is 255, the scene ends at 220
        x, y = sample.origin
        assert valid[y : y + sample.crop, x : x + sample.crop].all()


def test_a_crop_larger_than_the_pairs_is_refused(data_dir, info):
    with pytest.raises(InputError, match="no pair of set 'mini' holds a border-free 400 px crop"):
        make_list(data_dir, replace(info, crop=400), "test", levels=["m"])


@pytest.mark.parametrize(("name", "split"), COMMITTED)
def test_committed_samples_are_border_free_and_within_their_level(name, split):
    made = committed_list(name, split)
    assert (made.set, made.role, made.crop) == (name, SETS[name].roles[split], SETS[name].crop)
    middle = (made.crop - 1) / 2
    for level, samples in made.samples.items():
        assert len(samples) == SETS[name].count[split]
        for sample in samples:
            assert sample.fits(), f"{name} {split} {level} {sample.index}"
            corners = sample.corners_in_sar()  # independent of `fits`: the plain rule
            assert corners.min() >= 2 and (corners.max(axis=0) <= (sample.pair.width - 3, sample.pair.height - 3)).all()
            drawn = AffineTransform(sample.matrix).parameters((middle, middle))
            assert abs(drawn["rotation_deg"]) <= LEVELS[level].rotation_deg + 1e-3
            (wide, high), of_level = drawn["scale"], LEVELS[level]
            assert of_level.scale[0] - 1e-5 <= math.sqrt(wide * high) <= of_level.scale[1] + 1e-5
            assert of_level.aspect[0] - 1e-5 <= wide / high <= of_level.aspect[1] + 1e-5
            assert abs(math.tan(math.radians(drawn["shear_deg"]))) <= of_level.shear + 1e-5
    assert list(made.samples) == list(LEVELS)
    assert all(made.rejected[level].keys() == {"size", "nodata"} for level in LEVELS)


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


def test_a_broken_list_is_named():
    with pytest.raises(InputError, match=r"my.json is not a list"):
        parse_list("{}", "my.json")
    with pytest.raises(InputError, match="protocol 99"):
        parse_list('{"protocol": 99}', "my.json")
