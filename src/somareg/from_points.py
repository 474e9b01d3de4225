"""An estimate from tie points alone, without a look at the images: what somebody matched elsewhere can be applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from somareg.errors import EstimationError, InputError
from somareg.geometry import compose
from somareg.given import checked_fit, name_of, usable_points
from somareg.io import georeference, read_tie_points
from somareg.io.tie_points.images import ImageLike, known_images
from somareg.matching.given_fit import GivenFit, GivenPoints, fit_smooth, step_px
from somareg.matching.process import lattice
from somareg.types import Estimate, TiePoints, Transform


def estimate_from_points(
    tie_points: str | Path | TiePoints, *, reference: ImageLike, moving: ImageLike, local: bool = True
) -> Estimate:
    """The robust affine of tie points, and the smooth displacement that they carry beyond it.

    The same estimate as `register(..., tie_points_use="replace")` makes on images that are matched at full size, but no
    pixel is read, so there is no verdict either.

    Args:
        tie_points: a file that `read_tie_points` knows, or points in pixels of both images.
        reference, moving: the images that they join: files (only headers are read), rasters or grids.
        local: False for the affine alone.

    Returns:
        What `warp` applies.

    Raises:
        InputError: fewer than three usable points, points on a line, or points that contradict the georeferences by
            more than the size of the image.
        ReadError, ConfigError, GeoreferenceError: as `read_tie_points` and `georeference`.
    """
    images = known_images(reference, moving)
    fixed, moved = images.reference, images.moving
    if fixed is None or moved is None:
        raise InputError("tie points need both images that they join; give reference and moving")
    name = str(name_of(tie_points))
    given = tie_points if isinstance(tie_points, TiePoints) else read_tie_points(name, reference=fixed, moving=moved)
    georef = georeference(fixed, moved, ("the reference", "the moving image"))
    points, _ = usable_points(given, georef.inverse(given.moving_xy))
    fit = checked_fit(points, fixed, name)
    try:
        return Estimate(_correction(points, fit, fixed.shape, local), fixed, moved)
    except EstimationError as error:
        raise InputError(f"{name}: {error}") from error


def _correction(points: GivenPoints, fit: GivenFit, shape: tuple[int, int], local: bool) -> Transform:
    fit, smooth = fit_smooth(points, fit)
    if not local or smooth.variance == 0:
        return fit.affine
    field, where = lattice(shape, step_px(shape))
    values = smooth.predict(where).T.reshape(field.array.shape).numpy()
    return compose(fit.affine, replace(field, array=values))
