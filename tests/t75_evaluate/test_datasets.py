"""Published folder layouts, read from miniature trees: who is paired with whom, in which role, set and place."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from somareg.errors import ConfigError, InputError, ReadError
from somareg.lab.data import KINDS, load_pair, open_dataset
from somareg.lab.data.folders import split_sensor


def plant(folder: Path, names: dict[str, str]) -> None:
    """Images whose grey value is a number of the pair: path -> pair; 24 x 20 pixels."""
    numbers = {pair: 20 + 10 * i for i, pair in enumerate(sorted(set(names.values())))}
    for name, pair in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((20, 24), numbers[pair], np.uint8))


def rows(dataset) -> set[tuple[str, str, str, str]]:
    return {(entry.set, entry.role, entry.group, entry.name) for entry in dataset.entries}


def assert_pairs_belong_together(dataset) -> None:
    seen = set()
    for entry in dataset.entries:
        pair = dataset.load(entry)
        assert pair.sar.shape == (20, 24) and (pair.entry.width, pair.entry.height) == (24, 20)
        assert (pair.sar == pair.optical).all()
        seen.add(int(pair.sar[0, 0]))
    assert len(seen) == len(dataset)


def test_sen12_pairs_patches_of_one_scene(tmp_path):
    names = {}
    for season, scene, patch in (("ROIs1158_spring", 0, 30), ("ROIs1158_spring", 1, 30), ("ROIs1970_fall", 0, 7)):
        for sensor in ("s1", "s2"):
            name = f"{season}/{sensor}_{scene}/{season}_{sensor}_{scene}_p{patch}.png"
            names[name] = f"{season}{scene}{patch}"
    plant(tmp_path, names)
    dataset = open_dataset(tmp_path)
    assert dataset.kind == "sen1-2"
    assert {row[:3] for row in rows(dataset)} == {
        ("sen1-2", "train", "sen1-2-ROIs1158_spring_0"),
        ("sen1-2", "train", "sen1-2-ROIs1158_spring_1"),
        ("sen1-2", "train", "sen1-2-ROIs1970_fall_0"),
    }
    assert_pairs_belong_together(dataset)


def test_sen12_sorted_by_terrain_keeps_its_places(tmp_path):
    stem = "ROIs1868_summer_{}_59_p2.png"
    plant(tmp_path, {f"v_2/agri/{s}/{stem.format(s)}": "a" for s in ("s1", "s2")})
    dataset = open_dataset(tmp_path)
    assert [entry.group for entry in dataset.entries] == ["sen1-2-ROIs1868_summer_59"]
    assert_pairs_belong_together(dataset)


@pytest.mark.parametrize(
    "form", ["{size}/{role}/{s}{n}.png", "{size}/{role}/{s}/{s}{n}.png", "{size}/{role}_{s}/{s}{n}.PNG"]
)
def test_osdataset_in_its_three_forms(tmp_path, form):
    names = {
        form.format(size=size, role=role, s=sensor, n=n): f"{size}{role}{n}"
        for size in (256, 512)
        for role, n in (("train", 1), ("train", 11), ("val", 1), ("test", 1))
        for sensor in ("sar", "opt")
    }
    plant(tmp_path, names)
    dataset = open_dataset(tmp_path)
    assert dataset.kind == "osdataset" and len(dataset) == 8
    assert {row[:3] for row in rows(dataset)} == {
        (f"osdataset-{size}", role, f"osdataset-{size}-{role}")
        for size in (256, 512)
        for role in ("train", "val", "test")
    }
    assert_pairs_belong_together(dataset)
    assert len(dataset.select({"osdataset-512"}, {"train"})) == 2


def test_gfge_so_numbered_in_folders(tmp_path):
    folder = tmp_path / "GFGE_SO"
    plant(
        folder,
        {f"{role}/{s}/{s}{n}.png": f"{role}{n}" for role in ("train", "test") for s in ("sar", "opt") for n in (1, 2)},
    )
    dataset = open_dataset(folder)
    assert dataset.kind == "gfge_so"
    assert {row[:3] for row in rows(dataset)} == {
        ("gfge_so", "train", "gfge_so-train"),
        ("gfge_so", "test", "gfge_so-test"),
    }
    assert_pairs_belong_together(dataset)


def test_gfge_so_split_by_text_lists(tmp_path):
    folder = tmp_path / "GFGE_SOdataset"
    plant(folder, {f"{s}/{n}.png": str(n) for s in ("SAR", "RGB") for n in (1, 2, 3)})
    (folder / "train.txt").write_text("1\n3.png\n")
    (folder / "test.txt").write_text("2\n")
    dataset = open_dataset(folder)
    assert {row[1:2] + row[3:] for row in rows(dataset)} == {
        ("train", "SAR/1.png"),
        ("test", "SAR/2.png"),
        ("train", "SAR/3.png"),
    }
    assert_pairs_belong_together(dataset)


def test_whu_sen_city_images_are_places(tmp_path):
    names = {
        f"{role}/{city}/{city}_of_{s}.png": city
        for role, city in (("train", "wuhan"), ("train", "beijing"), ("test", "xian"))
        for s in ("S1", "S2")
    }
    plant(tmp_path, names)
    dataset = open_dataset(tmp_path)
    assert dataset.kind == "whu-sen-city"
    assert {row[1:3] for row in rows(dataset)} == {
        ("train", "whu-sen-city-wuhan"),
        ("train", "whu-sen-city-beijing"),
        ("test", "whu-sen-city-xian"),
    }
    assert_pairs_belong_together(dataset)


def test_whu_sen_city_raw_amplitudes_are_named_as_such(tmp_path):
    raw = tmp_path / "WHU-SEN-City" / "train" / "wuhan" / "x_of_S1"
    raw.mkdir(parents=True)
    (raw / "Amplitude_VV.img").write_bytes(b"0")
    with pytest.raises(ReadError, match=r"raw amplitudes .* export them"):
        open_dataset(tmp_path / "WHU-SEN-City")


def test_sopatch_keeps_its_sets_apart(tmp_path):
    names = {
        f"{name}/{role}/{s}/d1.png": f"{name}{role}"
        for name in ("OSdataset", "SEN1-2", "WHU-SEN-City")
        for role in ("train", "val", "test")
        for s in ("sar", "opt")
    }
    plant(tmp_path, names)
    dataset = open_dataset(tmp_path)
    assert dataset.kind == "sopatch" and len(dataset) == 9
    assert {entry.set for entry in dataset.entries} == {"sopatch-osdataset", "sopatch-sen1-2", "sopatch-whu-sen-city"}
    assert all(entry.group == f"{entry.set}-{entry.role}" for entry in dataset.entries)
    assert_pairs_belong_together(dataset)


def test_pair_folders_match_by_name_whatever_case_and_extension(tmp_path):
    folder = tmp_path / "Mine"
    plant(folder, {"lake/SAR/a.tif": "a", "lake/Optical/A.jpg": "a", "hill/SAR/a.png": "b", "hill/Optical/a.png": "b"})
    dataset = open_dataset(folder)
    assert dataset.kind == "folders"
    assert rows(dataset) == {
        ("mine", "train", "mine-lake", "lake/SAR/a.tif"),
        ("mine", "train", "mine-hill", "hill/SAR/a.png"),
    }
    assert_pairs_belong_together(dataset)


def test_a_mask_folder_is_used(tmp_path):
    plant(tmp_path, {"sar/a.png": "a", "optical/a.png": "a"})
    mask = np.full((20, 24), 255, np.uint8)
    mask[:, :9] = 0
    (tmp_path / "mask").mkdir()
    cv2.imwrite(str(tmp_path / "mask" / "a.png"), mask)
    dataset = open_dataset(tmp_path)
    np.testing.assert_array_equal(dataset.load(dataset.entries[0]).valid, mask > 0)


def test_images_without_a_partner_are_told(tmp_path):
    plant(tmp_path, {"sar/a.png": "a", "optical/a.png": "a", "sar/b.png": "b"})
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1 and dataset.unpaired == ("sar/b.png",)


def test_images_of_different_size_are_no_pair(tmp_path):
    plant(tmp_path, {"sar/a.png": "a", "optical/a.png": "a"})
    cv2.imwrite(str(tmp_path / "optical" / "a.png"), np.zeros((8, 8), np.uint8))
    dataset = open_dataset(tmp_path)
    with pytest.raises(InputError, match=r"a.png is \(8, 8\), a.png is \(20, 24\)"):
        dataset.load(dataset.entries[0])


def test_errors_show_the_way_out(tmp_path):
    with pytest.raises(ConfigError, match="sen1-2"):
        open_dataset(tmp_path, "sen1_2")
    with pytest.raises(ReadError, match="not a folder"):
        open_dataset(tmp_path / "nowhere")
    for kind in KINDS:
        with pytest.raises(ReadError, match=r"pairs\.csv" if kind == "pairs" else "expected .* with "):
            open_dataset(tmp_path, kind)
    plant(tmp_path, {"sar/a.png": "a", "optical/a.png": "a", "sar/a.jpg": "b"})
    with pytest.raises(ReadError, match="claim the same place"):
        open_dataset(tmp_path)


def test_a_pairs_csv_wins(data_dir):
    dataset = open_dataset(data_dir)
    assert dataset.kind == "pairs" and len(dataset) == 4
    assert dataset.entries[0].offset == (1.25, -0.75)
    with pytest.raises(ConfigError, match="Did you mean 'mini'"):
        dataset.select({"mimi"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/sar12.png", ("sar", "train/*12")),
        ("SAR-optical data/opt/a.png", ("optical", "*-* data/*/a")),
        ("optical_archive/sar/a.png", ("sar", "*_archive/*/a")),
        ("s1_3/ROIs1158_spring_s1_3_p5.png", ("sar", "*_3/ROIs1158_spring_*_3_p5")),
        ("quasar/s12/adopt.png", (None, "quasar/s12/adopt")),
    ],
)
def test_words_for_sensors(name, expected):
    assert split_sensor(name) == expected


def test_the_mask_of_a_lossy_image_is_a_png_of_its_name(data_dir):
    folder = data_dir / "mini"
    for kind in ("sar", "optical"):
        (folder / kind / "p3.png").rename(folder / kind / "p3.webp")
    table = data_dir / "pairs.csv"
    table.write_text(table.read_text().replace("p3.png", "p3.webp"))
    mask = np.full((260, 300), 255, np.uint8)
    mask[30:50] = 0
    (folder / "mask").mkdir()
    cv2.imwrite(str(folder / "mask" / "p3.png"), mask)
    dataset = open_dataset(data_dir)
    entry = dataset.entries[3]
    for pair in (dataset.load(entry), load_pair(data_dir, entry)):
        np.testing.assert_array_equal(pair.valid, mask > 0)


# --- pairs across dates -----------------------------------------------------------------------------------------------


def two_dates(folder: Path, cross: str, roles: tuple[str, str] = ("train", "train"), mask: bool = False) -> Path:
    """`pairs.csv` with two dates of one place, and a list of cross pairs."""
    plant(folder, {f"mini/{kind}/{date}.png": date for kind in ("sar", "optical") for date in ("before", "after")})
    if mask:
        plant(folder, {"mini/mask/after.png": "after"})
    lines = [f"mini,{date}.png,{role},place,24,20,0,0," for date, role in zip(("before", "after"), roles, strict=True)]
    (folder / "pairs.csv").write_text("\n".join(["set,name,role,group,width,height,dx,dy,note", *lines, ""]))
    (folder / "mini_cross.csv").write_text("sar_name,optical_name,dx,dy\n" + cross)
    return folder


def test_pairs_across_dates_have_no_pixels_of_their_own(tmp_path):
    dataset = open_dataset(two_dates(tmp_path, "before.png,after.png,-0.9,0.25\n"))
    assert len(dataset) == 3
    entry = dataset.entries[-1]
    assert (entry.name, entry.role, entry.group) == ("before+after.png", "train", "place")
    assert entry.offset == (-0.9, 0.25)
    pair = dataset.load(entry)
    assert pair.sar[0, 0] == dataset.load(dataset.entries[0]).sar[0, 0]
    assert pair.optical[0, 0, 0] == dataset.load(dataset.entries[1]).optical[0, 0, 0]
    assert pair.sar[0, 0] != pair.optical[0, 0, 0]


@pytest.mark.parametrize(
    ("cross", "changes", "told"),
    [
        ("before.png,missing.png,0,0\n", {}, "known pairs"),
        ("before.png,after.png,zero,0\n", {}, "bad row"),
        ("before.png,after.png,0,0\n", {"roles": ("train", "test")}, "differ in role or group"),
        ("before.png,after.png,0,0\n", {"mask": True}, "has a mask"),
    ],
)
def test_a_bad_list_of_cross_pairs_is_told(tmp_path, cross, changes, told):
    with pytest.raises(InputError, match=told):
        open_dataset(two_dates(tmp_path, cross, **changes))
