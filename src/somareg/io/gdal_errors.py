"""Errors of rasterio and of the GDAL below it, as a caller meets them."""

from __future__ import annotations

from rasterio.crs import (
    CPLE_BaseError,  # a few calls let GDAL's own error through; no public module documents its class
)
from rasterio.errors import CRSError, RasterioError

RASTERIO_ERRORS = (RasterioError, CRSError, CPLE_BaseError)
"""What rasterio raises when GDAL or PROJ refuses."""

GDAL_ERRORS = (*RASTERIO_ERRORS, OSError, ValueError)
"""What reading a damaged file raises; a ValueError comes from texts that are not UTF-8."""


def gdal_cause(error: BaseException) -> str:
    """GDAL's own words, which rasterio keeps in the chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
