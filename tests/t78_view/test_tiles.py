"""What tiles show: the pixels of the images, where they belong, at every zoom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from somareg.geometry import AffineTransform
from somareg.view import Scene, find_folder
from somareg.view.images import SceneImage
from somareg.view.pyramid import TILE_PX, Area, Pyramid

from .conftest import NORTH, SIDE, UTM, Made, write


def whole(scene: Scene, name: str) -> np.ndarray:
    """All tiles of the finest level, joined and cut to the image."""
    level, pyramid = scene.pyramid.levels - 1, scene.pyramid
    columns, rows = (range(-(-n // TILE_PX)) for n in (pyramid.width, pyramid.height))
    joined = [np.concatenate([scene.tile(name, pyramid.tile(level, c, r))[0] for c in columns], axis=1) for r in rows]
    return np.concatenate(joined)[: pyramid.height, : pyramid.width]


@pytest.mark.parametrize("name", ["reference", "before", "after"])
@pytest.mark.parametrize("kind", ["georeferenced", "plain"])
def test_tiles_are_the_pictures_of_the_report(kind: str, name: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(kind)
    with Scene(find_folder(made.folder)) as scene:
        shown = whole(scene, name)
    expected = getattr(made.result.previews, name)
    inside = slice(8, -8), slice(8, -8)
    # aligned.tif was sampled with the cubic kernel, the report's picture with the bilinear one, which narrows the black
    # and white points of the moving image: a few grey levels in the bright parts.
    mean, most = {"reference": (0.1, 1), "before": (3, 12), "after": (20, 255)}[name]
    assert shown.shape == expected.shape
    off = np.abs(shown[inside].astype(int) - expected[inside].astype(int))
    assert off.mean() <= mean
    assert off.max() <= most


def test_without_aligned_tif_the_same_place_is_computed(georeferenced: Made, tmp_path: Path) -> None:
    for name in ("report.json", "displacement.tif"):
        (tmp_path / name).write_bytes((georeferenced.folder / name).read_bytes())
    with Scene(find_folder(tmp_path)) as scene:
        assert any("was not written" in note for note in scene.notes)
        shown = whole(scene, "after")
    expected = georeferenced.result.previews.after
    assert np.abs(shown.astype(int) - expected.astype(int))[8:-8, 8:-8].mean() < 0.5


def test_pyramid_covers_every_pixel_once() -> None:
    pyramid = Pyramid(1000, 300)
    assert pyramid.steps == [4, 2, 1]
    seen = np.zeros((300, 1000), int)
    for row in range(2):
        for column in range(4):
            x, y = np.moveaxis(pyramid.tile(2, column, row).points, -1, 0)
            inside = (x < 1000) & (y < 300)
            np.add.at(seen, (y[inside].astype(int), x[inside].astype(int)), 1)
    assert (seen == 1).all()
    for wrong in ((3, 0, 0), (-1, 0, 0), (2, 4, 0), (2, 0, 2), (0, 1, 0), (2, -1, 0)):
        with pytest.raises(KeyError):
            pyramid.tile(*wrong)


@pytest.mark.parametrize("step", [1, 2, 4, 8, 16, 3.7])
def test_a_reduced_ramp_keeps_its_place(tmp_path: Path, step: float) -> None:
    side = 2600  # larger than the copy in memory
    ramp = (np.arange(side)[None, :] + 2.0 * np.arange(side)[:, None]).astype(np.float32)
    image = SceneImage(write(tmp_path / "ramp.tif", ramp[None], UTM, NORTH), "reference")
    area = Area(256 * 2, 256, step, 100, 60)
    data, mask = image.picture(area)
    image.close()
    x, y = np.moveaxis(area.points, -1, 0)
    assert mask.all()
    np.testing.assert_allclose(data[0], x + 2 * y, atol=0.35 * step)
    assert abs(float((data[0] - x - 2 * y).mean())) < 0.05 * step


def test_nodata_is_transparent_and_never_mixed(tmp_path: Path) -> None:
    data = np.full((1, 400, 400), 1000, np.uint16)
    data[:, :, :201] = 0
    image = SceneImage(write(tmp_path / "half.tif", data, UTM, NORTH), "reference", nodata=0)
    for step in (1, 2):
        values, mask = image.picture(Area(0, 0, step, 400 // step, 400 // step))
        assert not mask[:, : 200 // step].any() and mask[:, 202 // step :].all()
        assert (values[0][mask] == 1000).all()
    image.close()


def test_another_crs_and_size_are_seen_through_the_reference(tmp_path: Path) -> None:
    """A dot in longitude and latitude shows up at the reference pixel that its ground has."""
    from rasterio.warp import transform

    from somareg.io.georef import georeference
    from somareg.types import Grid

    (lon,), (lat,) = transform(UTM, "EPSG:4326", [501_505.0], [4_998_005.0])  # centre of pixel (150, 199)
    size = 0.0001
    dots = np.zeros((1, 500, 500), np.uint8)
    dots[0, 245:256, 245:256] = 200
    place = Affine(size, 0, lon - 250.5 * size, 0, -size, lat + 250.5 * size)
    image = SceneImage(write(tmp_path / "lonlat.tif", dots, "EPSG:4326", place), "moving")
    from rasterio.crs import CRS

    reference = Grid(SIDE, SIDE, tuple(NORTH)[:6], CRS.from_user_input(UTM).to_wkt())
    image.to_pixels = georeference(reference, image.grid)
    data, _ = image.picture(Area(0, 0, 1, SIDE, SIDE))
    image.close()
    y, x = np.mgrid[:SIDE, :SIDE]
    weight = data[0].astype(float)
    assert (weight * x).sum() / weight.sum() == pytest.approx(150, abs=0.1)
    assert (weight * y).sum() / weight.sum() == pytest.approx(199, abs=0.1)


def test_certainty_of_a_scene_lies_on_its_nodes(tmp_path: Path) -> None:
    """One pixel of the file stands for 16 x 16 reference pixels."""
    values = np.arange(20, dtype=np.float32)[None, None, :].repeat(20, axis=1)
    image = SceneImage(write(tmp_path / "nodes.tif", values, UTM, NORTH), "displacement")
    image.to_pixels = AffineTransform(np.array([[1 / 16, 0, (1 / 16 - 1) / 2], [0, 1 / 16, (1 / 16 - 1) / 2]]))
    data, _ = image.picture(Area(0, 0, 1, 320, 320))
    image.close()
    x = np.arange(320)
    np.testing.assert_allclose(data[0, 5, 8:-8], (x[8:-8] - 7.5) / 16, atol=1e-4)


def test_places_that_were_not_seen_are_striped(opened: Scene, georeferenced: Made) -> None:
    layer, area = opened.layers["error"], opened.pyramid.overview(SIDE)
    values, mask = layer.values(area)
    sigma = georeferenced.result.displacement.sigma
    np.testing.assert_array_equal(mask, np.isfinite(sigma))
    np.testing.assert_allclose(values[mask], sigma[mask], atol=1e-4)
    picture, shown = layer.tile(area)
    assert shown[mask].all()
    hidden = shown & ~mask
    assert (picture[hidden] == (154, 160, 166)).all()
    if (~mask).sum() > 500:
        assert 0.15 < hidden.sum() / (~mask).sum() < 0.35
    legend = layer.legend()
    assert legend["first"] and legend["high"].endswith(" m)") and " px (" in legend["high"]
    assert not any(other.legend()["first"] for name, other in opened.layers.items() if name != "error")


def test_layers_show_their_figures(opened: Scene, georeferenced: Made) -> None:
    area = opened.pyramid.overview(SIDE)
    certainty, mask = opened.layers["certainty"].values(area)
    assert mask.all()
    np.testing.assert_allclose(certainty, georeferenced.result.displacement.certainty, atol=1e-5)
    local, _ = opened.layers["local"].values(area)
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    xy = np.stack([x.ravel(), y.ravel()], axis=-1)
    truth = np.hypot(*(georeferenced.result.correction(xy) - georeferenced.result.affine(xy)).T).reshape(SIDE, SIDE)
    np.testing.assert_allclose(local, truth, atol=0.2)
    residual, seen = opened.layers["residual"].values(area)
    ties = georeferenced.result.tie_points
    kept = ties.residual_px[ties.inlier]
    assert seen.any() and kept.min() - 1e-3 <= residual[seen].min() <= residual[seen].max() <= kept.max() + 1e-3
    for legend in (layer.legend() for layer in opened.layers.values()):
        assert len(legend["colours"]) == 6 and legend["title"] and legend["caption"]


def test_a_missing_image_is_told_and_the_rest_is_shown(plain: Made, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    folder.mkdir()
    for file in plain.folder.iterdir():
        text = file.read_bytes().replace(b"moving.tif", b"nowhere.tif") if file.suffix == ".json" else file.read_bytes()
        (folder / file.name).write_bytes(text)
    with Scene(find_folder(folder)) as scene:
        assert set(scene.images) == {"reference", "after"}
        assert any("--moving FILE" in note for note in scene.notes)
    given = plain.folder.parent / "moving.tif"
    with Scene(find_folder(folder, moving=given)) as scene:
        assert set(scene.images) == {"reference", "before", "after"}
