"""Coloured maps over the images: expected error, certainty, local displacement, residuals of the tie points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.report.palette import colours, ramp
from somareg.report.words import nice
from somareg.types import BoolArray, FloatArray, Transform
from somareg.view.images import SceneImage
from somareg.view.points import Points
from somareg.view.pyramid import Area, Pyramid

MAX_CELLS = 48
"""Cells of the residual map along the longer side, at most."""
POINTS_PER_CELL = 4
SURVEY_PX = 128  # longer side of the look at a layer that its scale is taken from
STRIPES_PX = 12  # screen pixels between stripes
UNSEEN = (154, 160, 166)
EVERY = 4  # smooth layers are computed at every 4th pixel


class Layer(ABC):
    """A map of one figure.

    Attributes:
        title, caption: what it shows and how to read it.
        unit: of the values.
        palette: see `report.palette`, the same as in the report.
        is_first: whether it is shown when the page opens.
    """

    title: str
    caption: str
    unit: str = "px"
    palette: str = "viridis"
    is_first: bool = False

    @abstractmethod
    def values(self, area: Area) -> tuple[FloatArray, BoolArray]:
        """Figures (h, w) and where there are any."""

    @property
    @abstractmethod
    def top(self) -> float:
        """The value that gets the last colour; 0 gets the first."""

    def tile(self, area: Area) -> tuple[NDArray[np.uint8], BoolArray]:
        """Colours (h, w, 3) and where there are any."""
        values, mask = self.values(area)
        index = np.clip(np.nan_to_num(values) / self.top, 0, 1) * 255 + 0.5
        return colours(self.palette)[index.astype(np.uint8)], mask

    def legend(self) -> dict[str, Any]:
        """What the page says about it."""
        top = nice_top(self.top, self.unit)
        return {
            "title": self.title,
            "caption": self.caption,
            "low": "0",
            "high": top,
            "colours": ramp(self.palette, 6),
            "first": self.is_first,
        }


class FileLayer(Layer):
    """A band of `displacement.tif`.

    Args:
        path: the file.
        band: its number, from 1.
        step: reference pixels per pixel of the file.
        pyramid: of the map.
    """

    def __init__(self, path: Path, band: int, step: int, pyramid: Pyramid) -> None:
        self._image = SceneImage(path, "displacement", bands=(band,))
        offset = (1 / step - 1) / 2
        self._image.to_pixels = AffineTransform(np.array([[1 / step, 0, offset], [0, 1 / step, offset]]))
        self._pyramid = pyramid

    def values(self, area: Area) -> tuple[FloatArray, BoolArray]:
        data, mask = self._image.picture(area)
        return data[0], np.asarray(mask & inside(area, self._pyramid))

    def close(self) -> None:
        """Close its file."""
        self._image.close()


class CertaintyLayer(FileLayer):
    """Band 3 of `displacement.tif`."""

    title = "Certainty"
    caption = "Probability that the error is below 1 px; 0 where nothing was seen."
    unit = ""
    palette = "cividis"
    top = 1.0

    def __init__(self, path: Path, step: int, pyramid: Pyramid) -> None:
        super().__init__(path, 3, step, pyramid)

    def at(self, xy: FloatArray) -> FloatArray:
        """Certainty at reference pixels (N, 2), as seen from afar."""
        survey = self._survey
        index = (xy + 0.5) / (self._pyramid.width, self._pyramid.height) * survey.shape[::-1]
        column, row = np.clip(index.astype(int), 0, np.array(survey.shape[::-1]) - 1).T
        return np.asarray(survey[row, column])

    @cached_property
    def _survey(self) -> FloatArray:
        return np.asarray(self._image.picture(self._pyramid.overview(4 * SURVEY_PX))[0][0])


class ErrorLayer(FileLayer):
    """Band 4 of `displacement.tif`: the expected error; places that were not seen are striped grey."""

    title = "Expected error"
    caption = (
        "How far off each place is expected to be (RMS). Striped places were not seen: "
        "no match nearby tells anything of them."
    )
    palette = "plasma"
    is_first = True

    def __init__(self, path: Path, step: int, pyramid: Pyramid, metres: float | None) -> None:
        super().__init__(path, 4, step, pyramid)
        self._metres = metres

    def tile(self, area: Area) -> tuple[NDArray[np.uint8], BoolArray]:
        picture, mask = super().tile(area)
        x, y = np.floor(area.points[0, :, 0] / area.step), np.floor(area.points[:, 0, 1] / area.step)
        stripes = ((x[None, :] + y[:, None]) % STRIPES_PX < STRIPES_PX / 4) & ~mask & inside(area, self._pyramid)
        picture[stripes] = UNSEEN
        return picture, mask | stripes

    @cached_property
    def top(self) -> float:
        """As in the report's figure: the largest but for outliers."""
        values, mask = self.values(self._pyramid.overview(SURVEY_PX))
        return max(float(np.percentile(values[mask], 99.5)), 0.1) if mask.any() else 1.0

    def legend(self) -> dict[str, Any]:
        told = super().legend()
        if self._metres is not None:
            told["high"] += f" ({self.top * self._metres:.3g} m)"
        return told


class LocalLayer(Layer):
    """Length of the displacement beyond the global affine."""

    title = "Local displacement"
    caption = "What one affine for the whole image cannot explain: relief, sensor geometry, mosaicking."

    def __init__(self, correction: Transform, affine: AffineTransform, pyramid: Pyramid) -> None:
        self._correction, self._affine, self._pyramid = correction, affine, pyramid

    def values(self, area: Area) -> tuple[FloatArray, BoolArray]:
        # It bends over tens of pixels; computed at every 4th and interpolated it looks the same.
        coarse = Area(area.left, area.top, area.step * EVERY, -(-area.width // EVERY), -(-area.height // EVERY))
        xy = coarse.points.reshape(-1, 2)
        length = np.hypot(*(self._correction(xy) - self._affine(xy)).T).reshape(coarse.height, coarse.width)
        full = np.repeat(np.repeat(length, EVERY, axis=0), EVERY, axis=1)[: area.height, : area.width]
        return full, inside(area, self._pyramid)

    @cached_property
    def top(self) -> float:
        """As in the report's figure: the largest but for outliers."""
        values, mask = self.values(self._pyramid.overview(SURVEY_PX))
        return max(float(np.percentile(values[mask], 99.5)), 0.1)


class ResidualLayer(Layer):
    """Median residual of the kept tie points, cell by cell; empty where there are none."""

    title = "Residuals"
    caption = "Median distance of the kept tie points to the final transform, cell by cell; empty cells have no point."

    def __init__(self, points: Points, pyramid: Pyramid, *, is_first: bool = False) -> None:
        self._points, self._pyramid, self.is_first = points, pyramid, is_first

    def values(self, area: Area) -> tuple[FloatArray, BoolArray]:
        cells, side = self._cells
        x, y = area.points[0, :, 0] + 0.5, area.points[:, 0, 1] + 0.5
        columns = np.clip((x / side).astype(int), 0, cells.shape[1] - 1)
        rows = np.clip((y / side).astype(int), 0, cells.shape[0] - 1)
        found = cells[np.ix_(rows, columns)]
        return found, np.isfinite(found) & inside(area, self._pyramid)

    @property
    def top(self) -> float:
        """As in the report's figure of tie points."""
        return self._points.top_residual

    @cached_property
    def _cells(self) -> tuple[FloatArray, float]:
        """Median of each cell (rows, columns), NaN without a point, and the side of a cell, reference pixels."""
        width, height = self._pyramid.width, self._pyramid.height
        wanted = np.sqrt(POINTS_PER_CELL * width * height / max(len(self._points), 1))
        side = float(np.clip(wanted, max(width, height) / MAX_CELLS, max(width, height)))
        rows, columns = int(np.ceil(height / side - 1e-9)), int(np.ceil(width / side - 1e-9))
        cells = np.full((rows, columns), np.nan)
        ties = self._points.ties
        kept = ties.inlier & np.isfinite(ties.residual_px)
        column, row = ((ties.reference_xy[kept] + 0.5) / side).astype(int).T
        number = np.clip(row, 0, rows - 1) * columns + np.clip(column, 0, columns - 1)
        order = np.argsort(number, kind="stable")
        starts = np.flatnonzero(np.diff(number[order], prepend=-1))
        for cell, group in zip(
            number[order][starts], np.split(ties.residual_px[kept][order], starts[1:]), strict=False
        ):
            cells.flat[cell] = float(np.median(group))
        return cells, side


def inside(area: Area, pyramid: Pyramid) -> BoolArray:
    """(h, w) True where a pixel of the area lies in the image."""
    x, y = area.points[0, :, 0], area.points[:, 0, 1]
    return np.asarray((y < pyramid.height - 0.5)[:, None] & (x < pyramid.width - 0.5)[None, :])


def nice_top(value: float, unit: str) -> str:
    """The end of a scale in words."""
    return f"{value:.3g} {unit}".strip() if nice(value) else "0"
