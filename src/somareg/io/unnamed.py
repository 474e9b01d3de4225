"""Images with geotransforms but without a CRS: world files, local surveys, exports of CAD."""

from __future__ import annotations

from dataclasses import replace

from somareg.errors import NoOverlapError
from somareg.io.georef import check_overlap
from somareg.types import Grid


def in_one_system(
    reference: Grid, moving: Grid, names: tuple[str, str] = ("reference", "moving")
) -> tuple[Grid, Grid, str]:
    """Use the geotransforms of a pair without CRSs when both have one and they overlap.

    Args:
        reference, moving: grids from their files.
        names: of the two images in messages.

    Returns:
        The grids, with `unnamed_crs` when their geotransforms are used, and a sentence on whether they use
        geotransforms without a CRS; "" when there are none.

    Raises:
        GeoreferenceError: a degenerate geotransform.
    """
    both = (reference, moving)
    if any(grid.is_georeferenced for grid in both) or not any(grid.has_geotransform for grid in both):
        return reference, moving, ""
    bare = [name for name, grid in zip(names, both, strict=True) if not grid.has_geotransform]
    if bare:
        return reference, moving, f"{bare[0]} has no geotransform, so that of the other, without a CRS, is not used"
    here, there = (replace(grid, unnamed_crs=True) for grid in both)
    try:
        check_overlap(here, there, names)
    except NoOverlapError:
        return (
            reference,
            moving,
            "neither image names a CRS, and their geotransforms share no ground: they are not used",
        )
    return here, there, "neither image names a CRS: their geotransforms are taken to be in one system"
