"""The displacement of every pixel and its expected error."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from somareg.config import SCENE_PX
from somareg.geometry.lattice import PointMap, on_lattice, pixel_centres
from somareg.io.displacement import coarser_grid
from somareg.quality import LocalModel, Places
from somareg.quality.error_map import SEEN, certainty_of, expected_error
from somareg.quality.places import middles
from somareg.register.findings import Findings
from somareg.types import BoolArray, Displacement, FloatArray, Grid, Transform

NODE_PX = 16  # reference pixels between nodes where a displacement with a value for each pixel would be too large
_POINTS = 2_000_000  # points that are evaluated together
_SAMPLES = 96  # along each side of the common ground, for figures


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """The area that both images show, and the expected error in it.

    Attributes:
        findings: in pixels of the whole images.
        model: variation of the error over the image.
        to_moving: reference pixels -> pixels of the moving image.
    """

    findings: Findings
    model: LocalModel
    to_moving: PointMap

    def unknown(self) -> ErrorMap:
        """The same map with every error unknown, for an estimate that is not an alignment."""
        return replace(self, findings=replace(self.findings, coverage=None, spread=None))

    def shown(self, points: FloatArray) -> BoolArray:
        """Whether both images have valid pixels at reference pixels (N, 2)."""
        shown = self.findings.reference.seen(points)
        shown[shown] = self.findings.moving.seen(self.to_moving(points[shown]))
        return shown

    def expected(self, points: FloatArray, shown: BoolArray) -> FloatArray:
        """Expected RMS error (N,) at points (N, 2), reference pixels; NaN where it is unknown."""
        found, error = self.findings, np.full(len(points), np.nan)
        if found.coverage is None or not np.isfinite(found.support.predicted_px):
            return error
        places, unit = points[shown], float(found.working_px)
        coverage = np.clip(found.coverage(places), 0.0, 1.0)
        spread = found.spread(places) / unit if found.spread is not None else np.zeros(len(places))
        block = found.reference.block
        half = np.array([block.width, block.height]) / 2
        away = np.hypot(*(places - (block[:2] + half - 0.5)).T) / np.hypot(*half)
        # Errors were calibrated in matched (working) pixels.
        expected = unit * expected_error(found.support.predicted_px / unit, coverage, spread, self.model, away)
        error[shown] = np.where(coverage >= SEEN, expected, np.nan)
        return error

    def at(self, points: FloatArray) -> FloatArray:
        """Expected RMS error (N,) at any reference pixels (N, 2); NaN where it is unknown."""
        return self.expected(points, self.shown(points))

    def places(self) -> Places:
        """The errors at a lattice of points over the common ground."""
        block = self.findings.reference.block
        area = float(block.x), float(block.y), float(block.width), float(block.height)
        points = middles(area, _SAMPLES)
        shown = self.shown(points)
        return Places(points, shown, self.expected(points, shown), area)


def displacement_of(findings: Findings, correction: Transform, errors: ErrorMap, grid: Grid) -> Displacement:
    """Displacement of every pixel or node of a grid, with its certainty and expected error.

    Args:
        findings: in pixels of the whole images.
        correction: of the estimate.
        errors: the error map.
        grid: of the reference.
    """
    step = node_px(findings, grid)
    nodes = coarser_grid(grid, step)
    height, width = nodes.shape
    array, sigma = np.empty((2, height, width), np.float32), np.empty((height, width), np.float32)
    rows = max(1, _POINTS // width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        points = pixel_centres(0, top, width, count) * step + (step - 1) / 2
        array[:, top : top + count] = (correction(points) - points).T.reshape(2, count, width)
        sigma[top : top + count] = errors.at(points).reshape(count, width)
    certainty = np.empty_like(sigma)
    for top in range(0, height, rows):
        certainty[top : top + rows] = _rounded(certainty_of(sigma[top : top + rows]))
        sigma[top : top + rows] = _rounded(sigma[top : top + rows])
    return Displacement(array, certainty, sigma, nodes)


def _rounded(values: FloatArray) -> FloatArray:
    """Round to 1/1024: errors are not known more precisely, and the files are a tenth as large."""
    rounded: FloatArray = np.rint(values * 1024) / 1024
    return rounded


def error_map_of(findings: Findings, transform: Transform, model: LocalModel, grid: Grid) -> ErrorMap:
    """The error map on a grid of the reference.

    Args:
        findings: in pixels of the whole images.
        transform: reference pixels -> pixels of the moving image.
        model: variation of the error over the image.
        grid: of the reference.
    """
    # A lattice saves time only where the grid has many more points than the lattice has nodes.
    is_dense = node_px(findings, grid) < NODE_PX
    whole = (0.0, 0.0, float(grid.width), float(grid.height))
    return ErrorMap(findings, model, on_lattice(transform, whole) if is_dense else transform)


def node_px(findings: Findings, grid: Grid) -> int:
    """Reference pixels between nodes of the output displacement."""
    return max(findings.step, NODE_PX if max(grid.shape) > SCENE_PX else 1)
