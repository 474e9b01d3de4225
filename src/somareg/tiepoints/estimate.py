"""An estimate from tie points alone, without reading pixels of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from somareg.config import GcpMethod
from somareg.errors import EstimationError, InputError, guarded
from somareg.geometry import compose
from somareg.io import georeference
from somareg.tiepoints.fit import field_of, fit_smooth
from somareg.tiepoints.formats import moving_reading
from somareg.tiepoints.formats.point_pairs import ImageLike, known_images
from somareg.tiepoints.use import name_of, take_points
from somareg.types import Estimate, Reading, TiePoints


@guarded
def estimate_from_points(
    tie_points: str | Path | TiePoints,
    *,
    reference: ImageLike,
    moving: ImageLike,
    local: bool = True,
    gcp_method: GcpMethod = "auto",
) -> Estimate:
    """The robust affine of tie points, and the smooth displacement that their residuals show.

    It equals the estimate of `register(..., tie_points_use="replace")` on images matched at full size. No pixel is
    read, so there is no verdict.

    Args:
        tie_points: a file that `read_tie_points` knows, or points in pixels of both images.
        reference, moving: the images that they join: files (only headers are read), rasters or grids.
        local: False for the affine alone.
        gcp_method: the curve through ground control points, for images without a geotransform.

    Returns:
        An estimate for `warp`, with the reading of the moving image if the file of the points records it.

    Raises:
        InputError: fewer than three usable points, points on a line, or points that contradict the georeferences by
            more than the size of the image.
        ReadError, ConfigError, GeoreferenceError: as `read_tie_points` and `georeference`.
    """
    reading, sha256 = (Reading(), "") if isinstance(tie_points, TiePoints) else moving_reading(tie_points)
    if gcp_method != "auto":
        reading = replace(reading, gcp_method=gcp_method)
    method: Any = reading.gcp_method or "auto"
    images = known_images(reference, moving, method)
    here, there = images.reference, images.moving
    if here is None or there is None:
        raise InputError("tie points need both images that they join; give reference and moving")
    points = take_points(tie_points, here, there, georeference(here, there, ("the reference", "the moving image")))
    try:
        fit, smooth = fit_smooth(points.points, points.fit)
    except EstimationError as error:
        raise InputError(f"{name_of(tie_points)}: {error}") from error
    if not local or smooth.variance == 0:
        return Estimate(fit.affine, here, there, reading, sha256)
    return Estimate(compose(fit.affine, field_of(smooth, here.shape)[0]), here, there, reading, sha256)
