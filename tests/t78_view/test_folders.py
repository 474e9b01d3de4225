"""Folders of every origin in the viewer: a scene, whose displacement lies on nodes, and a swath in radar geometry."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from starlette.testclient import TestClient

from somareg import report
from somareg.types import TiePoints, Transform
from somareg.view import Scene, Server, find_folder, make_app
from somareg.view.arrows import NOTHING_PX
from somareg.view.pyramid import TILE_PX
from tests.t64_tiles.conftest import bend, make_pair, run, save
from tests.t65_register.conftest import place_by_points, swath, write_pair
from tests.t65_register.conftest import register as register_pair

from .browser import Browser, find_chromium
from .conftest import PORT, TOKEN
from .test_browser import differs, look

Array = NDArray[Any]
SIDE = 650  # not a multiple of the nodes' 16 px: the last of them stand for less
SHIFT = 5.0, -3.0
CHROMIUM = find_chromium()


@dataclass(frozen=True)
class Shown:
    """An open folder, what was found and what is true.

    Attributes:
        scene: in the viewer.
        client: of its server.
        correction, affine, ties, certainty: that were found; the certainty (h, w) as in `displacement.tif`.
        truth: displacements (N, 2) at reference pixels (N, 2).
    """

    scene: Scene
    client: TestClient
    correction: Transform
    affine: Transform
    ties: TiePoints
    certainty: Array
    truth: Any

    def json(self, path: str) -> Any:
        answer = self.client.get(f"/{TOKEN}/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def whole(self, name: str, level: int | None = None) -> Array:
        """(h, w, 4) all tiles of a level (the finest) as the server sends them, joined and cut to the image."""
        pyramid = self.scene.pyramid
        level = pyramid.levels - 1 if level is None else level
        size = [-(-n // pyramid.steps[level]) for n in (pyramid.height, pyramid.width)]
        rows, columns = (range(-(-n // TILE_PX)) for n in size)
        joined = [np.concatenate([self._tile(name, level, c, r) for c in columns], axis=1) for r in rows]
        return np.concatenate(joined)[: size[0], : size[1]]

    def _tile(self, name: str, level: int, column: int, row: int) -> Array:
        answer = self.client.get(f"/{TOKEN}/tiles/{name}/{level}/{column}/{row}.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.shape[:2] == (TILE_PX, TILE_PX)
        if picture.shape[2:] == (4,):
            return picture
        return cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)


def show(folder: Path, found: Any, truth: Any) -> Iterator[Shown]:
    with Scene(find_folder(folder)) as scene:
        client = TestClient(make_app(scene, TOKEN, PORT), base_url=f"http://127.0.0.1:{PORT}")
        certainty = found.displacement.certainty
        yield Shown(scene, client, found.correction, found.affine, found.tie_points, certainty, truth)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Nine tiles, no georeference, an affine and a smooth warp apart. The one-file report is not looked at."""
    place = tmp_path_factory.mktemp("tiled")
    pair = make_pair(place, SIDE, seed=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "render_report", lambda result, record: "")
        found = run(pair.moving, pair.reference, place / "out")
    yield from show(place / "out", found, bend)


@pytest.fixture(scope="module")
def radar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The moving image has ground control points and no geotransform; the georeferences are a shift apart."""
    place = tmp_path_factory.mktemp("radar")
    grid = swath()
    files = write_pair(place, grid, shift=SHIFT)
    assert grid.control is not None
    place_by_points(files.moving, grid.control)
    found = register_pair(files.moving, files.reference)
    found.save(place / "out")
    yield from show(place / "out", found, lambda points: np.broadcast_to(SHIFT, points.shape))


@pytest.fixture(params=["tiled", "radar"])
def shown(request: pytest.FixtureRequest) -> Shown:
    value: Shown = request.getfixturevalue(request.param)
    return value


def edges(picture: Array) -> Array:
    return np.hypot(*np.gradient(cv2.GaussianBlur(picture[..., :3].mean(-1), (0, 0), 1.0)))


def likeness(one: Array, other: Array, rim: int = 30) -> float:
    """Correlation of the edges of two pictures, -1 to 1."""
    inner = slice(rim, -rim), slice(rim, -rim)
    return float(np.corrcoef(edges(one)[inner].ravel(), edges(other)[inner].ravel())[0, 1])


def lattice(scene: Scene, step: int = 7) -> Array:
    axes = (np.arange(10.0, n - 10, step) for n in (scene.pyramid.width, scene.pyramid.height))
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)


def test_nothing_is_left_out(shown: Shown) -> None:
    told = shown.json("scene.json")
    assert not shown.scene.notes
    assert list(told["images"]) == ["reference", "before", "after"]
    assert list(told["layers"]) == ["error", "certainty", "local", "residual"]
    assert (told["width"], told["height"]) == (shown.scene.pyramid.width, shown.scene.pyramid.height)


def test_the_aligned_image_lies_on_the_reference_and_the_moving_one_does_not(shown: Shown) -> None:
    pictures = {name: shown.whole(name) for name in ("reference", "before", "after")}
    for picture in pictures.values():
        assert (picture[..., 3] == 255).mean() > 0.9
        assert picture[..., :3].std() > 30
    assert np.abs(pictures["after"].astype(int) - pictures["before"])[..., :3].mean() > 20
    before, after = (likeness(pictures["reference"], pictures[name]) for name in ("before", "after"))
    assert after > 0.3
    assert abs(before) < 0.1
    # "Before" is the moving image at its own georeference: moved by the truth, it lies on the reference too.
    y, x = np.mgrid[: shown.scene.pyramid.height, : shown.scene.pyramid.width].astype(float)
    xy = np.stack([x.ravel(), y.ravel()], axis=-1)
    there = (xy + shown.truth(xy)).astype(np.float32).reshape(*x.shape, 2)
    moved = cv2.remap(pictures["before"], there, None, cv2.INTER_LINEAR)
    assert likeness(pictures["reference"], moved) > 0.9 * after


@pytest.mark.parametrize("name", ["reference", "before", "after"])
def test_from_afar_it_is_the_same_picture(shown: Shown, name: str) -> None:
    pyramid = shown.scene.pyramid
    for level in range(pyramid.levels - 1):
        small, step = shown.whole(name, level), pyramid.steps[level]
        height, width = (n // step * step for n in (pyramid.height, pyramid.width))
        fine = shown.whole(name)[:height, :width, :3]
        expected = cv2.resize(fine, (width // step, height // step), interpolation=cv2.INTER_AREA)
        inner = slice(4, height // step - 4), slice(4, width // step - 4)
        correlation = np.corrcoef(small[inner][..., :3].ravel(), expected[inner].ravel())[0, 1]
        assert correlation > 0.95


def test_without_aligned_tif_it_is_computed(shown: Shown, tmp_path: Path) -> None:
    folder = shutil.copytree(shown.scene.folder.path, tmp_path / "out")
    (folder / "aligned.tif").unlink()
    with Scene(find_folder(folder, moving=shown.scene.folder.moving, reference=shown.scene.folder.reference)) as scene:
        client = TestClient(make_app(scene, TOKEN, PORT), base_url=f"http://127.0.0.1:{PORT}")
        bare = Shown(scene, client, shown.correction, shown.affine, shown.ties, shown.certainty, shown.truth)
        computed, kept = bare.whole("after")[..., :3].astype(int), shown.whole("after")[..., :3].astype(int)
    # Cubic kernel in the file, bilinear in the viewer, on speckle.
    assert np.corrcoef(computed[30:-30, 30:-30].ravel(), kept[30:-30, 30:-30].ravel())[0, 1] > 0.9


def test_arrows_are_the_truth(shown: Shown) -> None:
    pyramid = shown.scene.pyramid
    told = shown.json(f"arrows.json?bounds=0,0,{pyramid.width},{pyramid.height}&spacing=20")
    table = np.array(told["arrows"])
    assert len(table) >= 64
    xy, arrows = table[:, :2], table[:, 2:4]
    np.testing.assert_allclose(arrows, shown.correction(xy) - xy, atol=2e-3)
    inner = (np.minimum(xy, (pyramid.width, pyramid.height) - xy) > 40).all(1)
    assert np.sqrt(((arrows - shown.truth(xy))[inner] ** 2).sum(1).mean()) < 0.6
    assert table[inner, 4].min() > 0.3
    parts = shown.json(f"arrows.json?bounds=0,0,{pyramid.width},{pyramid.height}&spacing=20&part=local")
    local = np.hypot(*(shown.correction(xy) - shown.affine(xy)).T)
    assert bool(parts["arrows"]) == bool(np.percentile(local, 95) > NOTHING_PX)


def test_tie_points_with_figures(shown: Shown) -> None:
    pyramid = shown.scene.pyramid
    told = shown.json(f"points.json?bounds=0,0,{pyramid.width},{pyramid.height}")
    assert told["total"] == len(shown.ties) == len(told["points"]) > 30
    for number, x, y, _, kept in told["points"][::17]:
        np.testing.assert_allclose((x, y), shown.ties.reference_xy[number], atol=0.01)
        assert kept == shown.ties.inlier[number]
        rows = dict(shown.json(f"points/{number}.json")["rows"])
        u, v = (float(part) for part in rows["Moving pixel"].split(","))
        np.testing.assert_allclose((u, v), shown.ties.moving_xy[number], atol=0.06)


def test_layers_are_what_was_found(shown: Shown) -> None:
    for name in ("error", "certainty", "local", "residual"):
        picture = shown.whole(name)
        assert (picture[..., 3] == 255).mean() > 0.4, name
        if name != "local" or shown.truth is bend:  # between the georeferences of the other lies a shift alone
            assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 5, name
    xy = lattice(shown.scene)
    area = shown.scene.pyramid.overview(SIDE)
    column, row = xy.astype(int).T
    local = shown.scene.layers["local"].values(area)[0][row, column]
    np.testing.assert_allclose(local, np.hypot(*(shown.correction(xy) - shown.affine(xy)).T), atol=0.1)
    certainty = shown.scene.layers["certainty"].values(area)[0]
    step = -(-shown.scene.pyramid.width // shown.certainty.shape[1])
    # Every node's own value at its middle, also the last ones', which reach beyond the image.
    nodes = (np.arange(shown.certainty.shape[0]) * step + (step - 1) / 2).astype(int)
    np.testing.assert_allclose(certainty[np.ix_(nodes, nodes)], shown.certainty, atol=0.05)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: sudo apt-get install chromium")
def test_a_scene_in_the_browser(tiled: Shown) -> None:
    assert CHROMIUM is not None
    with Server(tiled.scene) as server, Browser(CHROMIUM) as page:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            page.open(server.url)
            page.wait("Number(document.getElementById('stage').dataset.arrows) > 4")
            page.settle(lambda: page.run("document.getElementById('show-arrows').click()"))
            plain = look(page)
            for layer in ("points", "error", "certainty", "local", "residual"):
                click = partial(page.run, f"document.getElementById('show-{layer}').click()")
                page.settle(click)
                if layer == "points":
                    page.wait("Number(document.getElementById('stage').dataset.points) > 4")
                changed = differs(plain, look(page)).mean()
                assert changed > (0.005 if layer == "points" else 0.05), layer
                page.settle(click)
            assert page.complaints == []
            assert all(url.startswith((server.url, "data:")) for url in page.requests)
        finally:
            server.stop()
            thread.join()


def test_outputs_of_the_common_extent_lie_on_their_part_of_the_reference(tmp_path: Path) -> None:
    """The folder's pixels count from the corner of the frame; the reference on disk is the whole one."""
    pair = make_pair(tmp_path, 400, seed=3)
    with rasterio.open(pair.moving) as file:
        chip = save(tmp_path / "chip.tif", file.read()[:, 90:350, 60:330], nodata=0)
    found = register_pair(chip, pair.reference, extent="common")
    folder = found.save(tmp_path / "out", force=True)
    x, y, width, height = found.settings["frame"]
    with Scene(find_folder(folder)) as scene:
        assert not scene.notes
        assert (scene.pyramid.width, scene.pyramid.height) == (width, height)
        shown, _ = scene.images["reference"].picture(scene.pyramid.overview(512))
    with rasterio.open(pair.reference) as file:
        whole = file.read(1)
    assert shown.shape[-2:] == (height, width)
    np.testing.assert_array_equal(shown[0], whole[y : y + height, x : x + width])
