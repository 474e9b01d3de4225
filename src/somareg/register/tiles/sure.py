"""Which tiles are right by their own evidence, and which show a second place that fits as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from somareg.matching.doubts import Rival
from somareg.quality import Calibration
from somareg.quality.ambiguity import RivalKind, rival_in_words, rival_kind
from somareg.register.tiles.tile import TileResult


def is_sure(tile: TileResult, calibration: Calibration) -> bool:
    """Whether a tile is right by its own evidence: its probability suffices, and no other shift fits about as well."""
    return is_probable(tile, calibration) and not is_ambiguous(tile)


def is_probable(tile: TileResult, calibration: Calibration) -> bool:
    """Whether the probability of a tile suffices, whatever other shifts fit."""
    return tile.figures.get("probability", 0.0) >= calibration.review


def is_ambiguous(tile: TileResult) -> bool:
    """Whether another shift fits a tile about as well as its own: texture that repeats, or runs in one direction."""
    return _kind(tile) is not None


def ambiguity_of(tiles: Sequence[TileResult], calibration: Calibration) -> tuple[str, ...]:
    """A sentence on ambiguity that forbids "go"; () unless most of the probable tiles are ambiguous.

    Tiles of one ground differ in what else fits: the sentence is that of the clearest case of the commonest kind.
    """
    probable = [tile for tile in tiles if is_probable(tile, calibration)]
    kinds = [(kind, _rival(tile)) for tile in probable if (kind := _kind(tile))]
    if 2 * len(kinds) <= len(probable):
        return ()
    commonest = Counter(kind for kind, _ in kinds).most_common(1)[0][0]
    clearest = max((rival for kind, rival in kinds if kind == commonest), key=lambda rival: rival.height)
    return (rival_in_words(clearest, commonest, 1),)


def _kind(tile: TileResult) -> RivalKind | None:
    return rival_kind(_rival(tile), tile.figures["zscore"]) if "rival" in tile.figures else None


def _rival(tile: TileResult) -> Rival:
    figures = tile.figures
    return Rival(figures["rival"], (figures["rival_dx"], figures["rival_dy"]), figures["ridge"])
