"""Sets of whole pairs: a small one is drawn here, of sensors, sizes and frames that differ."""

import csv
import json

import cv2
import numpy as np
import pytest

from somareg.errors import ConfigError, InputError, ReadError
from somareg.geometry import AffineTransform
from somareg.lab.evaluate import whole_pair
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.peers.base import Prediction, affine_displacement
from somareg.lab.evaluate.run import evaluate
from somareg.lab.evaluate.table import COLUMNS, table
from somareg.lab.evaluate.whole import load_whole, read_whole
from somareg.lab.evaluate.whole_pair import KINDS, WORDS, WholePair, word

COLUMNS_OF_TABLE = (
    *("modality", "pair", "reference", "moving", "ref_width", "ref_height", "mov_width", "mov_height"),
    *("landmark_rms_px", *"abcdef", "black_frame_share"),
)
REFERENCE, MOVING = (150, 200), (160, 180)  # (H, W)
PAIRS = (  # modality, pair, floor, rotation, black share of the moving image's frame
    ("map_optical", "atlas_1", 1.31, 4.0, 0.0),
    ("map_optical", "hopc_map_2", 2.07, -3.0, 0.0),
    ("nir_visible_aerial", "flight_1", 0.0, 12.0, 0.4),
    ("depth_optical", "scan_1", 0.97, 0.0, 0.0),
)


def scene(x, y, phase):
    return 130 + 30 * (np.sin(x / 9 + phase) + np.cos(y / 7 - phase) + np.sin((x + 2 * y) / 23 + 2 * phase))


def backwards(rotation):
    """Moving pixels to reference pixels, as the table states it."""
    return AffineTransform.from_parameters(
        rotation_deg=rotation, scale=(1.05, 0.95), shift=(6.0, -4.0), centre=(90.0, 80.0)
    )


def write_set(folder, pairs=PAIRS, **changes):
    """`folder/crossmodal`: grey references, moving images in colour, framed where a share is given."""
    place = folder / "crossmodal"
    rows = []
    for i, (modality, name, floor, rotation, black) in enumerate(pairs):
        (place / modality).mkdir(parents=True, exist_ok=True)
        to_reference = backwards(rotation)
        rows_r, cols_r = np.mgrid[: REFERENCE[0], : REFERENCE[1]].astype(float)
        rows_m, cols_m = np.mgrid[: MOVING[0], : MOVING[1]].astype(float)
        xy = to_reference(np.stack([cols_m.ravel(), rows_m.ravel()], axis=-1)).T.reshape(2, *MOVING)
        reference = np.rint(scene(cols_r, rows_r, i)).astype(np.uint8)
        moving = np.rint(scene(*xy, i)).astype(np.uint8)
        if black:
            moving[cols_m < black * MOVING[1]] = 0
        files = [f"{modality}/{name}_{kind}.png" for kind in ("ref", "mov")]
        cv2.imwrite(str(place / files[0]), cv2.merge([reference] * 3))
        cv2.imwrite(str(place / files[1]), cv2.merge([moving // 2, moving // 2, moving]))  # B, G, R
        sizes = [REFERENCE[1], REFERENCE[0], MOVING[1], MOVING[0]]
        values = [modality, name, *files, *sizes, floor, *to_reference.matrix.ravel(), black]
        rows.append({**dict(zip(COLUMNS_OF_TABLE, values, strict=True)), **changes})
    with (place / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS_OF_TABLE)
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def whole_dir(tmp_path):
    return write_set(tmp_path / "data")


class Knows:
    """Answers from the list, in its order; one pair it gets wrong by some pixels."""

    def __init__(self, samples, wrong=None, off_px=4.0):
        self.name, self.samples, self.wrong, self.off_px, self.turn = "knows", samples, wrong, off_px, 0
        self.told = []

    def __call__(self, moving, reference, *, level, seed, known):
        sample = self.samples[self.turn]
        self.turn += 1
        self.told.append((level, known))
        matrix = sample.pair.matrix.copy()
        matrix[0, 2] += self.off_px * (sample.pair.name == self.wrong)
        return Prediction(affine_displacement(matrix, reference.shape), 0.9, "go", 0.5)


def test_pixels_and_truth_tell_one_story(whole_dir):
    for sample in read_whole(whole_dir, "crossmodal", "val").whole:
        loaded = load_whole(whole_dir, sample)
        assert loaded.reference.shape == REFERENCE and loaded.moving.shape == (3, *MOVING)
        assert (loaded.moving[0] // 2 == loaded.moving[1]).all()  # red first
        there = loaded.truth()
        rows, cols = np.mgrid[: REFERENCE[0], : REFERENCE[1]]
        x, y = np.rint(there[0] + cols).astype(int), np.rint(there[1] + rows).astype(int)
        inside = (x >= 0) & (x < MOVING[1]) & (y >= 0) & (y < MOVING[0])
        if loaded.known.moving_mask is not None:
            inside[inside] = loaded.known.moving_mask[y[inside], x[inside]]
        seen, expected = loaded.moving[0][y[inside], x[inside]], loaded.reference[inside]
        assert inside.mean() > 0.4
        assert np.abs(seen.astype(float) - expected).max() < 12  # a rounded position, on slopes below 13 a pixel


def test_a_list_takes_the_modalities_in_turns(whole_dir):
    made = read_whole(whole_dir, "crossmodal", "val")
    assert [sample.pair.name for sample in made.whole] == ["atlas_1", "flight_1", "scan_1", "hopc_map_2"]
    assert [sample.index for sample in made.whole] == [0, 1, 2, 3]
    assert (made.role, made.crop, made.samples) == ("val", None, {})


def test_thresholds_start_where_the_worst_truth_of_a_row_allows(whole_dir):
    made = read_whole(whole_dir, "crossmodal", "val")
    assert made.parts == {"depth_optical": 1.0, "map_optical": 3.0, "nir_visible_aerial": 0.5}
    assert made.quoted_from == 3.0


def test_a_truth_worse_than_all_thresholds_quotes_nothing(tmp_path):
    folder = write_set(tmp_path, [("map_optical", "old_1", 7.5, 0.0, 0.0), PAIRS[2]])
    made = read_whole(folder, "crossmodal", "val")
    assert (made.quoted_from, made.parts) == (None, {"map_optical": None, "nir_visible_aerial": 0.5})
    total, old, exact = evaluate(
        folder, ["crossmodal"], ["whole"], [Knows(made.whole)], out_dir=tmp_path / "out", lists=[made]
    )
    assert total["cmr"] is None and old["cmr"] is None and exact["cmr"]["0.5"] == 1.0
    assert total["go"] == 1.0


def test_total_and_modalities_have_rows_of_their_own(whole_dir, tmp_path):
    method = Knows(read_whole(whole_dir, "crossmodal", "val").whole, wrong="hopc_map_2")
    summaries = evaluate(whole_dir, ["crossmodal"], ["m", "whole"], [method], out_dir=tmp_path / "out")
    assert [(s.get("part"), s["n"], s["cmr"]["3"]) for s in summaries] == [
        (None, 4, 0.75),
        ("depth_optical", 1, 1.0),
        ("map_optical", 2, 0.5),
        ("nir_visible_aerial", 1, 1.0),
    ]
    assert [s["false_go"] for s in summaries] == [0.25, 0.0, 0.5, 0.0]
    content = json.loads((tmp_path / "out" / "knows.json").read_text())
    assert [r["modality"] for r in content["cells"][0]["records"]][:2] == ["map_optical", "nir_visible_aerial"]
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table(tmp_path / "out").splitlines()[2:6]]
    rows = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
    assert [row["set"] for row in rows] == [
        "crossmodal (val)",
        "crossmodal, depth_optical (val)",
        "crossmodal, map_optical (val)",
        "crossmodal, nir_visible_aerial (val)",
    ]
    assert [[row[f"CMR@{k}"] for k in ("0.5", "1", "2", "3")] for row in rows] == [
        ["–", "–", "–", "75"],
        ["–", "100", "100", "100"],
        ["–", "–", "–", "50"],
        ["100", "100", "100", "100"],
    ]
    assert "whole pairs" in table(tmp_path / "out")


def test_a_limit_keeps_the_modalities_that_it_reaches(whole_dir, tmp_path):
    summaries = evaluate(whole_dir, ["crossmodal"], ["whole"], ["identity"], out_dir=tmp_path / "out", limit=2)
    assert [(s.get("part"), s["n"]) for s in summaries] == [(None, 2), ("map_optical", 1), ("nir_visible_aerial", 1)]


def test_large_frames_are_no_data_for_everyone(whole_dir, tmp_path):
    method = Knows(read_whole(whole_dir, "crossmodal", "val").whole)
    evaluate(whole_dir, ["crossmodal"], ["whole"], [method], out_dir=tmp_path / "out")
    masks = [known.moving_mask for _, known in method.told]
    assert [mask is not None for mask in masks] == [False, True, False, False]
    assert not masks[1][:, :72].any() and masks[1][:, 80:].all()
    assert all(known.reference_mask is None for _, known in method.told)
    assert {level for level, _ in method.told} == {"whole"}


def test_small_black_parts_are_content(tmp_path):
    folder = write_set(tmp_path, [("map_optical", "lake_1", 0.0, 0.0, 0.0)], black_frame_share=0.3)
    image = cv2.imread(str(folder / "crossmodal/map_optical/lake_1_mov.png"))
    image[:30, :30] = 0  # 3 %, dark water at the edge
    image[60:120, 60:120] = 0  # 13 %, but inside
    cv2.imwrite(str(folder / "crossmodal/map_optical/lake_1_mov.png"), image)
    sample = read_whole(folder, "crossmodal", "val").whole[0]
    assert load_whole(folder, sample).known.moving_mask is None


def test_the_frame_is_outside_the_overlap(whole_dir):
    sample = read_whole(whole_dir, "crossmodal", "val").whole[1]
    loaded = load_whole(whole_dir, sample)
    masks = {"reference_mask": loaded.known.reference_mask, "moving_mask": loaded.known.moving_mask}
    found = affine_displacement(sample.pair.matrix, REFERENCE)
    errors = point_errors(found, loaded.truth(), REFERENCE, moving_shape=MOVING, **masks)
    rows, cols = np.mgrid[: REFERENCE[0], : REFERENCE[1]]
    x, y = cols + loaded.truth()[0], rows + loaded.truth()[1]
    seen = ~np.isnan(errors)
    assert seen.any() and x[seen].min() > 0.4 * MOVING[1] and x[seen].max() <= MOVING[1] - 1
    assert y[seen].min() >= 0 and y[seen].max() <= MOVING[0] - 1
    found[:, x < 60] = 99.0  # nonsense where the moving image has no data costs nothing
    assert rmse(point_errors(found, loaded.truth(), REFERENCE, moving_shape=MOVING, **masks)) < 1e-4
    hidden = np.ones(REFERENCE, bool)
    hidden[:, :100] = False
    partly = point_errors(found, loaded.truth(), REFERENCE, moving_shape=MOVING, reference_mask=hidden)
    assert np.isnan(partly[:, :100]).all() and not np.isnan(partly[:, 100:]).all()


def pair_of(modality, name):
    return WholePair("crossmodal", name, modality, "", "", (9, 9), (9, 9), np.eye(2, 3), 0.0, 0.0)


def test_each_image_is_told_as_what_it_is():
    assert pair_of("nir_visible_aerial", "x").kinds == ("optical", "nir")
    assert pair_of("map_optical", "mmim_MO2").kinds == ("map", "optical")
    assert pair_of("map_optical", "hopc_map2").kinds == ("optical", "map")  # its images stand the other way round
    assert pair_of("sketch_photo", "x").kinds == ("other", "other")
    assert all(kind in WORDS for kinds in KINDS.values() for kind in kinds)


def test_words_that_register_does_not_know_give_way(monkeypatch):
    from typing import Literal

    from somareg.config import make_config

    monkeypatch.setattr(whole_pair, "Modality", Literal["sar", "optical", "other"])
    assert [word(kind) for kind in ("optical", "nir", "map", "intensity")] == ["optical", "other", "other", "other"]
    monkeypatch.setattr(whole_pair, "Modality", Literal["sar", "optical", "nir", "other"])
    assert [word(kind) for kind in ("optical", "nir", "map")] == ["optical", "nir", "other"]
    monkeypatch.undo()
    for kind in WORDS:  # whatever is known today, `register` takes it
        make_config({"moving_modality": word(kind), "reference_modality": word(kind)})


def test_a_set_without_the_asked_level_is_told_what_it_has(whole_dir, tmp_path):
    with pytest.raises(ConfigError, match="set 'crossmodal' has no level m, H; it has whole"):
        evaluate(whole_dir, ["crossmodal"], ["m", "H"], ["identity"], out_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="set 'sih' has no level whole; it has E, m, M, H, R, A, N:"):
        evaluate(whole_dir, ["sih"], ["whole"], ["identity"], out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": "x"}, r"pairs.csv:2: bad number"),
        ({"ref_width": ""}, r"pairs.csv:2: bad number"),
        ({"a": 0, "b": 0}, "of pair 'atlas_1' cannot be inverted"),
        ({"c": "nan"}, "of pair 'atlas_1' cannot be inverted"),
        ({"landmark_rms_px": "nan"}, "of pair 'atlas_1' are no finite numbers"),
    ],
)
def test_bad_rows_are_named(tmp_path, changes, message):
    folder = write_set(tmp_path, PAIRS[:1], **changes)
    with pytest.raises(InputError, match=message):
        read_whole(folder, "crossmodal", "val")


def test_bad_files_are_named(whole_dir, tmp_path):
    with pytest.raises(ReadError, match=r"pairs\.csv not found; --data takes"):
        read_whole(tmp_path, "crossmodal", "val")
    sample = read_whole(whole_dir, "crossmodal", "val").whole[0]
    image = whole_dir / "crossmodal" / sample.pair.moving
    cv2.imwrite(str(image), np.zeros((10, 10), np.uint8))
    with pytest.raises(InputError, match=r"atlas_1_mov\.png is \(10, 10\), its table says \(160, 180\)"):
        load_whole(whole_dir, sample)
    image.unlink()
    with pytest.raises(ReadError, match="not found"):
        load_whole(whole_dir, sample)
    (whole_dir / "crossmodal" / "pairs.csv").write_text("modality,pair\n")
    with pytest.raises(ReadError, match="column 'reference' is missing"):
        read_whole(whole_dir, "crossmodal", "val")
    (whole_dir / "crossmodal" / "pairs.csv").write_text(",".join(COLUMNS_OF_TABLE) + "\n")
    with pytest.raises(InputError, match="holds no pair"):
        read_whole(whole_dir, "crossmodal", "val")
