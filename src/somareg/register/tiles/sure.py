"""Which tiles are right by their own evidence, and which show a second place that fits as well."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from somareg.geometry import AffineTransform
from somareg.matching.doubts import Doubts, Rival
from somareg.matching.engine import Alignment
from somareg.matching.evidence import NO_EVIDENCE
from somareg.quality import Calibration
from somareg.quality.ambiguity import AS_GOOD, ambiguities
from somareg.register.tiles.tile import TileResult


def is_sure(tile: TileResult, calibration: Calibration) -> bool:
    """Whether a tile is right by its own evidence: its probability suffices, and no other shift fits about as well."""
    return is_probable(tile, calibration) and not is_ambiguous(tile)


def is_probable(tile: TileResult, calibration: Calibration) -> bool:
    """Whether the probability of a tile suffices, whatever other shifts fit."""
    return tile.figures.get("probability", 0.0) >= calibration.review


def is_ambiguous(tile: TileResult) -> bool:
    """Whether another shift fits a tile about as well as its own: texture that repeats, or runs in one direction."""
    return tile.figures.get("rival", 0.0) >= AS_GOOD


def ambiguity_of(tiles: Sequence[TileResult], calibration: Calibration) -> tuple[str, ...]:
    """A sentence on ambiguity that forbids "go"; () unless most of the probable tiles are ambiguous.

    Tiles of one ground differ in what else fits: the sentence is that of the clearest case of the commonest kind.
    """
    probable = [tile for tile in tiles if is_probable(tile, calibration)]
    unclear = [tile for tile in probable if is_ambiguous(tile)]
    if 2 * len(unclear) <= len(probable):
        return ()
    clearest_first = sorted(unclear, key=lambda tile: -tile.figures["rival"])
    told = [_told(tile) for tile in clearest_first]
    kinds = [re.sub(r"[+-]?\d+", "", sentence) for sentence in told]
    return (told[kinds.index(Counter(kinds).most_common(1)[0][0])],)


def _told(tile: TileResult) -> str:
    """The sentence on the ambiguity of one tile."""
    figures = tile.figures
    rival = Rival(figures["rival"], (figures["rival_dx"], figures["rival_dy"]), figures["ridge"])
    evidence = replace(NO_EVIDENCE, zscore=figures["zscore"])
    return ambiguities(Alignment(AffineTransform.identity(), evidence=evidence, doubts=Doubts(rival)), 1)[0]
