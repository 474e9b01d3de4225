"""Pictures of places: whose edges lie over whom, and where."""

from __future__ import annotations

import numpy as np
import pytest

from somareg.geometry import AffineTransform
from somareg.report.closeups import EDGE, SIDE, Sight, edges, make_closeups
from somareg.report.words import edges_words
from somareg.types import Grid, Modality, Place, Raster

SIZE = (220, 300)


def block(corner: tuple[int, int], shift: tuple[int, int] = (0, 0)) -> Raster:
    """A bright square of 40 px on dark ground with some noise."""
    data = np.random.default_rng(0).normal(40, 3, SIZE)
    x, y = corner[0] + shift[0], corner[1] + shift[1]
    data[y : y + 40, x : x + 40] += 150
    return Raster(data[None].astype(np.float32), np.ones(SIZE, bool), Grid(SIZE[1], SIZE[0]))


def sight(
    shift: tuple[int, int], off: tuple[float, float] = (0.0, 0.0), kinds: tuple[Modality, Modality] = ("sar", "optical")
) -> Sight:
    """The moving image is shifted, and the estimate is off by so much."""
    to_moving = AffineTransform.from_parameters(shift=(shift[0] + off[0], shift[1] + off[1]))
    return Sight(block((100, 80)), block((100, 80), shift), to_moving, AffineTransform.identity(), kinds)


def edge_columns(picture: np.ndarray) -> list[int]:
    """Columns with a long vertical edge."""
    lines = (picture == EDGE).all(axis=2)
    return [int(column) for column in np.flatnonzero(lines.sum(axis=0) > 14)]


PLACE = Place(120.0, 100.0, "the centre", 0.5)


@pytest.mark.parametrize("kinds", [("sar", "optical"), ("optical", "sar"), ("optical", "nir")])
def test_edges_lie_where_the_ground_is_when_the_estimate_is_right(kinds: tuple[Modality, Modality]) -> None:
    (one,) = make_closeups(sight((7, -3), kinds=kinds), [PLACE])
    assert one.picture.shape == (SIDE, SIDE, 3) and one.picture.dtype == np.uint8 and one.step == 1.0
    # The square is 20 px to both sides of the middle.
    columns = edge_columns(one.picture)
    assert all(min(abs(column - at) for at in (SIDE / 2 - 20.5, SIDE / 2 + 19.5)) <= 2 for column in columns)
    assert min(columns) < SIDE / 2 < max(columns)


def test_edges_lie_beside_the_ground_where_it_is_not() -> None:
    (one,) = make_closeups(sight((7, -3), off=(5.0, 0.0)), [PLACE])
    columns = edge_columns(one.picture)
    assert columns and all(
        min(abs(column - at) for at in (SIDE / 2 - 25.5, SIDE / 2 + 14.5)) <= 2 for column in columns
    )
    bright = one.picture[SIDE // 2, :, 1] > 120  # the reference's square stays in the middle
    assert bright[SIDE // 2 + 16 : SIDE // 2 + 18].all()


def test_a_place_at_the_rim_moves_inwards_and_a_small_image_is_shown_whole() -> None:
    (one,) = make_closeups(sight((0, 0)), [Place(0.0, 0.0, "the top-left corner", 0.5)])
    assert one.picture.any(axis=2).mean() > 0.95
    small = sight((0, 0))
    cut = Raster(small.reference.data[:, 80:120, 100:160], np.ones((40, 60), bool), Grid(60, 40))
    moved = AffineTransform.from_parameters(shift=(100.0, 80.0))
    shown = Sight(cut, small.moving, moved, AffineTransform.identity(), small.modalities)
    (one,) = make_closeups(shown, [Place(30.0, 20.0, "the centre", 0.5)])
    assert one.picture.shape == (SIDE, SIDE, 3)
    assert not one.picture[:20].any()


def test_an_averaged_view_tells_its_step() -> None:
    plain = sight((0, 0))
    view = Sight(plain.reference, plain.moving, plain.to_moving, AffineTransform.reduction(4).inverse, plain.modalities)
    (one,) = make_closeups(view, [Place(480.0, 400.0, "the centre", 0.5)])
    assert one.step == pytest.approx(4.0)
    assert min(edge_columns(one.picture)) < SIDE / 2 < max(edge_columns(one.picture))


def test_flat_ground_and_the_rim_of_a_mask_have_no_edges() -> None:
    mask = np.ones((60, 60), bool)
    assert not edges(np.full((60, 60), 90, np.uint8), mask, 1.5).any()
    assert not edges(np.zeros((60, 60), np.uint8), mask & False, 1.5).any()
    half = np.where(np.arange(60)[None, :] < 30, 200, 0).astype(np.uint8).repeat(60, axis=0)
    assert not edges(half, half > 0, 1.5).any()
    assert edges(half, mask, 1.5).any()


def test_no_places_no_pictures_and_the_words_say_whose_edges() -> None:
    assert make_closeups(sight((0, 0)), []) == ()
    assert edges_words("sar", "optical") == "Edges of the moving image in colour, over the reference image as aligned."
    assert edges_words("optical", "sar").startswith("Edges of the reference image")
    assert edges_words("sar", "sar") == edges_words("optical", "optical") == edges_words("sar", "dem")
