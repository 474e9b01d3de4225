"""Outputs appear whole or not at all, and keep what they were given."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from somareg.errors import OutputError
from somareg.io import atomic, leftovers, writer
from somareg.io.atomic import atomic_path, check_writable, output_folder, write_text
from somareg.io.folders import make_folder
from somareg.io.leftovers import part_name, remove_leftovers
from somareg.io.source import Block
from somareg.io.writer import GeotiffSpec, write_geotiff, write_geotiff_blocks
from somareg.types import Grid

GRID = Grid(700, 600, (10, 0, 500000, 0, -10, 5000000), rasterio.CRS.from_epsg(32632).to_wkt())


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def noise(dtype, bands=2):
    values = np.random.default_rng(0).uniform(1, 100, (bands, *GRID.shape))
    return values.astype(dtype)


@pytest.mark.parametrize("cog", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "float32", "float64", "complex64", "complex128"])
def test_round_trip(tmp_path, dtype, cog):
    data = noise(dtype)
    path = write_geotiff(
        tmp_path / "a.tif",
        data,
        GRID,
        descriptions=("dx", "dy"),
        units=("px", "px"),
        tags={"KEY": "value"},
        band_tags=({"a": "1"}, {"b": "2"}),
        cog=cog,
    )
    assert names(tmp_path) == {"a.tif"}
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), data)
        assert dataset.dtypes == (dtype, dtype) and dataset.nodata is None
        assert dataset.descriptions == ("dx", "dy") and dataset.units == ("px", "px")
        assert dataset.tags()["KEY"] == "value" and dataset.tags(2)["b"] == "2"
        assert tuple(dataset.transform)[:6] == GRID.transform
        assert dataset.crs == rasterio.CRS.from_epsg(32632)
        layout = dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        assert (layout == "COG") is cog and bool(dataset.overviews(1)) is cog


def test_invalid_pixels(tmp_path):
    data, mask = noise("int16"), np.random.default_rng(1).random(GRID.shape) > 0.2
    with rasterio.open(write_geotiff(tmp_path / "nodata.tif", data, GRID, mask=mask, nodata=-1)) as dataset:
        assert dataset.nodata == -1
        np.testing.assert_array_equal(dataset.read(1), np.where(mask, data[0], -1))
    with rasterio.open(write_geotiff(tmp_path / "mask.tif", data, GRID, mask=mask)) as dataset:
        assert dataset.nodata is None and dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, mask)
    whole = write_geotiff(tmp_path / "whole.tif", data, GRID, mask=np.ones_like(mask))
    with rasterio.open(whole) as dataset:
        assert dataset.mask_flag_enums[0] == [MaskFlags.all_valid]
    alpha = write_geotiff(tmp_path / "alpha.tif", data, GRID, mask=mask, colorinterp=("gray", "undefined", "alpha"))
    with rasterio.open(alpha) as dataset:
        assert dataset.count == 3 and dataset.colorinterp[2] == ColorInterp.alpha
        np.testing.assert_array_equal(dataset.read(3) == np.iinfo("int16").max, mask)
    assert names(tmp_path) == {"nodata.tif", "mask.tif", "whole.tif", "alpha.tif"}


def test_dtypes_that_geotiff_lacks(tmp_path):
    with rasterio.open(write_geotiff(tmp_path / "b.tif", noise("float32") > 50, GRID)) as dataset:
        assert dataset.dtypes[0] == "uint8" and set(np.unique(dataset.read())) == {0, 1}
    with rasterio.open(write_geotiff(tmp_path / "h.tif", noise("float16"), GRID, nodata=np.nan)) as dataset:
        assert dataset.dtypes[0] == "float32" and np.isnan(dataset.nodata)
    with rasterio.open(write_geotiff(tmp_path / "n.tif", noise("uint8"), GRID, nodata=-9999)) as dataset:
        assert dataset.nodata is None


def test_existing_output_is_refused_then_replaced(tmp_path):
    path = write_geotiff(tmp_path / "a.tif", noise("uint8"), GRID)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        write_geotiff(path, noise("int16"), GRID)
    assert path.read_bytes() == before
    write_geotiff(path, noise("int16"), GRID, overwrite=True)
    with rasterio.open(path) as dataset:
        assert dataset.dtypes[0] == "int16"
    assert names(tmp_path) == {"a.tif"}


def test_failure_half_way_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"old")
    spec = GeotiffSpec(GRID, np.dtype("uint8"), 1)
    with pytest.raises(RuntimeError), write_geotiff_blocks(path, spec, overwrite=True) as out:
        out.write(np.ones((1, 512, 512), np.uint8), Block(0, 0, 512, 512))
        raise RuntimeError
    assert path.read_bytes() == b"old" and names(tmp_path) == {"a.tif"}


def test_full_disk_is_seen_before_and_while_writing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="not enough space"):
        write_geotiff(tmp_path / "a.tif", noise("uint8"), GRID)
    monkeypatch.undo()

    def fail(*_args, **_options):
        raise rasterio.errors.RasterioIOError("Write failed")

    monkeypatch.setattr(writer.rasterio.shutil, "copy", fail)
    with pytest.raises(OutputError, match="Write failed"):
        write_geotiff(tmp_path / "a.tif", noise("uint8"), GRID)
    monkeypatch.undo()

    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "sync", full)
    with pytest.raises(OutputError, match="disk full"):
        write_geotiff(tmp_path / "a.tif", noise("uint8"), GRID)
    assert names(tmp_path) == set()


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or os.geteuid() != 0, reason="needs a small mount")
def test_really_full_disk(tmp_path, monkeypatch):
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mount)], capture_output=True)
    if made.returncode:
        pytest.skip("cannot mount here")
    try:
        monkeypatch.setattr(writer, "check_free_space", lambda *_: None)
        with pytest.raises(OutputError):
            write_geotiff(mount / "a.tif", noise("float64"), GRID)
        assert names(mount) == set()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_truncated_result_is_noticed(tmp_path, monkeypatch):
    copy = writer.rasterio.shutil.copy

    def cut(source, target, **options):
        copy(source, target, **options)
        os.truncate(target, Path(target).stat().st_size * 2 // 3)

    monkeypatch.setattr(writer.rasterio.shutil, "copy", cut)
    with pytest.raises(OutputError):
        write_geotiff(tmp_path / "a.tif", noise("float32"), GRID)
    assert names(tmp_path) == set()


def refuse(*_args, **_options):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_read_only_places(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(OutputError, match="is a file"):
            check_writable(folder)
    with pytest.raises(OutputError, match="is a file"):
        write_text(tmp_path / "file" / "a.txt", "x")
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match=r"cannot be written.*Permission denied"):
        check_writable(tmp_path / "new")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "a.txt", "x")


def test_new_folder_appears_by_rename(tmp_path):
    folder = tmp_path / "deep" / "out"
    with output_folder(folder, owned=("a",)) as part:
        (part / "a").write_text("1")
        (part / "sub").mkdir()
        assert not folder.exists()
    assert names(folder) == {"a", "sub"} and names(tmp_path / "deep") == {"out"}


def test_failed_new_folder_leaves_not_even_its_parents(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "deep" / "out") as part:
        (part / "a").write_text("1")
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


def test_existing_folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    with output_folder(folder) as part:  # empty is fine
        (part / "a").write_text("1")
    (folder / "mine.txt").write_text("keep")
    (folder / "stale").write_text("old run")
    with pytest.raises(OutputError, match=r"not empty.*--overwrite"), output_folder(folder):
        pass
    with output_folder(folder, overwrite=True, owned=("a", "stale", "never")) as part:
        (part / "a").write_text("2")
    assert names(folder) == {"a", "mine.txt"}
    assert (folder / "a").read_text() == "2" and (folder / "mine.txt").read_text() == "keep"


def test_failure_while_moving_puts_the_old_files_back(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "stale"):
        (folder / name).write_text("old")
    rename, moves = Path.rename, []

    def flaky(self, target):
        if self.read_text() == "new":
            moves.append(target)
            if len(moves) == 2:
                raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", flaky)
    with pytest.raises(OutputError), output_folder(folder, overwrite=True, owned=("a", "b", "stale")) as part:
        for name in ("a", "b"):
            (part / name).write_text("new")
    assert names(folder) == {"a", "b", "stale"}
    assert {(folder / n).read_text() for n in names(folder)} == {"old"}


CHILD = """
import sys, time, numpy as np
from pathlib import Path
from somareg.io.atomic import output_folder
from somareg.io.writer import GeotiffSpec, write_geotiff_blocks
from somareg.io.source import Block
from somareg.types import Grid
spec = GeotiffSpec(Grid(2048, 2048), np.dtype("uint8"), 1)
with output_folder(sys.argv[1]) as part, write_geotiff_blocks(part / "a.tif", spec) as out:
    out.write(np.ones((1, 512, 2048), np.uint8), Block(0, 0, 2048, 512))
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_run_leaves_no_output_and_the_next_run_cleans_up(tmp_path):
    folder = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        assert not folder.exists() and len(names(tmp_path)) == 2  # what is written, and the lock
        with output_folder(folder.with_name("other")) as part:  # the living neighbour is left alone
            (part / "x").write_text("x")
        assert len(names(tmp_path)) == 3
        child.send_signal(signal.SIGKILL)
    assert not folder.exists()
    time.sleep(0.05)
    check_writable(folder)
    assert names(tmp_path) == {"other"}


def test_a_file_takes_the_place_of_what_a_killed_run_left(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    mine, gone = part_name("a.txt"), f".a.txt-{leftovers._HOST}-{child.pid}-{'0a' * 8}.part"
    namesake = f".a.txt-{leftovers._HOST}-{os.getpid()}-{'0a' * 8}.part"  # a run in a container that was process 1, too
    for name in (mine, gone, namesake):
        (tmp_path / name).touch()
    write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == {"a.txt", mine}


def test_folders_are_made_or_named(tmp_path):
    assert make_folder(tmp_path / "a" / "b") == make_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be made"):
            make_folder(place)


def test_leftovers_of_other_machines_and_other_files_stay(tmp_path):
    mine = ".somareg-00000000-1-abc.part"
    (tmp_path / mine).touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "data.part").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {mine, ".hidden", "data.part"}


def test_long_and_strange_names(tmp_path):
    for name in ("n" * 240 + ".txt", "ü %s <script>.txt", "new\nline.txt"):
        write_text(tmp_path / name, "ok")
        assert (tmp_path / name).read_text() == "ok"
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / ("n" * 300), "x")


def test_atomic_path_refuses_a_folder(tmp_path):
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pass
