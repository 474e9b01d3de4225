"""Tiles as support of their pair: what is told of their agreement."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from somareg.quality import Support, load_calibration
from somareg.register.tiles.layout import Layout, SceneCfg, lay_tiles
from somareg.register.tiles.sure import ambiguity_of, is_sure
from somareg.register.tiles.tile import TileResult
from somareg.register.tiles.votes import count_votes, support_of_tiles

APART = lay_tiles((2048, 2048), SceneCfg(overlap_px=0), 1024)  # 16 tiles side by side


def support(*zscores: float, probability: float = 0.99) -> Support:
    calibration = load_calibration("orientation")
    figures = [{"zscore": z, "probability": probability} for z in zscores]
    tiles = [TileResult(index, "matched", figures=each) for index, each in enumerate(figures)]
    return support_of_tiles(tiles, count_votes(tiles, APART, None, calibration), None, calibration)


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


# --- ambiguous tiles --------------------------------------------------------------------------------------------------

ALONG = {"rival": 0.95, "rival_dx": 2.0, "rival_dy": 40.0, "ridge": 0.93}
REPEATED = {"rival": 0.9, "rival_dx": 30.0, "rival_dy": -40.0, "ridge": 0.2}
CLEAR = {"rival": 0.4, "rival_dx": 9.0, "rival_dy": 9.0, "ridge": 0.1}


def of_ground(*others: dict[str, float], layout: Layout = APART) -> Support:
    """The support of sure tiles that agree with a model of the others; each with another shift that fits so well."""
    calibration = load_calibration("orientation")
    figures = [{"zscore": 3.0, "probability": 0.95, **other} for other in others]
    tiles = [TileResult(index, "matched", figures=each) for index, each in enumerate(figures)]
    model: Any = SimpleNamespace(
        held_out={tile.index: (0.1, 0.0) for tile in tiles},
        uneven={tile.index: 0.1 for tile in tiles},
        split_half_px=0.1,
    )
    return support_of_tiles(tiles, count_votes(tiles, layout, model, calibration), model, calibration)


def test_tiles_of_one_direction_agree_and_prove_nothing() -> None:
    """Each slides along the same texture; that they agree with each other says nothing of the shift along it."""
    backed = of_ground(*[ALONG] * 8, CLEAR)
    assert "the shift from top to bottom cannot be measured" in backed.doubts[0]
    assert 0.3 < backed.probability < 0.95, "a review, as of a pair matched whole"
    assert any("fits them about as well: 8." in remark for remark in backed.told)
    clear = of_ground(*[CLEAR] * 9)
    assert not clear.doubts and clear.probability > 0.95


def test_the_commonest_ambiguity_is_told_by_its_clearest_tile() -> None:
    tiles = (REPEATED, {**REPEATED, "rival": 0.99, "rival_dx": 36.0}, ALONG, CLEAR)
    assert "at (+36, -40)" in of_ground(*tiles).doubts[0]


def test_a_few_ambiguous_tiles_are_left_out_and_the_others_decide() -> None:
    backed = of_ground(*[CLEAR] * 9, *[ALONG] * 4)
    assert not backed.doubts
    assert backed.told[0].startswith("9 of 13 tiles")


def test_sure_is_one_rule() -> None:
    calibration = load_calibration("orientation")

    def tile(probability: float, rival: float) -> TileResult:
        return TileResult(0, "matched", figures={**ALONG, "zscore": 3.0, "probability": probability, "rival": rival})

    assert is_sure(tile(0.9, 0.74), calibration)
    assert not is_sure(tile(0.9, 0.75), calibration)
    assert not is_sure(tile(0.1, 0.2), calibration)
    assert ambiguity_of([tile(0.1, 0.9)], calibration) == (), "an improbable tile has nothing to be ambiguous about"


# --- tiles of the same pixels -----------------------------------------------------------------------------------------


def test_tiles_of_the_same_pixels_are_one_witness() -> None:
    same = of_ground(*[CLEAR] * 4, layout=lay_tiles((520, 520), SceneCfg(), 1024))
    assert "4 tiles that found common ground by themselves overlap so far" in same.doubts[0]
    assert "the pixels of only 1 " in same.doubts[0]
    apart = of_ground(*[CLEAR] * 4)
    assert not apart.doubts
    assert same.probability < 0.85 < 0.9 < apart.probability
