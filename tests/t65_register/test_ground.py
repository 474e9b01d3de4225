"""The common ground of two grids: which part of each image can show what the other shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from somareg.config import make_config
from somareg.errors import NoOverlapError
from somareg.geometry import AffineTransform
from somareg.io import georeference
from somareg.io.source import Block
from somareg.register.choose import search_radius
from somareg.register.ground import Ground, common_ground
from somareg.types import Grid
from tests.t65_register.conftest import UTM, place_by_points, swath, write

PLACE = (10.0, 0.0, 400000.0, 0.0, -10.0, 3800000.0)
WHOLE = Grid(1500, 1500, PLACE, UTM)


def ground(reference: Grid, moving: Grid, **options: Any) -> Ground:
    cfg = make_config(options)
    georef = georeference(reference, moving)
    return common_ground(reference, moving, georef, lambda longest: search_radius(cfg, reference, longest))


def test_equal_footprints_are_not_cut() -> None:
    found = ground(WHOLE, WHOLE.part(5, -7, 1500, 1500))
    assert found.reference == found.moving == Block(0, 0, 1500, 1500)
    assert found.radius_px == search_radius(make_config({}), WHOLE)


def test_parts_show_each_other() -> None:
    """The small image's footprint and a rim of the reference; of the moving image all that the search may meet."""
    for block in (Block(700, 300, 200, 400), Block(-50, 1300, 300, 300)):
        found = ground(WHOLE, WHOLE.part(*block))
        left, top = max(0, block.x - 20), block.y - 20
        right, bottom = block.x + block.width + 20, min(1500, block.y + block.height + 20)
        assert found.radius_px == 32
        assert found.reference == Block(left, top, right - left, bottom - top)
        assert found.moving.x == found.moving.y == 0 or block.x < 0
    swapped = ground(WHOLE.part(700, 300, 200, 400), WHOLE)
    assert swapped.reference == Block(0, 0, 200, 400)
    assert swapped.moving.x <= 700 - 32 - 8
    assert swapped.moving.width < 200 + 2 * 32 + 50
    point = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(swapped.georef(point) + swapped.moving[:2], point + np.array([700, 300]))


def test_who_names_a_radius_has_that_much_of_the_reference() -> None:
    files = WHOLE, WHOLE.part(700, 300, 200, 400)
    georef = georeference(*files)
    far = common_ground(*files, georef, lambda longest: 120.0, rim_px=math.inf)
    assert far.reference == Block(580, 180, 440, 640)


def test_a_grid_of_a_part_places_pixels_where_the_whole_does(tmp_path: Path) -> None:
    part = WHOLE.part(120, 40, 300, 200)
    points = np.random.default_rng(0).uniform(0, 200, (20, 2))
    np.testing.assert_allclose(part.to_map(points), WHOLE.to_map(points + np.array([120, 40])))
    assert Grid(100, 100).part(10, 10, 50, 60) == Grid(50, 60)
    curved = swath()
    half = curved.part(30, 50, 200, 150)
    np.testing.assert_allclose(half.to_map(points), curved.to_map(points + np.array([30, 50])), atol=0.2)
    path = write(tmp_path / "swath.tif", np.ones((1, 280, 280), np.uint8), Grid(280, 280))
    assert curved.control is not None
    place_by_points(path, curved.control)


def test_images_that_do_not_meet() -> None:
    with pytest.raises(NoOverlapError):
        from somareg.io import check_overlap

        check_overlap(WHOLE, WHOLE.part(5000, 0, 300, 300))


def test_affine_start_places_a_part() -> None:
    from somareg.register.ground import ground_at

    start = AffineTransform.from_parameters(shift=(-600.0, -500.0))
    found = ground_at(start, Grid(1500, 1500), Grid(300, 200), lambda longest: 0.1 * longest)
    assert found.radius_px == pytest.approx(30, abs=0.2)
    assert found.reference.x <= 570 <= found.reference.x + 2
    here = np.array([[650.0, 540.0]])
    there = found.georef(here - found.reference[:2]) + found.moving[:2]
    np.testing.assert_allclose(there, here - (600, 500))
