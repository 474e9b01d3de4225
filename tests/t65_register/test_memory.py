"""Memory is planned from headers: a run goes another way or is refused before a pixel is read."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray

import somareg
from somareg.config import make_config
from somareg.errors import ConfigError, MemoryLimitError
from somareg.geometry import AffineTransform
from somareg.io import from_array
from somareg.io.inputs import locate
from somareg.io.source import Block, RasterSource
from somareg.preprocess.prepare import prepare
from somareg.register import api, roads
from somareg.register.choose import Chosen
from somareg.register.ground import Ground
from somareg.register.images import open_images
from somareg.register.locate import known_ground
from somareg.register.tiles.layout import SceneCfg
from somareg.register.tiles.overview import read_overview
from somareg.types import Estimate, Grid, Raster
from tests.t65_register.conftest import UTM, Files, write

register = partial(somareg.register, model="orientation")


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """30 000 px in a file of a few hundred kilobytes."""
    path = tmp_path / "sparse.tif"
    profile = {"width": 30_000, "height": 30_000, "count": 1, "dtype": "uint8", "tiled": True, "SPARSE_OK": True}
    with rasterio.open(path, "w", driver="GTiff", **profile):
        return path


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr(RasterSource, "read", refuse)


@pytest.mark.parametrize("call", ["register", "assess"])
def test_what_does_not_fit_is_refused_unread(files: Files, call: str, unread: None) -> None:
    with pytest.raises(MemoryLimitError) as caught:
        getattr(somareg, call)(files.moving, files.reference, max_memory="1MB")
    told = str(caught.value)
    for word in (str(files.moving), str(files.reference), "takes about", "1 MiB may be used", "--max-memory"):
        assert word in told
    assert "\n" not in told


def test_the_plan_tells_both_figures(files: Files) -> None:
    plan = api.plan(files.moving, files.reference, max_memory="2GB")
    assert plan["max_memory_mb"] == 2000
    assert 300 < plan["memory_mb"] < 1000
    refused = api.plan(files.moving, files.reference, max_memory="1MB")
    assert "would be refused" in refused["notes"][-1]


def test_a_large_moving_image_counts(sparse: Path, tmp_path: Path) -> None:
    """It is matched at the resolution of a small reference, whatever size it has."""
    small = tmp_path / "small.tif"
    with rasterio.open(small, "w", driver="GTiff", width=100, height=100, count=1, dtype="uint8") as file:
        file.write(np.full((1, 100, 100), 7, np.uint8))
    with pytest.raises(MemoryLimitError, match=r"30000 x 30000 px .*100 x 100 px.*cut out the part of the moving"):
        register(sparse, small, search="local", max_memory="20GB")
    with pytest.raises(MemoryLimitError, match="looking for"):  # a small image is looked for in a large one
        register(sparse, small, max_memory="500MB")


def test_tiles_where_the_whole_does_not_fit(files: Files, tmp_path: Path) -> None:
    grid = Grid(2000, 2000, (10.0, 0.0, 500000.0, 0.0, -10.0, 4600000.0), UTM)
    pair = [write(tmp_path / f"{n}.tif", np.zeros((1, 2000, 2000), np.uint8), grid) for n in "mr"]

    def road(**options: Any) -> roads.Road:
        cfg = make_config({"model": "orientation", **options})
        located = locate(pair[0], "moving"), locate(pair[1], "reference")
        with open_images(*located, cfg, again=True) as images:
            return roads.choose_road(images, known_ground(images, cfg), cfg, Chosen(), SceneCfg())

    plenty = road(max_memory="20GB")
    assert (plenty.is_tiled, plenty.note) == (False, "")
    between = (plenty.count + road(scene="always", max_memory="20GB").count) / 2
    short = road(max_memory=int(between))
    assert short.is_tiled
    assert short.count < between < plenty.count
    assert "matched in tiles: whole it would take" in short.note
    assert not road(max_memory=int(between), scene="never").is_tiled
    assert not road(max_memory="1MB").is_tiled  # which would not do either


@pytest.mark.parametrize(
    ("shape", "is_tiled"),
    [((520, 520), False), ((1023, 1500), False), ((1024, 1024), True), ((600, 2048), True), ((400, 2048), True)],
)
def test_tiles_need_room_side_by_side(tmp_path: Path, shape: tuple[int, int], is_tiled: bool) -> None:
    """Four tiles of the same pixels do not check each other, so that such a ground is matched whole."""
    image = np.zeros(shape, np.uint8)

    def road(**options: Any) -> roads.Road:
        cfg = make_config({"model": "orientation", "search": "local", "scene": "always", **options})
        with open_images(image, image, cfg) as images:
            return roads.choose_road(images, known_ground(images, cfg), cfg, Chosen(), SceneCfg())

    assert road(max_memory="20GB").is_tiled is is_tiled


def test_strips_of_half_an_image(tmp_path: Path, unread: None) -> None:
    """GDAL decodes a strip as a whole, whatever little of it is asked for; through a single one it goes row by row."""
    path, side = tmp_path / "strip.tif", 12_000
    with rasterio.open(
        tmp_path / "tiles.tif", "w", driver="GTiff", width=side, height=side, count=2, dtype="uint8", tiled=True,
        SPARSE_OK=True, photometric="MINISBLACK", ALPHA="YES",
    ):  # fmt: skip
        pass
    rasterio.shutil.copy(tmp_path / "tiles.tif", path, driver="GTiff", BLOCKYSIZE=side // 2, COMPRESS="DEFLATE")
    with pytest.raises(MemoryLimitError, match=r"pieces of 12000 x 6000 px.*gdal_translate -co TILED=YES"):
        register(path, path, max_memory="200MB")
    grid = Grid(side, side)
    with pytest.raises(MemoryLimitError, match="pieces of"):
        somareg.warp(path, Estimate(AffineTransform.identity(), grid, grid), max_memory="200MB")


def test_warping_in_memory_says_that_a_file_takes_less(files: Files, tmp_path: Path) -> None:
    result = register(files.moving, files.reference, preset="fast")
    with pytest.raises(MemoryLimitError, match="write a file"):
        somareg.warp(files.moving, result, max_memory=10_000)
    assert somareg.warp(files.moving, result, tmp_path / "out.tif", max_memory="20MB").is_file()


@pytest.mark.parametrize("given", ["lots", "-1GB", 0, -5, "2 parsecs"])
def test_sizes_that_are_none(given: Any) -> None:
    with pytest.raises(ConfigError, match="max_memory"):
        make_config({"max_memory": given})


@pytest.mark.parametrize(("given", "count"), [("2GiB", 2**31), ("1500MB", 1_500_000_000), (10**9, 1e9), ("5 gb", 5e9)])
def test_sizes(given: Any, count: float) -> None:
    assert make_config({"max_memory": given}).max_memory == count


# --- the search radius ------------------------------------------------------------------------------------------------


def pair_of(side: int, large: int | None = None) -> tuple[Raster, Raster]:
    rng = np.random.default_rng(3)
    texture = np.kron(rng.integers(0, 255, (80, 80)), np.ones((8, 8))).astype(np.uint8)

    def placed(data: NDArray[np.uint8], at: int) -> Raster:
        grid = Grid(data.shape[1], data.shape[0], (10.0, 0.0, 5e5 + 10 * at, 0.0, -10.0, 4.6e6 - 10 * at), UTM)
        return Raster(data[None], np.ones(data.shape, bool), grid)

    at, whole = 40 if large else 3, large or side
    return placed(texture[at : at + side, at : at + side], at), placed(texture[:whole, :whole], 0)


@pytest.mark.parametrize("option", [{"search_radius_px": 2000}, {"search_radius_m": 20_000.0}])
@pytest.mark.parametrize("placed", [True, False])
def test_a_radius_beyond_all_overlap_is_capped(option: dict[str, Any], placed: bool) -> None:
    moving, reference = pair_of(80)
    if not placed:
        if "search_radius_m" in option:
            pytest.skip("metres need a CRS")
        moving, reference = moving.data[0], reference.data[0]  # type: ignore[assignment]
    result = register(moving, reference, moving_modality="optical", preset="fast", **option)
    (note,) = (note for note in result.notes if note.startswith("searched"))
    assert note.startswith("searched 72 px far, not ")


def test_a_radius_that_may_be_of_use_is_kept(tmp_path: Path) -> None:
    """A small image may be anywhere in a large one, whichever of them it is."""
    small, large = pair_of(80, 600)
    for moving, reference in ((small, large), (large, small)):
        cfg = make_config({"search_radius_px": 500})
        with open_images(moving, reference, cfg) as images:
            ground = known_ground(images, cfg)
        assert ground.radius_px == 500
        assert ground.notes == ()
    with open_images(small, large, cfg := make_config({"search_radius_px": 5000})) as images:
        assert known_ground(images, cfg).radius_px == 540


# --- does it hold? ----------------------------------------------------------------------------------------------------

RUN = """
import sys, numpy as np, somareg
rng = np.random.default_rng(0)
image = np.kron(rng.integers(0, 255, (200, 200)), np.ones((6, 6))).astype("uint8")
side, search = int(sys.argv[1]), sys.argv[2]
somareg.register(image[:side, :side], image[3:3 + side, 3:3 + side], model="orientation", preset="base", search=search)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("side", [200, 900])
def test_the_estimate_is_an_upper_bound_and_no_wild_one(side: int) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, str(side), "local"], capture_output=True, text=True, check=True)
    taken = int(done.stdout) * 1024
    image = np.ones((side, side), np.uint8)
    cfg = make_config({"model": "orientation", "search": "local"})
    with open_images(image, image, cfg) as images:
        road = roads.choose_road(images, known_ground(images, cfg), cfg, Chosen(), SceneCfg())
    assert 0.85 * taken < road.count < 2.5 * taken, (taken / 1e6, road.count / 1e6)


def test_strips_of_a_large_image_are_not_kept(sparse: Path) -> None:
    """Samples of a strip held on to the strip: an overview took the memory of the whole image."""
    cfg = make_config({"moving_modality": "sar", "reference_modality": "sar"})
    with open_images(str(sparse), str(sparse), cfg, again=True) as images:
        tracemalloc.start()
        read_overview(images.moving, Block(0, 0, 30_000, 30_000), 20, "moving", cfg)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize("side", [70, 150, 400, 900])
def test_the_plan_knows_when_a_bare_image_is_brought_to_the_references_pixels(side: int) -> None:
    """A coarse image takes as much memory as a fine one of the same ground."""
    reference, moving = (np.random.default_rng(n).random((1, n, n)).astype(np.float32) for n in (300, side))
    here, there = from_array(reference, role="reference"), from_array(moving, role="moving")
    nothing = AffineTransform.identity()
    made = prepare(there, here, nothing, make_config({}), longest=4096, radius_px=40.0)
    parts = Block(0, 0, 300, 300), Block(0, 0, side, side)
    planned = roads.working_sizes(Ground(*parts, 40.0, nothing, is_placed=False), 1)
    assert planned == (made.reference.shape[1:], made.moving.shape[1:])
