"""Parts of an image in words: by the compass only where north is up."""

from __future__ import annotations

import pytest

from somareg.io.compass import cell_words, is_north_up, place_words, zone
from somareg.types import Grid

AREA = (100.0, 40.0, 600.0, 300.0)
UTM = "EPSG:32633"
NORTH_UP = Grid(900, 500, (10.0, 0.0, 5e5, 0.0, -10.0, 5e6), UTM)
PLAIN = Grid(900, 500)


@pytest.mark.parametrize(
    ("transform", "crs", "expected"),
    [
        ((10.0, 0.0, 5e5, 0.0, -10.0, 5e6), UTM, True),
        ((1e-4, 0.0, 179.99, 0.0, -1e-4, 60.0), "EPSG:4326", True),  # across the antimeridian
        ((0.0, 10.0, 5e5, 10.0, 0.0, 5e6), UTM, False),  # turned
        ((10.0, 0.0, 5e5, 0.0, 10.0, 5e6), UTM, False),  # upside down
        ((-10.0, 0.0, 5e5, 0.0, -10.0, 5e6), UTM, False),  # mirrored
        ((10.0, 0.0, 1e6, 0.0, -10.0, 1e6), "EPSG:3031", False),  # polar: up is not north
        ((9.8, 1.7, 5e5, 1.7, -9.8, 5e6), UTM, True),  # 10 degrees
        ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), None, False),
    ],
)
def test_north_is_up_only_where_it_is(transform: tuple[float, ...], crs: str | None, expected: bool) -> None:
    assert is_north_up(Grid(900, 500, transform, crs)) is expected  # type: ignore[arg-type]


def test_zones() -> None:
    words = ("north", "south", "west", "east")
    assert [zone(column, row, words) for column, row in ((0, 0), (2, 1), (5, 3), (3, 2), (1, 5))] == [
        "the north-west corner",
        "the north side",
        "the east side",
        "the centre",
        "the south-west corner",
    ]
    assert cell_words(3, 5, NORTH_UP) == "the south side" and cell_words(3, 5, PLAIN) == "the bottom side"
    assert place_words(690.0, 330.0, AREA, NORTH_UP) == "the south-east corner"
    assert place_words(-5.0, 190.0, AREA, PLAIN) == "the left side"
