"""Both images of a pair without the pixels that show no ground: undeclared nodata, fills, rulings and drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from somareg.preprocess.drawings import without_drawings
from somareg.preprocess.fills import without_fills
from somareg.preprocess.pixelwise import Greys
from somareg.preprocess.rulings import without_rulings
from somareg.preprocess.sentinels import without_sentinels
from somareg.types import Modality, Raster, Transform


@dataclass(frozen=True, eq=False)
class GroundOnly:
    """Both images with masks that leave only ground.

    Attributes:
        notes: what was left out.
        doubts: sentences that forbid "go".
    """

    moving: Raster
    reference: Raster
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def ground_only(
    moving: Raster,
    reference: Raster,
    places: Sequence[Transform],
    modalities: tuple[Modality, Modality],
    *,
    is_part: bool = False,
) -> GroundOnly:
    """Mask what shows no ground: undeclared nodata, regions of one value, ruled lines, and what was drawn into both.

    Args:
        moving, reference: the bands that are matched.
        places: maps, reference pixels -> moving pixels, by which a program may have drawn in both: the georeference,
            and pixel on pixel.
        modalities: of moving and reference.
        is_part: the images are parts of larger ones; a part may lie in a fill as a whole and is then masked.
    """
    moving, away = without_sentinels(moving, "moving", modalities[0])
    reference, near = without_sentinels(reference, "reference", modalities[1])
    moving, reference, filled = without_fills(moving, reference, places, modalities, is_part=is_part)
    greys = Greys.of(moving, reference)
    moving, reference, ruled = without_rulings(moving, reference, places, greys)
    moving, reference, drawn, doubts = without_drawings(moving, reference, places, modalities, greys)
    return GroundOnly(moving, reference, (*away, *near, *filled, *ruled, *drawn), doubts)
