"""Edges of one image over the other: where they are, whatever the contrast; without seams; of the right image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from somareg.report.edges import EDGE
from somareg.types import BoolArray, Modality
from somareg.view import Scene, find_folder
from somareg.view.app import encode
from somareg.view.edges import EARLIER, SAMPLE_PX, EdgeLayer, edge_sources
from somareg.view.images import SceneImage
from somareg.view.pyramid import TILE_PX, Area, Pyramid

from .conftest import NORTH, SIDE, UTM, Made, write


def layer_of(picture: np.ndarray, mask: np.ndarray | None = None, kind: Modality = "optical") -> EdgeLayer:
    """Of a picture whose pixels are those of the reference."""
    height, width = picture.shape[:2]
    seen = np.ones((height, width), bool) if mask is None else mask

    def draw(area: Area) -> tuple[NDArray[np.uint8], BoolArray]:
        x, y = area.points[0, :, 0].round().astype(int), area.points[:, 0, 1].round().astype(int)
        inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
        where = np.ix_(np.clip(y, 0, height - 1), np.clip(x, 0, width - 1))
        return picture[where], seen[where] & inside

    source = edge_sources("sar", "optical")["edges-after"]
    return EdgeLayer(source, draw, kind, Pyramid(width, height))


def step_picture(low: int, high: int) -> NDArray[np.uint8]:
    """A border between columns 99 and 100."""
    picture = np.full((200, 300), low, np.uint8)
    picture[:, 100:] = high
    return picture


@pytest.mark.parametrize("values", [(40, 200), (200, 40), (90, 110)])
def test_a_border_is_one_line_whatever_its_sign_and_size(values: tuple[int, int]) -> None:
    colours, opacity = layer_of(step_picture(*values)).tile(Area(0, 0, 1, 300, 200))
    assert (colours == EDGE).all()
    assert opacity.dtype == np.uint8 and opacity.shape == (200, 300)
    opacity = opacity[4:-4]  # the rim of the image is no edge
    assert (opacity[:, 99:101].max(axis=1) > 200).all()
    assert not opacity[:, :97].any() and not opacity[:, 103:].any()
    assert ((opacity > 0).sum(axis=1) == 1).all() and ((opacity > 0).sum(axis=0) > 0).sum() == 1  # thin and straight


def test_neither_flat_ground_nor_the_rim_of_what_is_shown_has_edges() -> None:
    flat = np.full((200, 300), 120, np.uint8)
    assert not layer_of(flat).tile(Area(0, 0, 1, 300, 200))[1].any()
    half = np.broadcast_to(np.arange(300) < 150, (200, 300))
    assert not layer_of(np.where(half, flat, 0).astype(np.uint8), half).tile(Area(0, 0, 1, 300, 200))[1].any()
    assert not layer_of(flat, np.zeros_like(half)).tile(Area(0, 0, 1, 300, 200))[1].any()


def test_the_sign_of_the_contrast_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (256, 256)).astype(np.float32), (0, 0), 3)
    picture = cv2.normalize(picture, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)
    area = Area(0, 0, 1)
    one, other = (layer_of(shown, kind="sar").tile(area)[1].astype(int) for shown in (picture, 255 - picture))
    assert (one > 0).mean() > 0.02
    # Of two equal neighbours across an edge one is taken: which, may depend on the direction.
    assert (np.abs(one - other) > 2).mean() < 0.002


@pytest.mark.parametrize("name", ["edges-after", "edges-before"])
@pytest.mark.parametrize("kind", ["georeferenced", "plain"])
def test_tiles_meet_without_seams_at_every_level(kind: str, name: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(kind)
    with Scene(find_folder(made.folder)) as scene:
        pyramid = scene.pyramid
        assert pyramid.levels == 2
        for level, step in enumerate(pyramid.steps):
            count = -(-SIDE // (TILE_PX * step))
            rows = [
                np.concatenate([scene.tile(name, pyramid.tile(level, c, r))[1] for c in range(count)], axis=1)
                for r in range(count)
            ]
            joined = np.concatenate(rows).astype(int)
            at_once = scene.tile(name, Area(0, 0, step, *joined.shape))[1].astype(int)
            assert (joined > 128).mean() > 0.01
            off = np.abs(joined - at_once)
            assert (off > 8).mean() < 1e-3 and off.mean() < 0.1
            if count > 1:  # and beside the seam as little as anywhere else
                assert (off[:, TILE_PX - 4 : TILE_PX + 4] > 8).mean() < 2e-3


def test_as_much_is_drawn_at_every_zoom_and_place(tmp_path: Path) -> None:
    """A large image, so that the scale of a level comes from windows of it."""
    rng = np.random.default_rng(2)
    side = 2300
    ground = cv2.resize(rng.normal(0, 1, (side // 8, side // 8)).astype(np.float32), (side, side))
    fine = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), 2) * 6
    data = np.clip(1000 + 200 * ground + 100 * fine, 0, None).astype(np.uint16)[None]
    image = SceneImage(write(tmp_path / "large.tif", data, UTM, NORTH), "moving")
    try:
        pyramid = Pyramid(side, side)

        def draw(area: Area) -> tuple[NDArray[np.uint8], BoolArray]:
            values, mask = image.picture(area)
            return np.clip(values[0] / 8, 0, 255).astype(np.uint8), mask

        layer = EdgeLayer(edge_sources("sar", "optical")["edges-after"], draw, "sar", pyramid)
        shares = []
        for level, step in enumerate(pyramid.steps):
            shown = layer.tile(pyramid.tile(level, 0, 0))[1]
            inside = int(side / step)  # of the tile of the first level
            shares.append(float((shown[:inside, :inside] > 0).mean()))
            for area in layer._samples(step):
                assert area.left % step == area.top % step == 0
                assert (
                    area.width <= max(SAMPLE_PX, np.ceil(side / step)) and area.left + area.width * step <= side + step
                )
        assert max(shares) < 2 * min(shares) and min(shares) > 0.05
        measured = dict(layer._ends)
        layer.warm_up()
        assert layer._ends == measured and list(measured) == pyramid.steps
        # The scale is measured once: what was looked at before does not change it.
        again = EdgeLayer(edge_sources("sar", "optical")["edges-after"], draw, "sar", pyramid)
        last = pyramid.levels - 1
        np.testing.assert_array_equal(layer.tile(pyramid.tile(last, 3, 5))[1], again.tile(pyramid.tile(last, 3, 5))[1])
    finally:
        image.close()


def test_sar_gives_the_edges_whatever_its_role() -> None:
    moving = edge_sources("sar", "optical")
    assert {name: (s.image, s.over, s.colour) for name, s in moving.items()} == {
        "edges-after": ("after", ("reference",), EDGE),
        "edges-before": ("before", ("reference",), EARLIER),
    }
    assert [s.title for s in moving.values()] == ["SAR edges, aligned", "SAR edges, before"]
    (reference,) = edge_sources("optical", "sar").values()
    assert (reference.image, reference.over) == ("reference", ("after", "before"))
    assert [s.title for s in edge_sources("nir", "optical").values()] == [
        "Edges of the moving image, aligned",
        "Edges of the moving image, before",
    ]


def test_a_scene_of_sar_reference_has_its_edges(georeferenced: Made, tmp_path: Path) -> None:
    """The same files, told in the other roles."""
    for file in georeferenced.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    report = tmp_path / "report.json"
    text = report.read_text()
    for role, kind in (("moving", "optical"), ("reference", "sar")):
        old = f'"{role}_modality": "'
        start = text.index(old) + len(old)
        text = text[:start] + kind + text[text.index('"', start) :]
    report.write_text(text)
    with Scene(find_folder(tmp_path)) as scene:
        assert list(scene.edges) == ["edges-reference"]
        picture, opacity = scene.tile("edges-reference", scene.pyramid.tile(0, 0, 0))
        assert (opacity > 128).any() and (picture == EDGE).all()


def test_edges_stay_within_the_reference(opened: Scene) -> None:
    opacity = opened.tile("edges-after", opened.pyramid.tile(1, 1, 1))[1]
    inner = SIDE - TILE_PX
    assert opacity[:inner, :inner].any()
    assert not opacity[inner:].any() and not opacity[:, inner:].any()


def test_opacity_reaches_the_file() -> None:
    opacity = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    colours = np.full((4, 256, 3), EDGE, np.uint8)
    read = cv2.imdecode(np.frombuffer(encode(colours, opacity), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., 3], opacity)
    assert (read[..., 2::-1] == EDGE).all()
