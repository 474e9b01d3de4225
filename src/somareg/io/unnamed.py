"""Images with a geotransform and without a CRS: world files, local surveys, exports of CAD."""

from __future__ import annotations

from dataclasses import replace

from somareg.errors import NoOverlapError
from somareg.io.georef import check_overlap
from somareg.types import Grid


def in_one_system(
    reference: Grid, moving: Grid, names: tuple[str, str] = ("reference", "moving")
) -> tuple[Grid, Grid, str]:
    """Both grids, placed by their geotransforms where both have one, neither names a CRS, and they share ground.

    Args:
        reference, moving: as their files tell.
        names: how messages call them.

    Returns:
        The grids, with `unnamed_crs` where their geotransforms are used, and a sentence that says what became of
        geotransforms without a CRS; "" where there are none.

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
