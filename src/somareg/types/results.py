"""The results that public functions return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from somareg.types.brief import brief, count, error, name_of
from somareg.types.estimates import Displacement, Estimate, Reading, TiePoints, Transform
from somareg.types.images import Header, Raster
from somareg.types.kinds import Progress, Reports
from somareg.types.later import Deferred
from somareg.types.places import Closeup
from somareg.types.quality import Quality
from somareg.types.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Panel = Literal["reference", "before", "after", "arrows", "error"]
"""What `Result.plot` can draw."""


@dataclass(frozen=True, slots=True, eq=False)
class Previews:
    """Pictures of a pair on the reference grid for reports: (h, w) or (h, w, 3) uint8, decimated by `step`.

    Attributes:
        reference, before, after: the reference, the moving image as its georeference places it, and aligned.
        step: reference pixels per preview pixel (float, >= 1).
        corner: (x, y) reference pixel where the pictures begin; they show what both images can show.
        closeups: of the places with the largest expected error, worst first.
    """

    reference: NDArray[np.uint8]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    step: float
    corner: tuple[float, float] = (0.0, 0.0)
    closeups: tuple[Closeup, ...] = ()

    def __repr__(self) -> str:
        rows, columns = self.reference.shape[:2]
        size = f"{columns} x {rows} px of {self.step:.3g} reference px"
        return brief("Previews", size, count(len(self.closeups), "close-up"))

    @property
    def area(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) of the reference that the pictures show, pixels."""
        rows, columns = self.reference.shape[:2]
        return (*self.corner, columns * self.step, rows * self.step)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """The result of `register`.

    Attributes:
        transform: reference pixels -> pixels of the moving image as given (through both georeferences).
        correction: reference pixels -> pixels on the reference grid where the georeference shows the same ground;
            equals `transform` without a georeference. `displacement.array` samples `correction(xy) - xy`.
        affine: the global affine part of `correction` (a Transform with `.matrix`).
        displacement, tie_points, quality, verdict: see their classes. The displacement is computed when it is first
            used. For a reference above 4096 px, or one that was matched in tiles, it has one node per 16 x 16 pixels.
        moving, reference: the images; a `Raster` for an image in memory, a `Header` for a file.
        settings: every option that shaped the result, JSON-ready.
        notes: decisions taken for the user ("SAR scale: dB, because …"), in order.
        timings: seconds per stage.
        previews: pictures for the report, drawn when they are first asked for; until then the result holds the pixels
            that were matched, if they are few.
        tiles: result of each tile; () for a pair that was matched whole.
        folder: where `register_scene` writes the outputs; None otherwise.
    """

    transform: Transform
    correction: Transform
    affine: Transform
    displacement: Deferred[Displacement] = Deferred()  # noqa: RUF009 - a descriptor
    tie_points: TiePoints
    quality: Quality
    verdict: Verdict
    moving: Raster | Header
    reference: Raster | Header
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    timings: Mapping[str, float]
    previews: Deferred[Previews] = Deferred()  # noqa: RUF009 - a descriptor
    tiles: tuple[Any, ...] = field(default=(), repr=False)
    folder: Path | None = None
    saver: Callable[..., Path] | None = field(default=None, repr=False)
    converter: Callable[..., Any] | None = field(default=None, repr=False)
    shower: Callable[..., Any] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Compute displacement and pictures before pickling, so that the pixels behind them stay here."""
        _ = self.displacement, self.previews
        return self.__dict__

    def __repr__(self) -> str:
        ties, error_text = self.tie_points, error(self.verdict.predicted_rmse_px, self.verdict.predicted_rmse_m)
        return brief(
            f"Result {self.verdict.decision}:",
            f"{name_of(self.moving.name)} on {name_of(self.reference.name)}",
            error_text and f"expected error {error_text}",
            f"{int(ties.inlier.sum())} of {count(len(ties), 'tie point')} agree",
        )

    def _repr_html_(self) -> str | None:
        """HTML for notebooks: the verdict, key figures, and pictures before and after."""
        return None if self.shower is None else str(self.shower(self, "html"))

    @property
    def estimate(self) -> Estimate:
        """The estimate that `warp` applies."""
        moving = self.moving
        reading = Reading.of_moving(self.settings)
        return Estimate(self.correction, self.reference.grid, moving.grid, reading, moving.sha256, self.verdict)

    @property
    def predicted_rmse_px(self) -> float:
        """Expected error of the alignment, reference pixels (calibrated, see benchmarks/calibration); NaN on no-go."""
        return self.quality.predicted_rmse_px

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        force: bool = False,
        stac: bool = False,
        reports: Reports = "all",
        progress: Progress | None = None,
    ) -> Path:
        """Write all outputs into `folder`, whole or not at all.

        Args:
            folder: created if missing; must be empty unless `overwrite`.
            overwrite: replace somareg's own outputs in an existing folder (other files are left alone).
            force: write `aligned.tif` even when the verdict is no-go.
            stac: describe the outputs in a STAC Item, `item.json` (extra `stac`).
            reports: "problems" leaves `report.html` out where the verdict is *go*, "none" always.
            progress: called with a stage's name and the share of work done.

        Returns:
            The folder.

        Raises:
            ConfigError: `reports` is none of the three.
            OutputError: the folder exists and is not empty, is read-only, or the disk is full.
            UnsupportedError: `stac` and pystac is not installed; nothing is written.
        """
        if self.saver is None:
            raise RuntimeError("this Result was built without a saver; use somareg.register")
        extra = {} if progress is None else {"progress": progress}
        return self.saver(self, Path(folder), overwrite=overwrite, force=force, stac=stac, reports=reports, **extra)

    def to_xarray(self, what: Literal["aligned", "displacement"] = "aligned", *, force: bool = False) -> Any:
        """An output as `xarray.DataArray` on the reference grid, with CRS and nodata value for rioxarray.

        Args:
            what: "aligned", the moving image sampled once through the transform, (band, y, x) in its own dtype; or
                "displacement", float32 bands dx, dy (pixels), certainty and sigma (pixels, NaN where nothing was seen).
            force: give the aligned image even when the verdict is no-go.

        Raises:
            UnsupportedError: xarray or rioxarray is not installed (extra `xarray`).
            EstimationError: the verdict is no-go, and not `force`.
        """
        if self.converter is None:
            raise RuntimeError("this Result was built without a converter; use somareg.register")
        return self.converter(self, what, force=force)

    def plot(self, *panels: Panel) -> Figure:
        """A figure of the pair, which a notebook shows and `savefig` writes; it touches no state of pyplot.

        Args:
            *panels: from left to right, "before", "after" and "error" unless said otherwise. "reference" is that image,
                "before" and "after" a checkerboard of the reference and the moving image without and with the estimate,
                "arrows" the displacement and "error" the expected error of each place.

        Raises:
            ConfigError: an unknown panel.
            UnsupportedError: matplotlib is not installed (extra `plot`).
        """
        if self.shower is None:
            raise RuntimeError("this Result was built without a shower; use somareg.register")
        figure: Figure = self.shower(self, "figure", panels)
        return figure


@dataclass(frozen=True, eq=False)
class Assessment:
    """The result of `assess`: how well a pair is aligned as it is.

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

    def __repr__(self) -> str:
        apart = error(self.misalignment_rmse_px, self.misalignment_rmse_m)
        pair = f"{name_of(self.result.moving.name)} on {name_of(self.result.reference.name)}"
        return brief(f"Assessment {self.verdict.decision}:", pair, apart and f"{apart} RMS apart")
