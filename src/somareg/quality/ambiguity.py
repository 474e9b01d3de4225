"""Sentences on ambiguity: repeated texture, texture of one direction, displaced parts, estimates that disagree."""

from __future__ import annotations

import math
from typing import Literal

from somareg.matching.doubts import Rival
from somareg.matching.engine import Alignment
from somareg.matching.parts import ALL, Part
from somareg.quality.signs import Figures

AS_GOOD = 0.75  # share of the estimate's agreement; right estimates of 170 pairs had less (98th percentile 0.72)
PROVEN_ZSCORE = 2.0  # agreement that unrelated images rarely exceed
RIDGE = 0.8  # share of the rival's agreement: everything between it and the estimate fits as well
ELSEWHERE = 1.2  # height of a part of the frame that fits another shift, see `somareg.matching.parts`
APART_PX = 2.0  # least disagreement of two estimates that is reported

RivalKind = Literal["not unique", "one direction", "repeats"]
"""What another shift that fits as well says of the images."""


def ambiguities(alignment: Alignment, factor: int) -> tuple[str, ...]:
    """Sentences on ambiguities that forbid "go" although the images agree; () without any.

    Args:
        alignment: of a pair.
        factor: reference pixels per pixel of that pair.
    """
    if alignment.failure:
        return ()
    rival = alignment.doubts.rival
    kind = rival_kind(rival, alignment.evidence.zscore)
    of_the_frame = (rival_in_words(rival, kind, factor),) if kind else ()
    return (*of_the_frame, *_of_a_part(alignment.doubts.part, factor))


def is_doubted(figures: Figures) -> bool:
    """Whether `ambiguities` has a sentence for an alignment with these figures."""
    return figures["rival"] >= AS_GOOD or figures["part"] >= ELSEWHERE


def rival_kind(rival: Rival, zscore: float) -> RivalKind | None:
    """The kind of ambiguity of an estimate with this agreement; None where no other shift fits about as well."""
    if rival.height < AS_GOOD:
        return None
    if zscore < PROVEN_ZSCORE:
        return "not unique"
    return "one direction" if rival.ridge >= RIDGE * rival.height else "repeats"


def rival_in_words(rival: Rival, kind: RivalKind, factor: int) -> str:
    """A sentence on a shift that fits about as well, at `factor` reference pixels per pixel of the pair."""
    dx, dy = (factor * value for value in rival.shift_px)
    if kind == "not unique":
        return f"A shift by ({dx:+.0f}, {dy:+.0f}) px more fits about as well: the estimate is not unique."
    if kind == "one direction":
        return f"The images agree about as well along one direction: the shift {_direction(rival)} cannot be measured."
    return (
        f"The images agree about as well {math.hypot(dx, dy):.0f} px away, at ({dx:+.0f}, {dy:+.0f}): the texture "
        "repeats, or it is not the same ground."
    )


def _of_a_part(part: Part, factor: int) -> tuple[str, ...]:
    if part.height < ELSEWHERE:
        return ()
    dx, dy = (factor * value for value in part.shift_px)
    return (
        f"The {_place(part)} of the frame fits better {math.hypot(dx, dy):.0f} px away, at ({dx:+.0f}, {dy:+.0f}): a "
        "part of one image is displaced, as beyond the seam of a mosaic, or shows other ground.",
    )


def _place(part: Part) -> str:
    row, column = (
        "" if i == ALL else names[i]
        for i, names in ((part.row, ("top", "middle", "bottom")), (part.column, ("left", "middle", "right")))
    )
    if not (row and column):
        return f"{row or column} third"
    return row if row == column else f"{row} {column}"


def disagreements(alignment: Alignment, factor: int) -> tuple[str, ...]:
    """Sentences on evidence against an estimate that does not forbid "go"."""
    second = alignment.doubts.second_px * factor
    if not math.isfinite(second) or second < APART_PX:
        return ()
    return (f"A second reading of the images, started at this estimate, ends {second:.1f} px away.",)


def _direction(rival: Rival) -> str:
    dx, dy = rival.shift_px
    if abs(dx) > 2.4 * abs(dy):
        return "from left to right"
    if abs(dy) > 2.4 * abs(dx):
        return "from top to bottom"
    return "from top left to bottom right" if dx * dy > 0 else "from bottom left to top right"
