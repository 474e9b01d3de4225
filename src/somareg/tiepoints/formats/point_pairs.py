"""Point pairs as stored in files, and their conversion to pixels of the two images and back.

Files differ in their coordinates: pixels, map coordinates, or the coordinates of the layer
that a program showed. A `PointPairs` keeps them unchanged; the grids of the two images, if known,
convert them to pixel centres or map coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from somareg.config import GcpMethod
from somareg.errors import GeoreferenceError, InputError
from somareg.io.crs import reproject, same_crs
from somareg.io.georef import georeference
from somareg.io.source import open_source
from somareg.io.unnamed import in_one_system
from somareg.types import BoolArray, FloatArray, Grid, Header, Raster, TiePoints, Transform

Role = Literal["reference", "moving"]
Space = Literal["pixel", "map"]
ImageLike = str | Path | Raster | Header | Grid
"""A raster file (only its header is read), a raster in memory, or a grid."""


@dataclass(frozen=True, eq=False)
class Images:
    """The grids of the two images, if known.

    Attributes:
        reference, moving: None when unknown.
        reference_file, moving_file: None when the grid came without a file.
        moving_reading: reading options of the moving image, JSON-ready, for formats that can hold them; {} without any.
        correction: the map fitted to the points; None when unknown.
        both_placed: both have a georeference, so that a displacement connects places on a map.
    """

    reference: Grid | None = None
    moving: Grid | None = None
    reference_file: Path | None = None
    moving_file: Path | None = None
    moving_reading: Mapping[str, Any] = field(default_factory=dict)
    correction: Transform | None = None
    both_placed: bool = False


@dataclass(frozen=True, eq=False)
class Places:
    """The places of the points in one image.

    Attributes:
        xy: (N, 2), NaN where a point has no place.
        space: "pixel" for pixel centres (x right, y down), "map" for map coordinates.
        crs: WKT of the map coordinates; None for pixels, and for a map in the CRS of the image itself.
    """

    xy: FloatArray
    space: Space = "pixel"
    crs: str | None = None

    def pixels(self, grid: Grid | None, role: Role, file: str) -> FloatArray:
        """Pixel centres (N, 2) of the image.

        Raises:
            InputError: map coordinates of an unknown image.
            GeoreferenceError: map coordinates, and the image has no CRS or another one that cannot be joined.
        """
        if self.space == "pixel":
            return self.xy
        if grid is None:
            raise InputError(f"{file} holds map coordinates of the {role} image; give that image with --{role}")
        if grid.crs is None and (self.crs is not None or not grid.unnamed_crs):
            raise GeoreferenceError(f"{file} holds map coordinates, but the {role} image has no CRS (--assume-crs)")
        there = self.xy
        if self.crs is not None and grid.crs is not None and not same_crs(self.crs, grid.crs):
            there = reproject(there, self.crs, grid.crs)
        return grid.to_pixel(there)

    def on_map(self, grid: Grid | None, role: Role, file: str) -> tuple[FloatArray, str]:
        """Map coordinates (N, 2) and the WKT of their CRS, from the file, else from the image.

        Raises:
            InputError: pixels of an unknown image.
            GeoreferenceError: pixels, and the image has no CRS.
        """
        if self.space == "map" and self.crs is not None:
            return self.xy, self.crs
        if grid is None:
            raise InputError(f"{file} needs map coordinates of the {role} image; give that image with --{role}")
        if grid.crs is None:
            raise GeoreferenceError(f"{file} needs map coordinates, but the {role} image has no CRS (--assume-crs)")
        return (self.xy if self.space == "map" else grid.to_map(self.xy)), grid.crs


@dataclass(frozen=True, eq=False)
class PointPairs:
    """Point pairs of one file.

    Attributes:
        reference, moving: places of the points in each image.
        displacement: (N, 2), sigma_px, confidence, residual_px: (N,), inlier: (N,) bool, as in `TiePoints`; NaN where
            the file has no value; points are inliers unless the file marks them as outliers.
    """

    reference: Places
    moving: Places
    inlier: BoolArray
    displacement: FloatArray
    sigma_px: FloatArray
    confidence: FloatArray
    residual_px: FloatArray

    def __len__(self) -> int:
        return len(self.inlier)

    def kept(self, mask: BoolArray) -> PointPairs:
        """Select points by a mask (N,)."""
        names = ("inlier", "displacement", "sigma_px", "confidence", "residual_px")
        some: dict[str, Any] = {name: getattr(self, name)[mask] for name in names}
        return replace(
            self,
            reference=replace(self.reference, xy=self.reference.xy[mask]),
            moving=replace(self.moving, xy=self.moving.xy[mask]),
            **some,
        )


def on_layer(grid: Grid | None, xy: FloatArray) -> FloatArray:
    """QGIS's layer coordinates of pixel centres: in the CRS, or column and minus row for an image without one."""
    if grid is not None and grid.is_georeferenced:
        return grid.to_map(xy)
    return (np.asarray(xy, float) + 0.5) * (1.0, -1.0)


def make_pairs(reference: Places, moving: Places, **known: FloatArray | BoolArray) -> PointPairs:
    """Make pairs from the known attributes; the others become NaN, and every point an inlier."""
    n = len(reference.xy)
    empty = np.full(n, np.nan)
    values: dict[str, Any] = {
        "inlier": np.ones(n, bool),
        "displacement": np.full((n, 2), np.nan),
        "sigma_px": empty,
        "confidence": empty,
        "residual_px": empty,
        **known,
    }
    return PointPairs(reference, moving, **values)


def from_tie_points(points: TiePoints) -> PointPairs:
    """The pairs of tie points, in pixels of both images."""
    return make_pairs(
        Places(points.reference_xy),
        Places(points.moving_xy),
        inlier=points.inlier,
        displacement=points.displacement,
        sigma_px=points.sigma_px,
        confidence=points.confidence,
        residual_px=points.residual_px,
    )


def to_tie_points(pairs: PointPairs, images: Images, file: Path) -> TiePoints:
    """Tie points in pixels of both images.

    The displacement follows from the two grids when both are known and can be joined (both have a CRS, or none has).
    Otherwise it is the file's, or NaN.

    Raises:
        InputError: map coordinates of an unknown image.
        GeoreferenceError: map coordinates, and the image has no CRS.
    """
    reference, moving = images.reference, images.moving
    here = pairs.reference.pixels(reference, "reference", str(file))
    there = pairs.moving.pixels(moving, "moving", str(file))
    displacement = pairs.displacement
    if reference is not None and moving is not None and reference.is_georeferenced == moving.is_georeferenced:
        displacement = georeference(reference, moving).inverse(there) - here
    return TiePoints(here, there, displacement, pairs.sigma_px, pairs.confidence, pairs.inlier, pairs.residual_px)


def known_images(reference: ImageLike | None, moving: ImageLike | None, gcp_method: GcpMethod = "auto") -> Images:
    """Grids and files of the two images; `gcp_method` is the curve through ground control points.

    Raises:
        ReadError, UnsupportedError, GeoreferenceError: a file cannot be opened, see `open_source`.
    """
    here, here_file = _known(reference, "reference", gcp_method)
    there, there_file = _known(moving, "moving", gcp_method)
    if here is not None and there is not None:
        here, there, _ = in_one_system(here, there)
    return Images(here, there, here_file, there_file)


def _known(image: ImageLike | None, role: str, gcp_method: GcpMethod) -> tuple[Grid | None, Path | None]:
    if image is None or isinstance(image, Grid):
        return image, None
    if isinstance(image, Raster | Header):
        return image.grid, image.path
    with open_source(image, role=role, gcp_method=gcp_method) as source:
        return source.grid, Path(image)
