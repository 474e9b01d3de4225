"""The error map in `report.json`."""

from __future__ import annotations

from pydantic import Field

from somareg.report.plain import Length, Number, Part
from somareg.types import Result


class CellRecord(Part):
    """One of at most 6 x 6 parts of the common ground."""

    column: int = Field(description="0-5, from the left")
    row: int = Field(description="0-5, from the top")
    x: Number = Field(description="reference pixel in the middle of the ground that both images show of the cell")
    y: Number
    seen: Number = Field(description="share of that ground with matches nearby, 0-1")
    error: Length = Field(description="expected RMS error; null if less than half has matches nearby")


class PlaceRecord(Part):
    """A place to check: with a large expected error or an inlier with a large residual."""

    x: Number = Field(description="reference pixel")
    y: Number
    where: str = Field(description="in words")
    error: Length = Field(description="expected RMS error there")
    residual: Length | None = Field(description="of the inlier there; null without one")


class ErrorMapRecord(Part):
    """Expected error of the estimate, place by place."""

    worst_place: str = Field(description="the worst part and what was not seen, as a sentence")
    worst: Length = Field(description="expected RMS error of the worst cell")
    unseen_share: Number = Field(description="share of the ground that both images show without a match nearby, 0-1")
    cells: list[CellRecord]
    places: list[PlaceRecord] = Field(description="places to look at, worst first")


def error_map_record(result: Result) -> ErrorMapRecord:
    """The error map of a result, in both units."""
    quality, per_pixel = result.quality, result.quality.metres_per_pixel

    def on_ground(px: float | None) -> Length:
        return Length(px=px, m=None if px is None or per_pixel is None else px * per_pixel)

    return ErrorMapRecord(
        worst_place=quality.worst_place,
        worst=Length(px=quality.worst_px, m=quality.metres.worst_m if quality.metres else None),
        unseen_share=quality.unseen_share,
        cells=[
            CellRecord(
                column=cell.column, row=cell.row, x=cell.x, y=cell.y, seen=cell.seen,
                error=Length(px=cell.error_px, m=cell.error_m),
            )
            for cell in quality.cells
        ],
        places=[
            PlaceRecord(
                x=place.x, y=place.y, where=place.where, error=on_ground(place.error_px),
                residual=None if place.residual_px is None else on_ground(place.residual_px),
            )
            for place in (closeup.place for closeup in result.previews.closeups)
        ],
    )  # fmt: skip
