"""Whole scenes: accuracy, seams, files, windows that are read, what fails and what is refused."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import somareg
from somareg import SceneResult, register_scene
from somareg.config import make_config
from somareg.errors import OutputError, UnsupportedError
from somareg.geometry import AffineTransform
from somareg.io import read_estimate
from somareg.io.lock import folder_lock
from somareg.io.source import Block, RasterSource
from somareg.matching.describe import OrientationFeatures
from somareg.matching.doubts import NO_DOUBTS, Rival
from somareg.matching.engine import Alignment, EngineCfg
from somareg.matching.evidence import NO_EVIDENCE, forward_backward
from somareg.matching.matcher import Matcher
from somareg.matching.parts import Part
from somareg.register import choose
from somareg.register.choose import Chosen
from somareg.register.images import open_images
from somareg.register.locate import known_ground
from somareg.register.slips import SAMPLE_PX
from somareg.register.tiles import overview, patch, rounds, tile
from somareg.register.tiles.job import TileJob, TileSettings
from somareg.register.tiles.overview import GlobalMatch
from somareg.register.tiles.patch import read_patches
from somareg.register.tiles.tile import TileResult, match_tile
from somareg.report import load_report
from somareg.soma.dinov2_files import in_folder
from tests.small_network import save_network, small_network
from tests.t64_tiles.conftest import SIDE, SIZES, Pair, bend, ground, make_geo_pair, paint, run, save, speckle, warp
from tests.tiny_dinov2 import network_on, saved


def test_finds_affine_and_smooth_warp(pair: Pair, result: SceneResult) -> None:
    errors = pair.errors(result)
    assert np.sqrt((errors**2).mean()) < 0.35
    assert np.percentile(errors, 99) < 1.0
    assert result.verdict.decision == "go"
    assert {tile.status for tile in result.tiles} == {"matched"}


def test_held_out_error_is_honest(pair: Pair, result: SceneResult) -> None:
    true = float(np.sqrt((pair.errors(result) ** 2).mean()))
    assert 0.4 * true < result.predicted_rmse_px < 4 * true + 0.3


def test_displacement_has_no_seams(result: SceneResult) -> None:
    """The second derivative beside the tiles' edges is like anywhere else, and small."""
    bends = np.abs(np.diff(result.displacement.array[0].astype(float), 2, axis=1)).max(0)
    step = SIZES.step_px
    edges = {(x + side) // step for x in (0, 192, 384, 576, 768) for side in (0, 256)}
    at_edges = np.array([i + 1 in edges or i + 2 in edges for i in range(len(bends))])
    assert bends.max() < 0.1  # pixels per node^2: the true warp reaches 0.02
    assert bends[at_edges].mean() < 1.5 * bends[~at_edges].mean() + 1e-3


def test_certainty_is_high_inside(result: SceneResult) -> None:
    certainty = result.displacement.certainty
    assert certainty[8:-8, 8:-8].min() > 0.7
    assert certainty.max() <= 1.0


def test_files(pair: Pair, result: SceneResult) -> None:
    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "aligned.tif",
        "displacement.tif",
        "tie_points.geojson",
        "gcps.points",
        "aligned.qgz",
        "displacement.qml",
        "report.json",
        "report.html",
    }
    record = load_report(result.folder / "report.json")
    assert record.verdict.decision == "go"
    assert record.settings["scene"] == "always"
    assert record.reference.width == SIDE
    assert record.moving.valid_share == pytest.approx(1.0)
    assert record.tie_points.total == len(result.tie_points)
    features = json.loads((result.folder / "tie_points.geojson").read_text())["features"]
    assert len(features) == len(result.tie_points)


def test_aligned_image_lies_on_the_reference(pair: Pair, result: SceneResult, tmp_path: Path) -> None:
    """It equals the moving image sampled at the true places."""
    with rasterio.open(result.folder / "aligned.tif") as file:
        aligned = file.read(1).astype(float)
    with rasterio.open(pair.moving) as file:
        before = file.read(1).astype(float)
    with rasterio.open(pair.reference) as file:
        reference = file.read(1).astype(float)

    def common_edges(image: Any) -> float:
        size = [np.hypot(*np.gradient(a))[60:-60, 60:-60].ravel() for a in (np.log(image + 1), reference)]
        return float(np.corrcoef(*size)[0, 1])

    assert common_edges(aligned) > common_edges(before) + 0.1


def test_estimate_is_read_back_and_applied(pair: Pair, result: SceneResult) -> None:
    points = np.random.default_rng(0).uniform(-100, SIDE + 100, (500, 2))
    again = read_estimate(result.folder)
    np.testing.assert_allclose(again.correction(points), result.correction(points), atol=2e-4)
    with rasterio.open(result.folder / "aligned.tif") as file:
        aligned = file.read(1)
    warped = warp(pair.moving, result.folder).data[0]
    assert (warped == aligned).mean() > 0.999


@pytest.mark.usefixtures("no_page")
def test_reads_windows_only(small: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[Block] = []
    stages = [""]
    read = RasterSource.read

    def counted(self: RasterSource, block: Block | None = None, *more: Any) -> Any:
        assert block is not None, "the whole image was read"
        if stages[-1] == "writing tie points":  # then the project, which looks how bright the images are
            assert block.width * block.height <= 256**2
        elif stages[-1] != "warping":  # whose blocks are 1024 px, see its own tests
            blocks.append(block)
        return read(self, block, *more)

    monkeypatch.setattr(RasterSource, "read", counted)
    monkeypatch.setattr(overview, "STRIP_VALUES", 640 * 64)
    run(small.moving, small.reference, tmp_path / "out", progress=lambda stage, share: stages.append(stage))
    largest = max(block.width * block.height for block in blocks)
    tile = SIZES.tile_px + 2 * (SIZES.search_px(2) + 32 + 16)
    middle = SAMPLE_PX**2  # whose statistics tell swapped modalities
    assert largest <= max(tile**2, 640 * 64, middle)
    assert largest < 0.7 * small.side**2
    assert len([block for block in blocks if block.width * block.height != middle]) == 2 * 10 + 2 * 9


@pytest.mark.usefixtures("no_page")
def test_failing_tile_is_recorded(small: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(job: TileJob) -> TileResult:
        if job.index == 4:
            raise MemoryError("no room for tile 4")
        return match_tile(job)

    monkeypatch.setattr(rounds, "match_tile", fails)
    found = run(small.moving, small.reference, tmp_path / "out")
    assert [tile.status for tile in found.tiles].count("failed") == 1
    assert found.tiles[4].reason == "MemoryError: no room for tile 4"
    assert any("no room for tile 4" in note for note in found.notes)
    assert np.sqrt((small.errors(found) ** 2).mean()) < 0.6


def test_unrelated_images_are_refused(small: Pair, tmp_path: Path) -> None:
    other = save(tmp_path / "other.tif", speckle(paint(ground(640, 77), 78), 79)[None])
    found = run(other, small.reference, tmp_path / "out")
    assert found.verdict.decision == "no-go"
    assert not (tmp_path / "out" / "aligned.tif").exists()
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.usefixtures("no_page")
def test_half_without_data(small: Pair, tmp_path: Path) -> None:
    with rasterio.open(small.moving) as file:
        data = file.read()
    data[:, :, 320:] = 0
    half = save(tmp_path / "half.tif", data, nodata=0)
    found = run(half, small.reference, tmp_path / "out")
    assert "empty" in {tile.status for tile in found.tiles}
    certainty = found.displacement.certainty
    assert certainty[:, 24:].max() == 0
    assert certainty[4:-4, 4:14].min() > 0.5
    assert load_report(tmp_path / "out" / "report.json").moving.valid_share == pytest.approx(0.5)


def test_lock(small: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folder_lock(out), pytest.raises(OutputError, match="in use by another run"):
        run(small.moving, small.reference, out)


def test_folder_with_something_in_it(small: Pair, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        run(small.moving, small.reference, tmp_path)


def test_tile_is_the_same_in_another_process(tmp_path: Path) -> None:
    """A job and its result are pickled; between different CRSs the georeference is a program, not a matrix."""
    moving, reference = make_geo_pair(tmp_path)
    cfg = make_config({"model": "orientation", "reference_scale": "dB", "moving_scale": "amplitude"})
    with rasterio.open(moving, "r+") as file:
        file.crs = "EPSG:25833"
    with open_images(moving, reference, cfg) as images:
        georef = images.georef
        parts = Block(0, 0, *images.moving.grid.shape[::-1]), Block(0, 0, *images.reference.grid.shape[::-1])
    start, cpu = AffineTransform.from_parameters(shift=(2.0, -4.0)), "cpu"
    settings = TileSettings(
        moving, reference, *parts, (1,), (1,), cfg, georef, (georef,), start, 20.0, EngineCfg(), None, cpu
    )
    job = TileJob(3, Block(200, 150, 256, 256), settings)
    here, there = match_tile(job), pickle.loads(pickle.dumps(match_tile(pickle.loads(pickle.dumps(job)))))
    assert here.status == there.status == "matched"
    for name in ("points", "beyond", "precision", "hit"):
        assert getattr(here, name).tobytes() == getattr(there, name).tobytes()
    assert here.points.min(0) == pytest.approx((200 + 27.5, 150 + 27.5), abs=1)
    assert np.median(here.beyond, axis=0) == pytest.approx((1.4, -1.2), abs=0.3)


@pytest.mark.usefixtures("no_page")
def test_learned_model(small: Pair, tmp_path: Path) -> None:
    """Untrained weights align nothing, and the verdict must say so; the whole path runs on them."""
    weights = save_network(small_network(), tmp_path / "small.safetensors")
    found = register_scene(small.moving, small.reference, tmp_path / "out", model=str(weights), sizes=SIZES)
    assert found.settings["model_used"] == str(weights)
    assert {tile.status for tile in found.tiles} <= {"matched", "failed"}
    assert all(np.isfinite(tile.beyond).all() for tile in found.tiles)


@pytest.mark.usefixtures("no_page")
def test_tiles_take_the_dinov2_that_is_named(small: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder, too: a worker need not run where the user typed."""
    encoder = saved(tmp_path / "tiny-dinov2")
    weights = save_network(network_on(encoder), tmp_path / "heath.safetensors")
    monkeypatch.chdir(tmp_path)
    asked = {"model": str(weights), "dinov2": "tiny-dinov2", "sizes": SIZES}
    found = register_scene(small.moving, small.reference, tmp_path / "out", **asked)
    assert found.settings["dinov2"] == str(encoder)
    assert found.settings["dinov2_sha256"] == in_folder(encoder).identity().sha256
    assert len(found.tiles) > 1


def test_other_processes_do_not_see_arrays(small: Pair, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="in memory"):
        run(np.ones((640, 640)), small.reference, tmp_path / "out", workers=2)


def test_missing_pystac_is_told_before_any_work(small: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystac", None)
    with pytest.raises(UnsupportedError, match="pystac"):
        run(small.moving, small.reference, tmp_path / "out", stac=True)
    assert not (tmp_path / "out").exists()


def overviews(pair: Pair, chosen: Chosen, reach_px: float = 150.0) -> GlobalMatch:
    """Both images at a quarter, matched by an engine."""
    cfg = make_config({"model": "orientation"})
    with open_images(pair.moving, pair.reference, cfg) as images:
        ground = known_ground(images, cfg)
        read = overview.read_overview
        views = (
            read(images.reference, ground.reference, 4, "reference", cfg),
            read(images.moving, ground.moving, 4, "moving", cfg),
        )
        engine = chosen, torch.device("cpu")
        return overview.match_overviews(views, ground, cfg, engine, None, lambda stage, share: None, reach_px)


@pytest.mark.parametrize(
    ("rival", "zscore", "is_told"),
    [
        (Rival(0.9, (30.0, 40.0), 0.2), 4.0, True),
        (Rival(0.9, (15.0, 20.0), 0.2), 4.0, False),  # 100 px of the reference: within the reach of tiles
        (Rival(0.9, (30.0, 40.0), 0.8), 4.0, False),  # a ridge begins within their reach
        (Rival(0.6, (30.0, 40.0), 0.2), 4.0, False),
        (Rival(0.9, (30.0, 40.0), 0.2), 1.0, False),
    ],
)
def test_a_second_place_that_no_tile_sees_is_told(
    small: Pair, monkeypatch: pytest.MonkeyPatch, rival: Rival, zscore: float, is_told: bool
) -> None:
    found = Alignment(
        AffineTransform.identity(),
        evidence=replace(NO_EVIDENCE, zscore=zscore),
        doubts=replace(NO_DOUBTS, rival=rival, part=Part(2.0, (9.0, 0.0), 0, 0)),  # tiles find displaced parts
    )
    monkeypatch.setattr(overview, "align", lambda *given, **more: found)
    assert ["200 px away, at (+120, +160)" in doubt for doubt in overviews(small, Chosen()).doubts] == [True] * is_told


def test_notes_of_the_engine_are_told_once(small: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the engine of the tiles stand in the result; the overview adds why it took another one."""
    assert overviews(small, Chosen(notes=("matched without weights",))).notes == ()
    network = small_network()
    monkeypatch.setattr(choose, "MIN_SIDE", 161)  # an overview has 160
    (note,) = overviews(small, Chosen("model", network, notes=("read with care",))).notes
    assert "model needs 161 px a side" in note


def job_of(pair: Pair) -> TileJob:
    cfg = make_config({"model": "orientation", "moving_scale": "amplitude"})
    part = Block(0, 0, pair.side, pair.side)
    georef = AffineTransform.identity()
    start, engine = AffineTransform.from_parameters(shift=(9.0, -6.0)), EngineCfg()
    settings = TileSettings(
        pair.moving, pair.reference, part, part, (1,), (1,), cfg, georef, (georef,), start, 20.0, engine, None, "cpu"
    )
    return TileJob(0, Block(200, 150, 256, 256), settings)


def test_a_tile_that_is_drawn_all_over_is_no_evidence(small: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overview, at a fraction of the resolution, may not see what is drawn over a tile."""
    found = patch.ground_only
    monkeypatch.setattr(patch, "ground_only", lambda *a, **k: replace(found(*a, **k), doubts=("Something is drawn.",)))
    empty = match_tile(job_of(small))
    assert (empty.status, empty.figures) == ("empty", {})
    assert "drawn all over" in empty.reason


def test_tiles_bring_the_figures_that_the_calibration_was_fitted_on(small: Pair) -> None:
    """Without a network forward-backward is a refinement with the roles exchanged, as for a small pair."""
    job = job_of(small)
    settings, engine = job.settings, job.settings.engine
    found = read_patches(job)
    assert not isinstance(found, str)
    affine, _, _, alignment = tile.match_windows(*found, settings, None)
    images = found[0]
    with torch.inference_mode():
        swapped = Matcher(images.swapped(), OrientationFeatures(engine.features))
        expected = forward_backward(swapped, affine, images.shape)
    assert alignment.forward_backward_px == pytest.approx(expected, rel=1e-6)
    figures = match_tile(job).figures
    assert figures["forward_backward"] == alignment.forward_backward_px
    rival = alignment.doubts.rival
    assert (figures["rival"], figures["ridge"]) == (rival.height, rival.ridge)
    assert (figures["rival_dx"], figures["rival_dy"]) == rival.shift_px


# --- masks in files ---------------------------------------------------------------------------------------------------


def test_a_mask_in_a_file_holds_in_every_tile(small: Pair, tmp_path: Path) -> None:
    """A lure under it, half of the scene elsewhere, pulls no tile; the mask is coarser and read window by window."""
    with rasterio.open(small.moving) as file:
        data = file.read()
    data[:, 320:] = np.roll(data, 11, axis=2)[:, 320:]
    lure = save(tmp_path / "lure.tif", data, nodata=0)
    classes = np.full((1, 160, 160), 5, np.uint8)
    classes[:, 80:] = 9
    mask = save(tmp_path / "scl.tif", classes)
    found = run(lure, small.reference, tmp_path / "out", moving_mask=mask, moving_mask_values="8-10")
    assert found.tiles
    axis = np.stack(np.meshgrid(np.arange(40.0, 600, 9), np.arange(40.0, 260, 9)), axis=-1).reshape(-1, 2)
    apart = found.correction(axis) - axis - bend(axis)
    assert np.sqrt((apart**2).sum(1).mean()) < 1.0
    assert not found.displacement.certainty[24:].any()
    with rasterio.open(tmp_path / "out" / "aligned.tif") as file:
        assert not (file.read_masks(1)[350:] > 0).any()
    again = somareg.warp(lure, tmp_path / "out")
    assert again.mask.mean() == pytest.approx(0.5, abs=0.05)


def test_a_run_that_was_killed_does_not_go_on_with_another_mask(small: Pair, tmp_path: Path) -> None:
    def stop(stage: str, share: float) -> None:
        if stage.startswith("tile 2/"):
            raise KeyboardInterrupt

    mask = save(tmp_path / "mask.tif", np.ones((1, 640, 640), np.uint8))
    with pytest.raises(KeyboardInterrupt):
        run(small.moving, small.reference, tmp_path / "out", moving_mask=mask, progress=stop)
    save(mask, np.full((1, 640, 640), 2, np.uint8))
    with pytest.raises(OutputError, match=r"something else \(masks changed\)"):
        run(small.moving, small.reference, tmp_path / "out", moving_mask=mask, resume=True)
