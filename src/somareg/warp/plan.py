"""The map from pixels of the output to pixels of the raster."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from somareg.errors import InputError, NoOverlapError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import jacobian_between
from somareg.geometry.pixels import at_pixels
from somareg.geometry.proportions import same_proportions, scaling
from somareg.geometry.resample import footprint_of
from somareg.io.georef import check_overlap, georeference
from somareg.io.source import Block
from somareg.types import IDENTITY, Estimate, FloatArray, Grid, Transform

log = logging.getLogger("somareg.warp")

Resolution = Literal["reference", "native"]


@dataclass(frozen=True, eq=False)
class WarpPlan:
    """The map from output pixels to raster pixels: `to_raster @ correction @ to_reference`.

    Attributes:
        grid: of the output.
        to_reference: output pixel centres -> reference pixel centres (identity unless `resolution="native"`).
        correction: the estimate's.
        to_raster: reference pixel centres -> raster pixel centres by the georeference, or by the image sizes.
        footprint: raster pixels per output pixel along raster x and y.
    """

    grid: Grid
    to_reference: AffineTransform
    correction: Transform
    to_raster: Transform
    footprint: tuple[float, float]

    def coordinates(self, block: Block) -> tuple[FloatArray, FloatArray]:
        """Raster pixel-centre coordinates x and y of a block of the output, each (h, w)."""
        return at_pixels(compose(self.to_raster, self.correction, self.to_reference), *block)


def make_plan(estimate: Estimate, raster: Grid, name: str, resolution: Resolution = "reference") -> WarpPlan:
    """Combine an estimate with the grid of a raster.

    Georeferenced estimates use the raster's own georeference; a raster without CRS that has the moving image's
    proportions gets the moving image's place. Estimates made in pixels scale by the image sizes.

    Args:
        estimate: what to apply.
        raster: grid of the raster to be warped.
        name: what messages call it.
        resolution: "reference" gives the reference grid, "native" the same extent at the raster's own pixel size.

    Raises:
        GeoreferenceError: the georeferences cannot be combined.
        NoOverlapError: the raster lies elsewhere.
        InputError: in pixel mode, the raster does not have the moving image's proportions.
    """
    to_raster = _to_raster(estimate, raster, name)
    reference = estimate.reference
    jacobian = jacobian_between(to_raster, reference.shape, raster.shape)
    if not np.isfinite(jacobian).all():
        raise NoOverlapError(f"{name} cannot be placed on the reference's grid; check its CRS")
    grid, to_reference = reference, AffineTransform.identity()
    if resolution == "native":
        grid, to_reference = _at_pixel_size(reference, np.hypot(jacobian[0], jacobian[1]))
    footprint = footprint_of(jacobian @ to_reference.matrix[:, :2])
    return WarpPlan(grid, to_reference, estimate.correction, to_raster, footprint)


def _to_raster(estimate: Estimate, raster: Grid, name: str) -> Transform:
    reference, moving = estimate.reference, estimate.moving
    if not (reference.is_georeferenced or moving.is_georeferenced):
        return _scaling(moving, raster, name)
    if moving.unnamed_crs and raster.crs is None and raster.has_geotransform:
        raster = dataclasses.replace(raster, unnamed_crs=True)
    if not raster.is_georeferenced and not raster.has_geotransform and same_proportions(moving, raster):
        log.warning("%s has no georeference; it is placed where the moving image of the estimate lay", name)
        return compose(_scaling(moving, raster, name), georeference(reference, moving))
    assumed = estimate.reading.assume_crs is not None and raster.has_geotransform
    if not raster.is_georeferenced and (assumed or raster.transform == moving.transform):
        raster = dataclasses.replace(raster, crs=moving.crs)
    if raster.control is not None and moving.control is not None:
        # The estimate is relative to the curve that it was made with.
        raster = dataclasses.replace(raster, control=raster.control.with_method(moving.control.method))
    names = ("the estimate's reference", name)
    check_overlap(reference, raster, names)
    return georeference(reference, raster, names)


def _scaling(moving: Grid, raster: Grid, name: str) -> AffineTransform:
    """Moving pixel centres -> pixel centres of the same picture at another size: corners fall on corners."""
    if not same_proportions(moving, raster):
        raise InputError(
            f"{name} is {raster.width} x {raster.height} px, not in proportion to the moving image of the estimate "
            f"({moving.width} x {moving.height} px); without georeference it must show the same ground"
        )
    return scaling(moving, raster)


def _at_pixel_size(reference: Grid, density: FloatArray) -> tuple[Grid, AffineTransform]:
    """The reference's extent with `density` (x, y) pixels per reference pixel, and the map back to its pixels."""
    size = 1.0 / density
    width, height = (
        max(1, int(np.ceil(n * d - 1e-6))) for n, d in zip((reference.width, reference.height), density, strict=True)
    )
    a, b, c, d, e, f = reference.transform
    transform = IDENTITY
    if reference.transform != IDENTITY:
        transform = (a * float(size[0]), b * float(size[1]), c, d * float(size[0]), e * float(size[1]), f)
    control = reference.control.scaled((float(density[0]), float(density[1]))) if reference.control else None
    grid = dataclasses.replace(reference, width=width, height=height, transform=transform, control=control)
    return grid, AffineTransform(np.column_stack([np.diag(size), size / 2 - 0.5]))
