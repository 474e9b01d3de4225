"""Products of SNAP (BEAM-DIMAP, `.dim`): their tie-point grids place images in radar geometry."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint

from somareg.errors import ReadError
from somareg.io.text import read_text

_MAX_MIB = 256  # the file also holds the product's metadata
_MOST_POINTS = 1600
_INFO = re.compile(r"<Tie_Point_Grid_Info>(.*?)</Tie_Point_Grid_Info>", re.DOTALL)


def tie_points_of(product: Path) -> list[GroundControlPoint]:
    """Longitude and latitude at the nodes of a product's tie-point grids; none for a product without them.

    Args:
        product: the `.dim` file, with its `.data` folder beside it.

    Raises:
        ReadError: a grid is missing or has another size than the product says.
    """
    grids = {}
    for info in _INFO.findall(read_text(product, "SNAP product", _MAX_MIB)):
        name = _field(info, "TIE_POINT_GRID_NAME")
        if name in ("latitude", "longitude"):
            grids[name] = info
    if len(grids) < 2:
        return []
    latitude, longitude = (_values(product, name, grids[name]) for name in ("latitude", "longitude"))
    if latitude.shape != longitude.shape:
        raise ReadError(f"{product}: its tie-point grids of latitude and longitude differ in size; export it anew")
    info = grids["latitude"]
    x, y = (
        _number(info, f"OFFSET_{axis}") + _number(info, f"STEP_{axis}") * np.arange(count)
        for axis, count in (("X", latitude.shape[1]), ("Y", latitude.shape[0]))
    )
    every = max(1, int(np.ceil(np.sqrt(latitude.size / _MOST_POINTS))))
    rows, columns = (_thinned(count, every) for count in latitude.shape)
    return [
        GroundControlPoint(row=float(y[i]), col=float(x[j]), x=float(longitude[i, j]), y=float(latitude[i, j]))
        for i in rows
        for j in columns
    ]


def _thinned(count: int, every: int) -> list[int]:
    """Every n-th index and the last."""
    return sorted({*range(0, count, every), count - 1})


def _values(product: Path, name: str, info: str) -> NDArray[np.float64]:
    """The grid's numbers (rows, columns): big-endian float32, as SNAP writes them."""
    shape = int(_number(info, "NROWS")), int(_number(info, "NCOLS"))
    file = product.with_suffix(".data") / "tie_point_grids" / f"{name}.img"
    try:
        values = np.fromfile(file, ">f4")
    except OSError as error:
        raise ReadError(f"{product}: its tie-point grid {file} cannot be read: {error.strerror or error}") from error
    if min(shape) < 2 or values.size != shape[0] * shape[1] or not np.isfinite(values).all():
        raise ReadError(f"{product}: its tie-point grid {file.name} is not what the product says; export it anew")
    return values.astype(np.float64).reshape(shape)


def _field(info: str, tag: str) -> str:
    match = re.search(rf"<{tag}>\s*([^<]*?)\s*</{tag}>", info)
    return match[1] if match else ""


def _number(info: str, tag: str) -> float:
    try:
        return float(_field(info, tag))
    except ValueError as error:
        raise ReadError(f"a tie-point grid of the SNAP product has no {tag}; export it anew") from error
