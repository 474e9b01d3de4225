"""The few values that travel between rooms.

Conventions (DESIGN.md): arrays are (bands, height, width); points are (x, y) with +x right, +y down; an integer
coordinate is a pixel **centre**; `displacement` is the backward map on the reference grid in pixels,
`moving_xy = reference_xy + (dx, dy)`. Only `io` converts to the corner convention of geotransforms.

This module imports neither torch nor rasterio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Modality = Literal["sar", "optical", "other"]
SarScale = Literal["auto", "dB", "power", "amplitude", "complex"]
Decision = Literal["go", "review", "no-go"]
ControlMethod = Literal["polynomial", "tps"]
Progress = Callable[[str, float], None]
"""Called with a stage's name and the share of work done, 0-1."""

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Geotransform = tuple[float, float, float, float, float, float]

IDENTITY: Geotransform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class ControlPoints(Protocol):
    """Ground control points and the curve through them; see `somareg.geometry.ground_control.GroundControl`."""

    @property
    def xy(self) -> FloatArray: ...

    @property
    def map_xy(self) -> FloatArray: ...

    @property
    def method(self) -> ControlMethod: ...

    @property
    def is_affine(self) -> bool: ...

    def to_map(self, xy: FloatArray) -> FloatArray: ...

    def to_pixel(self, map_xy: FloatArray) -> FloatArray: ...

    def scaled(self, scale: tuple[float, float]) -> ControlPoints: ...

    def shifted(self, by: tuple[float, float]) -> ControlPoints: ...

    def with_method(self, method: ControlMethod) -> ControlPoints: ...


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of an image are.

    Attributes:
        width, height: pixels.
        transform: affine coefficients (a, b, c, d, e, f) from **corner** pixel coordinates to map coordinates,
            `X = a*col + b*row + c`, `Y = d*col + e*row + f` (rasterio's order); identity when not georeferenced.
        crs: WKT of the coordinate reference system, or None when the image is not georeferenced.
        control: the ground control points that place the pixels when no geotransform does; `transform` is then the
            affine nearest to them, good for sizes and nothing else.
    """

    width: int
    height: int
    transform: Geotransform = IDENTITY
    crs: str | None = None
    control: ControlPoints | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def is_georeferenced(self) -> bool:
        return self.crs is not None

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Lengths of a pixel's x and y edges in map units."""
        a, b, _, d, e, _ = self.transform
        return float(np.hypot(a, d)), float(np.hypot(b, e))

    def to_map(self, xy: FloatArray) -> FloatArray:
        """Map coordinates (N, 2) of pixel-centre coordinates (N, 2)."""
        if self.control is not None:
            return self.control.to_map(xy)
        a, b, c, d, e, f = self.transform
        col, row = np.asarray(xy, float).T + 0.5
        return np.stack([a * col + b * row + c, d * col + e * row + f], axis=-1)

    def to_pixel(self, map_xy: FloatArray) -> FloatArray:
        """Pixel-centre coordinates (N, 2) of map coordinates (N, 2)."""
        if self.control is not None:
            return self.control.to_pixel(map_xy)
        a, b, c, d, e, f = self.transform
        x, y = np.asarray(map_xy, float).T - np.array([[c], [f]])
        det = a * e - b * d
        return np.stack([(e * x - b * y) / det, (a * y - d * x) / det], axis=-1) - 0.5

    def part(self, x: int, y: int, width: int, height: int) -> Grid:
        """The place of a rectangle of the image, whose first pixel is (x, y)."""
        if (x, y, width, height) == (0, 0, self.width, self.height):
            return self
        a, b, c, d, e, f = self.transform
        placed = self.crs is not None or self.transform != IDENTITY
        transform = (a, b, a * x + b * y + c, d, e, d * x + e * y + f) if placed else IDENTITY
        control = self.control.shifted((-x, -y)) if self.control else None
        return Grid(width, height, transform, self.crs, control)


@dataclass(frozen=True, slots=True)
class StacOrigin:
    """The STAC Item that an image was found through.

    Attributes:
        item: its id.
        asset: key of the asset.
        href: the Item's own address, else the path of its file, "" for an Item in memory.
        dates: its "datetime", or "start_datetime" and "end_datetime", as written (RFC 3339).
    """

    item: str
    asset: str
    href: str = ""
    dates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """An image in memory with its mask and its place on the ground.

    Attributes:
        data: (C, H, W), the original dtype, real or complex.
        mask: (H, W) bool, True where the pixel is valid.
        grid: where the pixels are.
        name: what messages call it (file path or "moving array").
        path: the file it came from, if any.
        nodata: declared nodata value, if any.
        descriptions: one per band ("" when unnamed).
        tags: dataset-level metadata, kept in outputs.
        colorinterp: one name per band (rasterio's lower-case names), () when unknown.
        sha256: of the file, "" for arrays.
        notes: what was decided while reading ("12 NaN or infinite pixels masked"), for the report.
        origin: the `StacOrigin` or the xarray.DataArray it was made from; None for plain files and arrays.
    """

    data: NDArray[Any]
    mask: BoolArray
    grid: Grid
    name: str = "array"
    path: Path | None = None
    nodata: float | None = None
    descriptions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    colorinterp: tuple[str, ...] = ()
    sha256: str = ""
    notes: tuple[str, ...] = ()
    origin: Any = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.data)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.data.dtype

    @property
    def valid_share(self) -> float:
        """Share of the pixels that are valid, 0-1."""
        return float(self.mask.mean()) if self.mask.size else 0.0


@dataclass(frozen=True, eq=False)
class Header:
    """What is known of an image that stays where it is; whoever asks for pixels has them read.

    Attributes:
        grid, name, path, nodata, descriptions, tags, colorinterp, sha256, notes, origin: as of a `Raster`.
        count, dtype: number and type of the bands.
        valid_share: of the pixels that were looked at, 0-1.
        reader: reads the whole image.
    """

    grid: Grid
    name: str
    count: int
    dtype: np.dtype[Any]
    reader: Callable[[], Raster] = field(repr=False)
    path: Path | None = None
    nodata: float | None = None
    descriptions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    colorinterp: tuple[str, ...] = ()
    sha256: str = ""
    notes: tuple[str, ...] = ()
    origin: Any = field(default=None, repr=False)
    valid_share: float = 1.0

    @property
    def data(self) -> NDArray[Any]:
        """(C, H, W), read anew each time."""
        return self.reader().data

    @property
    def mask(self) -> BoolArray:
        """(H, W) bool, read anew each time."""
        return self.reader().mask


@runtime_checkable
class Transform(Protocol):
    """A map of the plane, called on (N, 2) pixel-centre points (x, y)."""

    def __call__(self, xy: FloatArray) -> FloatArray:
        """Map points (N, 2) to points (N, 2)."""
        ...

    @property
    def inverse(self) -> Transform:
        """The map back; `t.inverse(t(xy))` is xy to numerical accuracy."""
        ...

    @property
    def is_affine(self) -> bool:
        """True when the map is exactly affine (it then has a `.matrix`)."""
        ...

    def __matmul__(self, first: Transform) -> Transform:
        """`(a @ b)(xy) == a(b(xy))`: the right one is applied first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """A dense backward map on the reference grid.

    Attributes:
        array: (2, H, W) float32 pixels, (dx, dy): `moving_xy = reference_xy + (dx, dy)`, where moving is the moving
            image brought to the reference grid by its georeference (or as it is, without one). NaN nowhere.
        certainty: (H, W) float32 in 0-1: how much of the local estimate rests on matches seen nearby.
        grid: the reference grid, or one whose pixels are 16 x 16 of it: values hold in the middles of its pixels.
    """

    array: NDArray[np.float32]
    certainty: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What is needed to apply a registration to any raster of the moving image's ground; it outlives the pixels.

    Attributes:
        correction: reference pixels -> pixels on the reference grid where the georeference shows the same ground.
        reference: grid of the reference, on which `correction` lives.
        moving: grid of the moving image the estimate was made with (its size matters when nothing is georeferenced).
    """

    correction: Transform
    reference: Grid
    moving: Grid


@dataclass(frozen=True, slots=True, eq=False)
class TiePoints:
    """Point pairs that join the two images, one per window that was matched.

    Attributes:
        reference_xy: (N, 2) pixels of the reference.
        moving_xy: (N, 2) pixels of the moving image as given (its own grid).
        displacement: (N, 2) measured (dx, dy) in reference pixels (see `Displacement`).
        sigma_px: (N,) predicted standard error per axis, pixels.
        confidence: (N,) 0-1.
        inlier: (N,) bool, kept by the robust fit.
        residual_px: (N,) distance between the measured point and the final transform.

    Points read from a file hold NaN for what it does not tell.
    """

    reference_xy: FloatArray
    moving_xy: FloatArray
    displacement: FloatArray
    sigma_px: FloatArray
    confidence: FloatArray
    inlier: BoolArray
    residual_px: FloatArray

    def __len__(self) -> int:
        return len(self.reference_xy)


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured about an estimate; every number that the verdict looks at.

    Attributes:
        n_points: windows that could be matched.
        inlier_ratio: share (by weight) of the points that the final transform explains, 0-1.
        coverage: share of the overlap's cells that hold an inlier, 0-1.
        residual_median_px: median distance of inliers to the final transform.
        peak_zscore: mean height of the windows' correlation at the estimate above its background, in background
            deviations; about 0 where the images do not correspond.
        peak_sharpness: mean correlation at the estimate against its best value elsewhere (1 unique, <= 0 no peak).
        hit_ratio: share of windows whose own best match, read without any prior, agrees with the estimate, 0-1 (chance
            about 0.1).
        forward_backward_px: disagreement of moving->reference with reference->moving, RMS pixels.
        split_half_px: disagreement of the fits to two halves of the points, RMS pixels.
        similarity_before, similarity_after: structural similarity (mean orientation correlation) under the
            georeference alone and under the estimate, -1 to 1.
        overlap: share of the smaller image's frame that shows valid pixels of both, 0-1.
        folding: share of pixels where the map folds over (Jacobian <= 0), 0-1.
        shift_before_px: RMS displacement found, that is the misregistration before alignment, pixels.
        rotation_deg, scale, shear_deg, shift_px: parameters of the global affine about the reference centre.
        local_rms_px: RMS of the local displacement beyond the affine.
        predicted_rmse_px, predicted_ce90_px: calibrated expected error of the estimate.
        metres_per_pixel: ground size of a reference pixel, None without a georeference.
    """

    n_points: int
    inlier_ratio: float
    coverage: float
    residual_median_px: float
    peak_zscore: float
    peak_sharpness: float
    hit_ratio: float
    forward_backward_px: float
    split_half_px: float
    similarity_before: float
    similarity_after: float
    overlap: float
    folding: float
    shift_before_px: float
    rotation_deg: float
    scale: float
    shear_deg: float
    shift_px: tuple[float, float]
    local_rms_px: float
    predicted_rmse_px: float
    predicted_ce90_px: float
    metres_per_pixel: float | None

    def as_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision and why, in plain words.

    Attributes:
        decision: "go" (use it), "review" (a person should look), "no-go" (do not use it).
        reasons: sentences, the weightiest first; never empty.
        probability: calibrated probability that the error is below 2 px, 0-1.
    """

    decision: Decision
    reasons: tuple[str, ...]
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Previews:
    """Pictures of a pair on the reference grid for reports: (h, w) or (h, w, 3) uint8, decimated by `step`.

    Attributes:
        reference, before, after: the reference, the moving image as its georeference places it, and aligned.
        step: reference pixels per preview pixel (float, >= 1).
        corner: (x, y) reference pixel where the pictures begin; they show what both images can show.
    """

    reference: NDArray[np.uint8]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    step: float
    corner: tuple[float, float] = (0.0, 0.0)

    @property
    def area(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) of the reference that the pictures show, pixels."""
        rows, columns = self.reference.shape[:2]
        return (*self.corner, columns * self.step, rows * self.step)


@dataclass(frozen=True, eq=False)
class Result:
    """What `register` returns.

    Attributes:
        transform: reference pixels -> pixels of the moving image as given (through both georeferences).
        correction: reference pixels -> pixels on the reference grid where the georeference shows the same ground;
            equals `transform` without a georeference. `displacement.array` samples `correction(xy) - xy`.
        affine: the global affine part of `correction` (a Transform with `.matrix`).
        displacement, tie_points, quality, verdict: see their classes. Of a reference above 4096 px, or of one that was
            matched in tiles, the displacement has a node for 16 x 16 pixels.
        moving, reference: the images; a `Raster` of what was in memory, a `Header` of files.
        settings: every option that shaped the result, JSON-ready.
        notes: decisions taken for the user ("SAR scale: dB, because …"), in order.
        timings: seconds per stage.
        previews: pictures for the report.
        tiles: what each tile said; () for a pair that was matched whole.
        folder: where `register_scene` writes the outputs; None otherwise.
    """

    transform: Transform
    correction: Transform
    affine: Transform
    displacement: Displacement
    tie_points: TiePoints
    quality: Quality
    verdict: Verdict
    moving: Raster | Header
    reference: Raster | Header
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    timings: Mapping[str, float]
    previews: Previews
    tiles: tuple[Any, ...] = field(default=(), repr=False)
    folder: Path | None = None
    saver: Callable[..., Path] | None = field(default=None, repr=False)
    converter: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def estimate(self) -> Estimate:
        """The part that `warp` applies."""
        return Estimate(self.correction, self.reference.grid, self.moving.grid)

    @property
    def predicted_rmse_px(self) -> float:
        """Expected error of the alignment, reference pixels (calibrated, see benchmarks/calibration)."""
        return self.quality.predicted_rmse_px

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        force: bool = False,
        stac: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write all outputs into `folder`, whole or not at all.

        Args:
            folder: created if missing; must be empty unless `overwrite`.
            overwrite: replace somareg's own outputs in an existing folder (other files are left alone).
            force: write `aligned.tif` even when the verdict is no-go.
            stac: describe the outputs in a STAC Item, `item.json` (extra `stac`).
            progress: called with a stage's name and the share of work done.

        Returns:
            The folder.

        Raises:
            OutputError: the folder exists and is not empty, is read-only, or the disk is full.
            UnsupportedError: `stac` and pystac is not installed; nothing is written.
        """
        if self.saver is None:
            raise RuntimeError("this Result was built without a saver; use somareg.register")
        told = {} if progress is None else {"progress": progress}
        return self.saver(self, Path(folder), overwrite=overwrite, force=force, stac=stac, **told)

    def to_xarray(self, what: Literal["aligned", "displacement"] = "aligned", *, force: bool = False) -> Any:
        """An output as `xarray.DataArray` on the reference grid, with CRS and nodata value for rioxarray.

        Args:
            what: "aligned", the moving image sampled once through the transform, (band, y, x) in its own dtype; or
                "displacement", float32 bands dx, dy (pixels) and certainty.
            force: give the aligned image even when the verdict is no-go.

        Raises:
            UnsupportedError: xarray or rioxarray is not installed (extra `xarray`).
            EstimationError: the verdict is no-go, and not `force`.
        """
        if self.converter is None:
            raise RuntimeError("this Result was built without a converter; use somareg.register")
        return self.converter(self, what, force=force)


@dataclass(frozen=True, eq=False)
class Assessment:
    """What `assess` returns: how well a pair is aligned as it stands.

    Attributes:
        verdict: "go" aligned and measurable, "review" measurable but off or hard to measure, "no-go" not aligned or
            no sign of common ground.
        misalignment_rmse_px, misalignment_rmse_m: RMS of the measured displacement (metres None without a CRS).
        offset_px: mean (dx, dy) measured.
        result: the estimate behind it (its transform was not applied to anything).
    """

    verdict: Verdict
    misalignment_rmse_px: float
    misalignment_rmse_m: float | None
    offset_px: tuple[float, float]
    result: Result
