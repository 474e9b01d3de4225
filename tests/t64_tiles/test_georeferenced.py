"""Scenes with a place on the map: through two georeferences, with a STAC Item, in radar geometry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio

from somareg import SceneResult
from somareg.register.tiles.layout import SceneCfg
from somareg.types import Grid
from tests.t64_tiles.conftest import run
from tests.t65_register.conftest import REFERENCE, place_by_points, swath, write_pair
from tests.t65_register.test_stac import check


def test_georeferenced(geo: tuple[Path, Path], geo_result: SceneResult) -> None:
    found, out = geo_result, geo_result.folder
    points = np.random.default_rng(0).uniform(40, 600, (500, 2))
    errors = np.hypot(*(found.correction(points) - points - (3.4, -5.2)).T)
    assert np.sqrt((errors**2).mean()) < 0.5
    assert found.verdict.decision == "go"
    with rasterio.open(out / "displacement.tif") as file, rasterio.open(geo[1]) as like:
        assert (file.width, file.height) == (40, 40)
        assert file.transform.a == 16 * like.transform.a
        assert (file.transform.c, file.transform.f) == (like.transform.c, like.transform.f)
        assert file.crs == like.crs
    # Tie points lead from reference pixels to pixels of the moving file, through both georeferences.
    ties, seen = found.tie_points, found.tie_points.inlier
    expected = (ties.reference_xy + (3.4, -5.2) + 50 + 0.5) / 1.2 - 0.5
    assert np.median(np.hypot(*(ties.moving_xy - expected)[seen].T)) < 0.7


def test_stac_item(geo: tuple[Path, Path], geo_result: SceneResult) -> None:
    """Valid, and its assets are the files as they lie in the folder."""
    path = geo_result.folder / "item.json"
    document = json.loads(path.read_text())
    check(document)
    item = pystac.Item.from_file(str(path))
    paths = {key: Path(str(asset.get_absolute_href())) for key, asset in item.assets.items()}
    assert {file.name for file in paths.values()} == {file.name for file in geo_result.folder.iterdir()} - {path.name}
    assert all(file.is_file() for file in paths.values())
    with rasterio.open(paths["aligned"]) as file:
        assert item.properties["proj:code"] == "EPSG:32633"
        assert item.properties["proj:shape"] == list(file.shape)
        assert item.properties["proj:transform"] == list(file.transform)[:6]
    assert item.properties["accuracy:geometric_rmse"] == pytest.approx(10 * geo_result.predicted_rmse_px, rel=2e-3)
    assert item.properties["somareg:verdict"] == geo_result.verdict.decision == "go"
    sources = [link.get_absolute_href() for link in item.links if link.rel == "derived_from"]
    assert all(Path(str(source)).samefile(file) for source, file in zip(sources, geo, strict=True))


def test_the_item_places_displacement_on_its_own_grid(geo_result: SceneResult) -> None:
    """One pixel of displacement.tif covers 16 x 16 of the reference: whoever believes the Item's shape misplaces it."""
    item = pystac.Item.from_file(str(geo_result.folder / "item.json"))
    told = item.assets["displacement"].extra_fields
    with rasterio.open(geo_result.folder / "displacement.tif") as file:
        assert told["proj:shape"] == list(file.shape) == [40, 40]
        assert told["proj:transform"] == list(file.transform)[:6]
    assert not any(name.startswith("proj:") for name in item.assets["aligned"].extra_fields)


@pytest.mark.usefixtures("no_page")
def test_radar_geometry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The SAR image has ground control points and nothing else; that is said once, not once per tile."""
    reference = Grid(448, 448, REFERENCE.transform, REFERENCE.crs)
    grid = swath(reference, 600)
    files = write_pair(tmp_path, grid, reference=reference, shift=(5.0, -3.0))
    assert grid.control is not None
    place_by_points(files.moving, grid.control)
    sizes = SceneCfg(tile_px=192, overlap_px=32, overview_px=384)  # four side by side
    found = run(files.moving, files.reference, tmp_path / "out", sizes=sizes)
    assert found.verdict.decision == "go"
    assert len(found.tiles) >= 4
    points = np.random.default_rng(0).uniform(40, 408, (500, 2))
    errors = found.correction(points) - points - files.shift
    assert np.sqrt((errors**2).sum(1).mean()) < 0.3
    np.testing.assert_allclose(files.claimed(found.transform(points)), found.correction(points), atol=0.05)
    said = [record.message for record in caplog.records if "moving" in record.message and "terrain" in record.message]
    assert len(said) == 1
    assert said[0] in found.notes
