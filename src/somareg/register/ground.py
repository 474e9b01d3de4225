"""The common ground of both images; everything is cut to it and sized by it before matching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from somareg.errors import GeoreferenceError, NoOverlapError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import jacobian_at, jacobian_between, source_window
from somareg.io.raster import MIN_SIDE
from somareg.io.source import Block
from somareg.types import FloatArray, Grid, Transform

ROOM_PX = 8  # moving pixels kept beyond the search radius, see `preprocess.prepare`
EDGE_PX = 8  # that kernels reach
RIM_PX = 20.0  # rim of the reference around the moving image's footprint
_LINES = 65
_TORN, _SHOWN = 0.25, 0.1  # share of a footprint between neighbours that means a tear; least share of image
_SNAP = 1e-3  # pixels: the rounding of georeferences


@dataclass(frozen=True, eq=False)
class Ground:
    """The part of each image that is used.

    Attributes:
        reference, moving: parts, in pixels of the whole images.
        radius_px: search radius.
        georef: pixels of the reference's part -> pixels of the moving one's, before matching.
        is_placed: whether `georef` comes from georeferences.
        notes: how the ground was determined, for the result.
        is_looked_for: whether one image was searched in the other, instead of trusting the georeferences.
        doubts: sentences that forbid "go".
        offset: (x, y) reference pixels from the place that `georef` assumes to the one that the georeferences claim.
    """

    reference: Block
    moving: Block
    radius_px: float
    georef: Transform
    is_placed: bool
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    is_looked_for: bool = False
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the reference's part."""
        return self.reference.height, self.reference.width

    @property
    def there(self) -> tuple[float, float]:
        """Corner (x, y) of the part that corrections map to: of the reference at the claimed place if georeferenced,
        else of the other.
        """
        corner = self.reference if self.is_placed else self.moving
        return corner.x + self.offset[0], corner.y + self.offset[1]

    @property
    def knows(self) -> bool:
        """Whether `georef` carries information."""
        start = self.georef
        return self.is_placed or not (isinstance(start, AffineTransform) and np.array_equal(start.matrix, np.eye(2, 3)))

    @property
    def after_correction(self) -> Transform:
        """The map from targets of corrections to pixels of the moving image's part."""
        return self.georef if self.is_placed else AffineTransform.identity()

    @property
    def places(self) -> tuple[Transform, ...]:
        """Maps between the parts by which a program may have drawn in both: the georeference, and pixel on pixel."""
        (left, top, *_), (x, y, *_) = self.reference, self.moving
        pixel_on_pixel = AffineTransform.from_parameters(shift=(left - x, top - y))
        georef = self.georef
        if isinstance(georef, AffineTransform) and np.allclose(georef.matrix, pixel_on_pixel.matrix, atol=_SNAP):
            return (pixel_on_pixel,)
        return georef, pixel_on_pixel


Radius = Callable[[float], float]
"""Search radius, reference pixels, for a footprint with a given longer side."""


def common_ground(
    reference: Grid, moving: Grid, georef: Transform, radius: Radius, more_px: float = 0.0, rim_px: float = RIM_PX
) -> Ground:
    """The moving image's footprint on the reference with a rim, and the part of the moving image that a search can
    reach.

    Without georeferences these are both whole images.

    Args:
        reference, moving: whole grids.
        georef: reference pixels -> moving pixels.
        radius: see `Radius`.
        more_px: added to the radius, for given points.
        rim_px: kept around the footprint, at most the radius. When the images lie further apart than that, as many
            pixels of the smaller one are not used; a wider rim would be reference that shows nothing of it.

    Raises:
        NoOverlapError: the moving image cannot be placed.
    """
    whole = Block(0, 0, reference.width, reference.height)
    other = Block(0, 0, moving.width, moving.height)
    if not reference.is_georeferenced:
        return Ground(whole, other, radius(max(reference.shape)) + more_px, georef, is_placed=False)
    # Between different CRSs the outline may run around its inside, for example a pole.
    outline = georef.inverse(outline_of(other, inside=not georef.is_affine))
    back = outline[np.isfinite(outline).all(axis=1)]
    if not len(back):
        raise NoOverlapError("the moving image cannot be placed on the reference's grid; check the CRS of both images")
    low, high = back.min(axis=0), back.max(axis=0)
    size = np.minimum(high - low + 1, [reference.width, reference.height])
    around = radius(float(size.max()))
    here = _grown(low, high, min(around, rim_px) + more_px, whole)
    _check_in_one_piece(georef.inverse, outline, here, other, "moving image")
    away = part_under(georef, here, around + more_px + ROOM_PX, moving)
    _check_in_one_piece(georef, georef(outline_of(here, inside=True)), away, here, "reference")
    shift = AffineTransform.from_parameters
    between = compose(shift(shift=(-away.x, -away.y)), georef, shift(shift=here[:2]))
    return Ground(here, away, around + more_px, between, is_placed=True)


def footprint_area(to_moving: Transform, reference: Grid, moving: Grid) -> float:
    """Area in reference pixels of the moving image's frame under a map from reference to moving pixels."""
    jacobian = jacobian_between(to_moving, reference.shape, moving.shape)
    return float(moving.width * moving.height / max(abs(np.linalg.det(jacobian)), 1e-12))


def ground_at(start: AffineTransform, reference: Grid, moving: Grid, radius: Radius, rim_px: float = np.inf) -> Ground:
    """The common ground by an affine, without georeferences.

    Args:
        start: reference pixels -> moving pixels.
        reference, moving: whole grids.
        radius: see `Radius`.
        rim_px: see `common_ground`.
    """
    whole = Block(0, 0, reference.width, reference.height)
    back = start.inverse(outline_of(Block(0, 0, moving.width, moving.height)))
    low, high = back.min(axis=0), back.max(axis=0)
    size = np.minimum(high - low + 1, [reference.width, reference.height])
    reach = radius(float(size.max()))
    here = _grown(low, high, min(reach, rim_px), whole)
    away = part_under(start, here, reach + ROOM_PX, moving)
    shift = AffineTransform.from_parameters
    between = shift(shift=(-away.x, -away.y)).after(start).after(shift(shift=here[:2]))
    return Ground(here, away, reach, between, is_placed=False)


def _check_in_one_piece(onto: Transform, outline: FloatArray, block: Block, image: Block, name: str) -> None:
    """Refuse a footprint that the edge of a map tears into pieces with mostly nothing of the image between them.

    Args:
        onto: pixels of the image -> pixels of the other one.
        outline: (N * N, 2) images of a lattice over the image; for an affine, which tears nothing, any points.
        block: the part of the other image from the first piece to the last.
        image: the projected part.
        name: of the image.

    Raises:
        GeoreferenceError: it is torn.
    """
    if onto.is_affine or len(outline) != _LINES**2:
        return
    places = outline.reshape(_LINES, _LINES, 2)
    steps = [np.abs(np.diff(places, axis=axis)).reshape(-1, 2) for axis in (0, 1)]
    longest = np.nanmax(np.concatenate(steps), axis=0, initial=0.0)
    if (longest < _TORN * np.array(block[2:])).all():
        return
    back = onto.inverse(outline_of(block, inside=True)) - image[:2]
    share = ((back >= -0.5) & (back < np.array(image[2:]) - 0.5)).all(axis=1).mean()
    if share < _SHOWN:
        raise GeoreferenceError(
            f"the {name} lies across the edge of the other image's map and would span {block.width} x {block.height} "
            "of its pixels, nearly all of which show something else; bring one image to a CRS without an edge there: "
            "gdalwarp -t_srs"
        )


def _grown(low: FloatArray, high: FloatArray, by: float, frame: Block) -> Block:
    """The rectangle from `low` to `high`, grown by `by` pixels, inside the frame and not below the smallest side."""
    spans = []
    for first, last, length in zip(low - by, high + by, (frame.width, frame.height), strict=True):
        short = max(0.0, MIN_SIDE - (min(last, length - 1.0) - max(first, 0.0)))
        start = max(0, min(int(np.floor(first - short + _SNAP)), length - MIN_SIDE))
        spans.append((start, min(length, max(int(np.ceil(last + short - _SNAP)) + 1, start + MIN_SIDE))))
    (left, right), (top, bottom) = spans
    return Block(left, top, right - left, bottom - top)


def footprint(georef: Transform, moving: Grid, *, inside: bool = False) -> FloatArray:
    """Points (N, 2) along the moving image's outline, or with `inside` all over it, reference pixels; those that the
    georeferences map.
    """
    points = georef.inverse(outline_of(Block(0, 0, moving.width, moving.height), inside=inside))
    return points[np.isfinite(points).all(axis=1)]


def part_under(to_moving: Transform, here: Block, reach_px: float, moving: Grid) -> Block:
    """The part of the moving image that may show a part of the reference."""
    whole = Block(0, 0, moving.width, moving.height)
    there = to_moving(outline_of(here, reach_px, inside=True))
    if to_moving.is_affine:
        low, high = np.floor(there.min(axis=0)) - EDGE_PX, np.ceil(there.max(axis=0)) + EDGE_PX
        return _clipped(low, high, whole)
    jacobian = jacobian_at(to_moving, (here.x + (here.width - 1) / 2, here.y + (here.height - 1) / 2))
    if not np.isfinite(jacobian).all():
        centre = to_moving.inverse(np.array([[(moving.width - 1) / 2, (moving.height - 1) / 2]]))[0]
        jacobian = jacobian_at(to_moving, (float(centre[0]), float(centre[1])))
    if not np.isfinite(jacobian).all():
        raise NoOverlapError("the moving image cannot be placed on the reference's grid; check the CRS of both images")
    # Elsewhere a projection may be undefined: points near the image count, and everything between two of them.
    spacing = (max(here.width, here.height) + 2 * reach_px) / (_LINES - 1)
    margin = EDGE_PX + int(np.ceil(spacing * np.abs(jacobian).sum(axis=1).max()))
    return Block(*(source_window(there, moving.shape, margin) or whole))


def _clipped(low: FloatArray, high: FloatArray, frame: Block) -> Block:
    """The rectangle from `low` to `high` clipped to the frame; the whole frame when they do not meet."""
    left, top = (int(max(value, 0.0)) for value in low)
    right, bottom = (int(min(value + 1, side)) for value, side in zip(high, frame[2:], strict=True))
    return Block(left, top, right - left, bottom - top) if left < right and top < bottom else frame


def outline_of(block: Block, beyond: float = 0.0, *, inside: bool = False) -> FloatArray:
    """Points (N, 2) along a rectangle's outermost pixels, `beyond` pixels outside; with `inside` all over it."""
    x, y = (
        np.linspace(first - beyond, first + length - 1 + beyond, _LINES)
        for first, length in ((block.x, block.width), (block.y, block.height))
    )
    columns, rows = np.meshgrid(x, y)
    selection = np.ones(columns.shape, bool)
    selection[1:-1, 1:-1] = inside
    return np.stack([columns[selection], rows[selection]], axis=-1)
