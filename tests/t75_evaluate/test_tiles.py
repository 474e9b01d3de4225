"""Packed tiles: their labels take a planted misregistration out, and their files give back what was put in."""

import csv
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.errors import ConfigError, InputError, OutputError, ReadError
from somareg.geometry.resample import resample
from somareg.lab.data.datasets import open_dataset
from somareg.lab.data.labels import Correction, read_corrections
from somareg.lab.data.pack import CutCfg, cut_tiles, main, pack_tiles, tile_origins
from somareg.lab.data.samples import pack_samples
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.data.tiles import TileSet
from somareg.lab.evaluate.sample import load_sample
from somareg.lab.evaluate.sampling import make_list

HEADER = ["set", "name", "role", "group", "width", "height", "dx", "dy", "note"]


def make_tiles(count: int, size: int = 13, seed: int = 0) -> TileSet:
    draw = torch.Generator().manual_seed(seed)
    return TileSet(
        sar=torch.randint(0, 256, (count, size, size), generator=draw, dtype=torch.uint8),
        optical=torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8),
        valid=torch.rand((count, size, size), generator=draw) > 0.4,
        label=torch.randn((count, 2, 3), generator=draw),
        group=tuple(f"ort-{i % 3}" for i in range(count)),
        source=tuple("säntis" if i % 2 else "b" for i in range(count)),
        name=tuple(f"{seed}/{i}" for i in range(count)),
    )


def assert_same(a: TileSet, b: TileSet) -> None:
    for key in ("sar", "optical", "valid", "label"):
        assert getattr(a, key).dtype == getattr(b, key).dtype and torch.equal(getattr(a, key), getattr(b, key))
    assert (a.group, a.source, a.name) == (b.group, b.source, b.name)


def write_data(folder, name, sar, optical, offset=("", ""), role="train"):
    """A data folder with one pair of set "one"."""
    for kind, image in (("sar", sar), ("optical", optical)):
        (folder / "one" / kind).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / "one" / kind / name), image)
    new = not (folder / "pairs.csv").exists()
    with (folder / "pairs.csv").open("a", newline="") as file:
        rows = [HEADER] if new else []
        csv.writer(file).writerows([*rows, ["one", name, role, "g", sar.shape[1], sar.shape[0], *offset, ""]])


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 255, (height, width), dtype=np.uint8)


def through_label(tiles, i):
    """SAR of tile i at the positions that its label gives for every optical pixel, and where those lie inside."""
    rows, cols = np.mgrid[: tiles.size, : tiles.size].astype(float)
    label = tiles.label[i].double().numpy()
    xy = np.stack([cols, rows], axis=-1) @ label[:, :2].T + label[:, 2]
    inside = ((xy >= 1) & (xy <= tiles.size - 2)).all(axis=-1)  # the kernel's outer pixels
    sar = tiles.sar[i].numpy()[None].astype(np.float32)
    values, _ = resample(sar, np.ones(sar.shape[1:], bool), xy, kernel="cubic")
    return values[0], inside


def test_a_whole_pixel_offset_is_taken_out_exactly(tmp_path):
    dx, dy = 3, -2
    ground = noise(140, 150)
    optical = ground[20:120, 20:130]
    # aligned_sar(x, y) = sar(x - dx, y - dy): SAR pixel p shows optical position p + (dx, dy)
    sar = ground[20 + dy : 120 + dy, 20 + dx : 130 + dx]
    write_data(tmp_path / "data", "a.png", sar, cv2.merge([optical] * 3), (str(dx), str(dy)))
    pack_tiles(tmp_path / "data", tmp_path / "out", size=48, overlap=8)
    tiles = TileSet.load(tmp_path / "out")
    assert len(tiles) == 9
    for i in range(len(tiles)):
        values, inside = through_label(tiles, i)
        assert inside.mean() > 0.8
        np.testing.assert_array_equal(values[inside].round(), tiles.optical[i, 1].numpy()[inside])


def test_a_fraction_of_a_pixel_is_taken_out_of_every_tile(data_dir):
    dataset = open_dataset(data_dir).select(roles={"test"})
    parts = list(cut_tiles(dataset, CutCfg(size=96, overlap=16)))
    tiles = TileSet.concat(parts)
    assert len(parts) == 3 and tiles.label[:, :, 2].unique(dim=0).tolist() == [[-1.25, 0.75]]
    for i in range(len(tiles)):
        values, inside = through_label(tiles, i)
        keep = inside & tiles.valid[i].numpy()
        optical = tiles.optical[i, 0].numpy()
        assert np.abs(values - optical)[keep].max() < 2  # two roundings and the kernel's error on these waves
        assert np.abs(tiles.sar[i].numpy().astype(float) - optical)[keep].mean() > 2


QUADRATIC = np.array([[1.5, -2.0, 1.0, 2.5, -1.0, 0.5], [-2.0, 1.0, 0.5, -0.5, 1.5, -2.0]])


def quadratic(x, y, shape):
    height, width = shape
    u, v = (x - (width - 1) / 2) / (width / 2), (y - (height - 1) / 2) / (height / 2)
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v])
    return np.tensordot(QUADRATIC, terms, axes=1)


@pytest.mark.parametrize(("origin", "size"), [((0, 0), (64, 64)), ((37, 90), (48, 31)), ((199, 100), (1, 2))])
def test_the_label_of_a_smooth_correction_is_its_least_squares_affine(origin, size):
    shape = (150, 200)
    rows, cols = np.mgrid[: size[0], : size[1]].astype(float)
    x, y = cols.ravel(), rows.ravel()
    sar = np.stack([x, y]) + quadratic(x + origin[0], y + origin[1], shape)
    label = Correction(QUADRATIC, 1.0).tile_label(shape, origin, size)
    if min(size) > 1:
        fitted = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], axis=1), sar.T, rcond=None)[0].T
        np.testing.assert_allclose(label, fitted, atol=1e-9)
    residual = label @ np.stack([x, y, np.ones_like(x)]) - sar
    np.testing.assert_allclose(residual.mean(axis=1), 0, atol=1e-9)


def test_a_smooth_correction_takes_the_distortion_out_of_every_tile(tmp_path, truth):
    shape = (200, 240)
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(float)
    x, y = cols.copy(), rows.copy()
    for _ in range(30):  # SAR pixel (cols, rows) shows optical position (x, y) with (x, y) + d(x, y) = (cols, rows)
        dx, dy = quadratic(x, y, shape)
        x, y = cols - dx, rows - dy
    sar, optical = (np.rint(truth(*xy, 0.3)).astype(np.uint8) for xy in ((x, y), (cols, rows)))
    data = tmp_path / "data"
    write_data(data, "007.webp", sar, cv2.merge([optical] * 3))
    for kind in ("sar", "optical"):  # lossy compression would blur the comparison: PNG bytes under the name in the list
        path = data / "one" / kind / "007.webp"
        path.write_bytes(cv2.imencode(".png", sar if kind == "sar" else optical)[1].tobytes())
    terms = ("1", "x", "y", "xx", "xy", "yy")
    with (data / "one" / "corrections.csv").open("w", newline="") as file:
        header = ["name", *(f"d{axis}_{term}" for axis in "xy" for term in terms), "net_after_px"]
        csv.writer(file).writerows([header, ["007.png", *QUADRATIC.ravel(), 1.1]])
    pack_tiles(data, tmp_path / "out", size=64, overlap=16, max_residual_px=1.6)
    tiles = TileSet.load(tmp_path / "out")
    assert len(tiles) == 20
    for i in range(len(tiles)):
        values, inside = through_label(tiles, i)
        image = tiles.optical[i, 0].numpy()
        # within a tile the correction is quadratic, its label affine: up to about 0.3 px on these slopes are left
        assert np.abs(values - image)[inside].mean() < 1.0
        assert np.abs(tiles.sar[i].numpy().astype(float) - image)[inside].mean() > 3.0
    with pytest.raises(InputError, match="residual: 1"):
        pack_tiles(data, tmp_path / "none", size=64, max_residual_px=1.1)
    assert not list((tmp_path / "none").glob("*"))


def test_scenes_without_a_row_count_as_unknown(tmp_path):
    data = tmp_path / "data"
    for name in ("a.png", "b.png"):
        write_data(data, name, noise(64, 64), cv2.merge([noise(64, 64)] * 3), ("1", "0"))
    terms = ("1", "x", "y", "xx", "xy", "yy")
    header = ["name", *(f"d{axis}_{term}" for axis in "xy" for term in terms), "net_after_px"]
    (data / "one" / "corrections.csv").write_text(",".join(header) + "\na.png" + ",0" * 12 + ",0.5\n")
    cut = [tiles.name[0] for tiles in cut_tiles(open_dataset(data), CutCfg(64, 0, max_residual_px=1.6))]
    assert cut == ["one/a.png@0,0"]
    labels = [tiles.label[0, :, 2].tolist() for tiles in cut_tiles(open_dataset(data), CutCfg(64, 0))]
    assert labels == [[0.0, 0.0], [-1.0, 0.0]]


def test_bad_corrections_are_refused(tmp_path):
    path = tmp_path / "corrections.csv"
    path.write_text("name,dx_1\na,1\n")
    with pytest.raises(ReadError, match="column 'dx_x' is missing"):
        read_corrections(path)
    header = ",".join(["name", *(f"d{a}_{t}" for a in "xy" for t in ("1", "x", "y", "xx", "xy", "yy"))])
    for value, what in (("nan", "not finite"), ("much", "bad number"), ("", "bad number")):
        path.write_text(f"{header}\na.png,{value}{',0' * 11}\n")
        with pytest.raises(InputError, match=what):
            read_corrections(path)


@settings(deadline=None)
@given(
    st.integers(1, 90).flatmap(
        lambda size: st.tuples(st.just(size), st.integers(0, size - 1), st.integers(size, 700), st.integers(size, 700))
    )
)
def test_tiles_cover_the_image_and_overlap(drawn):
    size, overlap, height, width = drawn
    origins = tile_origins((height, width), size, overlap)
    assert len(set(origins)) == len(origins)
    for length, starts in ((width, sorted({x for x, _ in origins})), (height, sorted({y for _, y in origins}))):
        assert starts[0] == 0 and starts[-1] == length - size
        steps = np.diff(starts)
        assert (steps <= size - overlap).all()
        assert len(starts) == 1 or len(starts) == -(-(length - overlap) // (size - overlap))


def test_empty_and_small_images_are_left_out(tmp_path):
    data = tmp_path / "data"
    half = noise(100, 200)
    half[:, :140] = 255
    write_data(data, "half.png", half, cv2.merge([noise(100, 200)] * 3))
    write_data(data, "small.png", noise(30, 200), cv2.merge([noise(30, 200)] * 3))
    skipped = {}
    kept = list(cut_tiles(open_dataset(data), CutCfg(100, 0, min_valid=0.5), skipped))
    assert [tiles.name for tiles in kept] == [("one/half.png@100,0",)]
    assert 0.5 < kept[0].valid.float().mean() < 0.6 and not kept[0].valid[0, :, :40].any()
    assert skipped == {"one": Counter(nodata=1, small=1)}
    with pytest.raises(InputError, match=r"nodata: 2.*--size"):
        pack_tiles(data, tmp_path / "none", size=100, overlap=0)


def test_shards_hold_what_one_file_holds_and_no_more_than_allowed(tmp_path, data_dir):
    options = {"roles": ["val"], "size": 64, "overlap": 10}
    whole = pack_tiles(data_dir, tmp_path / "whole", **options)
    parts = pack_tiles(data_dir, tmp_path / "parts", **options, shard_mb=0.1)
    assert len(whole.shards) == 1 and len(parts.shards) > 3 and whole.tiles == parts.tiles
    assert max(path.stat().st_size for path in parts.shards) <= 0.1 * 2**20
    assert [path.name for path in parts.shards[:2]] == ["tiles-00000.safetensors", "tiles-00001.safetensors"]
    assert_same(TileSet.load(tmp_path / "whole"), TileSet.load(tmp_path / "parts"))
    assert_same(TileSet.load(tmp_path / "parts"), TileSet.concat([TileSet.load(path) for path in parts.shards]))
    with pytest.raises(OutputError, match="already holds tiles"):
        pack_tiles(data_dir, tmp_path / "parts", **options)
    pack_tiles(data_dir, tmp_path / "parts", **options, overwrite=True)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["tiles-00000.safetensors"]
    with pytest.raises(ConfigError, match="holds no tile"):
        pack_tiles(data_dir, tmp_path / "tiny", **options, shard_mb=0.01)


def test_a_failing_run_leaves_the_earlier_shards(tmp_path, data_dir):
    options = {"roles": ["val"], "size": 64, "overlap": 10, "shard_mb": 0.1}
    pack_tiles(data_dir, tmp_path / "out", **options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    dataset = open_dataset(data_dir)
    lost = replace(dataset.entries[3], name="lost.png")
    files = {dataset.entries[3]: dataset.files[dataset.entries[3]]}
    files[lost] = replace(dataset.files[dataset.entries[3]], sar=tmp_path / "lost.png")
    with pytest.raises(ReadError, match=r"lost\.png not found"):
        pack_tiles(replace(dataset, files=files), tmp_path / "out", **options, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_pairs_for_scoring_are_never_packed(tmp_path, data_dir):
    with pytest.raises(ConfigError, match="for scoring only"):
        pack_tiles(data_dir, tmp_path / "out", roles=["val", "test"], size=64)
    pack_tiles(data_dir, tmp_path / "out", roles=None, size=64)
    assert set(TileSet.load(tmp_path / "out").group) == {"g3"}


@pytest.mark.parametrize("role", ["test", "val-3px", "val-vhr", "unlabelled"])
def test_roles_for_scoring_are_refused_or_passed_over(role, tmp_path, data_dir):
    table = data_dir / "pairs.csv"
    table.write_text(table.read_text().replace(",test,", f",{role},"))
    with pytest.raises(ConfigError, match=f"role '{role}' is for scoring only"):
        pack_tiles(data_dir, tmp_path / "out", roles=["val", role], size=64)
    pack_tiles(data_dir, tmp_path / "out", roles=None, size=64)
    assert set(TileSet.load(tmp_path / "out").group) == {"g3"}


@pytest.mark.parametrize("name", ["multisensor", "vhrcity", "vhrpublished", "vhr", "crossmodal"])
def test_sets_for_judging_are_never_packed_whatever_their_role(name, tmp_path, data_dir):
    table = data_dir / "pairs.csv"
    table.write_text(table.read_text().replace("mini,", f"{name},").replace(",val,", ",train,"))
    (data_dir / "mini").rename(data_dir / name)
    for options in ({}, {"roles": None}, {"sets": [name]}, {"sets": [name], "roles": ["train"]}):
        with pytest.raises(ConfigError, match=f"set '{name}' is for judging only"):
            pack_tiles(data_dir, tmp_path / "out", size=64, **options)
    assert not list((tmp_path).glob("out/*.safetensors"))


def test_the_command_packs_and_explains(tmp_path, data_dir, capsys):
    arguments = ["--data", str(data_dir), "--out", str(tmp_path / "out"), "--size", "64", "--overlap", "0"]
    assert main([*arguments, "--roles", "val", "--sets", "mini"]) == 0
    assert "mini: 25 tiles" in capsys.readouterr().out
    assert len(TileSet.load(tmp_path / "out")) == 25
    assert main([*arguments, "--roles", "vall", "--overwrite"]) == 2
    assert "'val'" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1, 8, 13])
def test_tiles_survive_their_file(tmp_path, size):
    tiles = make_tiles(5, size)
    assert_same(TileSet.load(tiles.save(tmp_path / "new" / "t.safetensors")), tiles)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.safetensors"]


def test_choosing_and_joining_keep_texts_with_pixels():
    tiles = make_tiles(6)
    chosen = tiles.select([4, 0, 4])
    assert chosen.name == ("0/4", "0/0", "0/4") and torch.equal(chosen.sar[1], tiles.sar[0])
    assert_same(tiles.select(torch.tensor([4, 0, 4])), chosen)
    assert len(tiles.select([])) == 0
    assert_same(TileSet.concat([tiles.select([0, 1]), tiles.select([]), tiles.select(range(2, 6))]), tiles)
    assert_same(tiles.to("cpu"), tiles)
    with pytest.raises(InputError, match=r"sizes \[8, 13\]"):
        TileSet.concat([make_tiles(1), make_tiles(1, 8)])
    with pytest.raises(InputError, match="nothing to join"):
        TileSet.concat([])


@pytest.mark.parametrize(
    "wrong",
    [
        {"sar": torch.zeros(5, 13, 12, dtype=torch.uint8)},
        {"optical": torch.zeros(5, 13, 13, dtype=torch.uint8)},
        {"valid": torch.zeros(5, 13, 13, dtype=torch.uint8)},
        {"label": torch.zeros(5, 2, 3, dtype=torch.float64)},
        {"group": ("a",)},
    ],
)
def test_tiles_that_do_not_fit_are_refused(wrong):
    with pytest.raises(InputError, match=f"tiles: {next(iter(wrong))}"):
        replace(make_tiles(5), **wrong)


def test_bad_files_are_named(tmp_path, data_dir, info):
    good = make_tiles(3).save(tmp_path / "good.safetensors")
    content = good.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[:-9])
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"sar": 1}))
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for key, wrong in ((b'[\\"0/0\\"', b'{\\"0/0\\"'), (b'"label"', b'"lebal"')):
        assert key in content
        (tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors").write_bytes(content.replace(key, wrong))
    samples = pack_samples(
        [make_list(data_dir, info, "val", count=1, levels=["m"])], data_dir, tmp_path / "s.safetensors"
    )
    assert len(samples) == 1
    bad = [path for path in tmp_path.iterdir() if path.suffix == ".safetensors" and path != good]
    assert len(bad) == 6
    for path in bad:
        with pytest.raises(ReadError, match=path.name):
            TileSet.load(path)
    for path in (tmp_path / "missing.safetensors", tmp_path / "data"):
        with pytest.raises(ReadError, match=r"somareg\.lab\.data\.pack"):
            TileSet.load(path)
    with pytest.raises(ReadError, match=r"somareg\.tiles"):
        ProtocolSamples.load(good)


def test_packed_samples_are_the_protocols_own(tmp_path, data_dir, info):
    made = make_list(data_dir, info, "test", count=6)
    packed = pack_samples([made], data_dir, tmp_path / "val.safetensors", levels=["H", "m"], limit=3)
    assert len(packed) == 6
    loaded = ProtocolSamples.load(tmp_path / "val.safetensors")
    for level, stack in zip(("H", "m"), loaded, strict=True):
        assert (stack.set, stack.split, stack.level, stack.quoted_from) == ("mini", "test", level, 0.5)
        assert stack.index == (0, 2, 4)
        for i, k in enumerate(stack.index):
            sample = made.samples[level][k]
            expected = load_sample(data_dir, sample)
            assert stack.group[i] == sample.pair.group
            for key in ("moving", "reference", "matrix"):
                np.testing.assert_array_equal(getattr(stack[i], key), getattr(expected, key))
    with pytest.raises(ConfigError, match="unknown level"):
        pack_samples([made], data_dir, tmp_path / "x.safetensors", levels=["X"])
    with pytest.raises(ConfigError, match="limit 0"):
        pack_samples([made], data_dir, tmp_path / "x.safetensors", limit=0)


def test_packing_needs_no_rasterio():
    code = "import sys; sys.modules['rasterio'] = None; import somareg.lab.data.pack, somareg.lab.data.samples"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
