"""A pair's residual misregistration as the affine of a tile.

Two forms: the constant `(dx, dy)` of a row of `pairs.csv`, and a smooth correction per scene, a row of
`<set>/corrections.csv`.
The two signs differ: `aligned_sar(x, y) = sar(x - dx, y - dy)` for the row, `sar(x + dx(u, v), y + dy(u, v))` for the
correction.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from somareg.errors import InputError, ReadError

_TERMS = ("1", "x", "y", "xx", "xy", "yy")
_COLUMNS = ("name", *(f"{axis}_{term}" for axis in ("dx", "dy") for term in _TERMS))


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """A quadratic displacement of a scene, moving (SAR) minus reference (optical) position in pixels.

    With `u = (x - (width - 1) / 2) / (width / 2)` and `v` likewise: `dx = c . (1, u, v, uu, uv, vv)`.

    Attributes:
        coefficients: (2, 6) float64, rows dx and dy.
        residual_px: median disagreement that is left after it, pixels; None where not measured.
    """

    coefficients: NDArray[np.float64]
    residual_px: float | None

    def tile_label(self, shape: tuple[int, int], origin: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float64]:
        """The affine nearest to the correction over a tile, in the least-squares sense over its pixels.

        On a full grid the monomials of degree two about the centre have no slope, so the best affine is the tangent at
        the centre plus the mean of the squares, (n^2 - 1) / 12 for n pixels in a row.

        Args:
            shape: (height, width) of the scene.
            origin: (x, y) of the tile's first pixel in the scene.
            size: (height, width) of the tile.

        Returns:
            (2, 3): optical pixel centres -> SAR pixel centres, both counted from the tile's first pixel.
        """
        scene, tile = np.array(shape[::-1], float), np.array(size[::-1], float)
        middle = (tile - 1) / 2
        u, v = (middle + np.asarray(origin) - (scene - 1) / 2) / (scene / 2)
        spread_u, spread_v = (tile**2 - 1) / 12 / (scene / 2) ** 2
        mean = self.coefficients @ np.array([1, u, v, u * u + spread_u, u * v, v * v + spread_v])
        slope_u = self.coefficients @ np.array([0, 1, 0, 2 * u, v, 0])
        slope_v = self.coefficients @ np.array([0, 0, 1, 0, u, 2 * v])
        linear = np.column_stack([slope_u, slope_v]) / (scene / 2)
        return np.column_stack([np.eye(2) + linear, mean - linear @ middle])


def shift_label(offset: tuple[float, float]) -> NDArray[np.float64]:
    """(2, 3) optical -> SAR pixel centres for a constant offset (dx, dy): the same for every tile of the pair."""
    return np.array([[1.0, 0.0, 0.0 - offset[0]], [0.0, 1.0, 0.0 - offset[1]]])  # 0 - 0 has no sign


def read_corrections(path: str | Path) -> Mapping[str, Correction]:
    """The rows of a `corrections.csv` by file name without its extension.

    Columns: name, dx_1, dx_x, dx_y, dx_xx, dx_xy, dx_yy, the same for dy, and optionally net_after_px.

    Raises:
        ReadError: the file cannot be read, or a column is missing.
        InputError: a row holds a bad number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{path} cannot be read ({error})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ReadError(f"{path}: column '{missing[0]}' is missing; it needs {', '.join(_COLUMNS)}")
    return {Path(row["name"]).stem: _correction(row, f"{path}:{reader.line_num}") for row in reader}


def _correction(row: dict[str, str], where: str) -> Correction:
    try:
        coefficients = np.array([float(row[name]) for name in _COLUMNS[1:]]).reshape(2, len(_TERMS))
        residual = row.get("net_after_px")
        value = float(residual) if residual else None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: bad number ({error}); all columns but name are numbers") from error
    if not np.isfinite(coefficients).all():
        raise InputError(f"{where}: a coefficient is not finite")
    return Correction(coefficients, value)
