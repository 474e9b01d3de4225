"""Tiles as support of their pair: what is told of their agreement."""

from __future__ import annotations

import pytest

from somareg.quality import Support, load_calibration
from somareg.register.tiles.tile import TileResult
from somareg.register.tiles.votes import count_votes, support_of_tiles


def support(*zscores: float, probability: float = 0.99) -> Support:
    calibration = load_calibration("orientation")
    figures = [{"zscore": z, "probability": probability} for z in zscores]
    tiles = [TileResult(index, "matched", figures=each) for index, each in enumerate(figures)]
    return support_of_tiles(tiles, count_votes(tiles, None, calibration), None, calibration)


@pytest.mark.parametrize(
    ("zscores", "words"),
    [
        ((3.0, 4.0, 3.4), "tiles agree 3.5 deviations above chance at the estimate (unrelated images rarely reach 2)."),
        ((1.0, 1.4), "tiles agree 1.2 deviations above chance at the estimate (unrelated images rarely reach 2). That"),
    ],
)
def test_agreement_is_the_mean_of_the_tiles_and_a_sentence_of_its_own(zscores: tuple[float, ...], words: str) -> None:
    for probability in (0.99, 0.0):  # of the sure ones, or of all that were matched where none is sure
        backed = support(*zscores, probability=probability)
        assert words in backed.agreement
        assert ("proves no common ground" in backed.agreement) == (backed.zscore < 2)
        assert not any("above chance" in sentence for sentence in backed.told)
        assert f"of {len(zscores)} tiles found the images' common ground" in backed.told[0]


def test_tiles_that_were_not_matched_tell_of_no_agreement() -> None:
    assert support().agreement == ""
