"""GDAL's own vector reader, in the library that rasterio's wheel brings: an independent judge of written files."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import rasterio

_OPEN_VECTOR = 0x04


def _library() -> ctypes.CDLL | None:
    folder = Path(rasterio.__file__).parent.with_name("rasterio.libs")
    for name in sorted(folder.glob("libgdal*")):
        return ctypes.CDLL(str(name))
    return None


GDAL = _library()
if GDAL is not None:
    for name, result, arguments in (
        ("GDALOpenEx", ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_uint, *[ctypes.c_void_p] * 3]),
        ("GDALClose", None, [ctypes.c_void_p]),
        ("GDALDatasetGetLayer", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
        ("GDALDatasetGetLayerCount", ctypes.c_int, [ctypes.c_void_p]),
        ("OGR_L_GetName", ctypes.c_char_p, [ctypes.c_void_p]),
        ("OGR_L_GetNextFeature", ctypes.c_void_p, [ctypes.c_void_p]),
        ("OGR_L_GetSpatialRef", ctypes.c_void_p, [ctypes.c_void_p]),
        ("OSRGetAuthorityCode", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_char_p]),
        ("OGR_F_GetFieldCount", ctypes.c_int, [ctypes.c_void_p]),
        ("OGR_F_GetFieldDefnRef", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
        ("OGR_Fld_GetNameRef", ctypes.c_char_p, [ctypes.c_void_p]),
        ("OGR_F_IsFieldSetAndNotNull", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
        ("OGR_F_GetFieldAsDouble", ctypes.c_double, [ctypes.c_void_p, ctypes.c_int]),
        ("OGR_F_GetGeometryRef", ctypes.c_void_p, [ctypes.c_void_p]),
        ("OGR_F_Destroy", None, [ctypes.c_void_p]),
        ("OGR_G_GetPointCount", ctypes.c_int, [ctypes.c_void_p]),
        ("OGR_G_GetX", ctypes.c_double, [ctypes.c_void_p, ctypes.c_int]),
        ("OGR_G_GetY", ctypes.c_double, [ctypes.c_void_p, ctypes.c_int]),
    ):
        function = getattr(GDAL, name)
        function.restype, function.argtypes = result, arguments


def read_layer(path: Path) -> tuple[str, str | None, list[dict[str, Any]]]:
    """Name, authority code of the CRS and features (fields, and `vertices`) of a file's only layer."""
    assert GDAL is not None
    with rasterio.Env():  # registers the drivers
        dataset = GDAL.GDALOpenEx(str(path).encode(), _OPEN_VECTOR, None, None, None)
        assert dataset, f"GDAL cannot open {path}"
        try:
            assert GDAL.GDALDatasetGetLayerCount(dataset) == 1
            layer = GDAL.GDALDatasetGetLayer(dataset, 0)
            crs = GDAL.OGR_L_GetSpatialRef(layer)
            code = GDAL.OSRGetAuthorityCode(crs, None) if crs else None
            features = []
            while feature := GDAL.OGR_L_GetNextFeature(layer):
                features.append(_feature(feature))
                GDAL.OGR_F_Destroy(feature)
            return GDAL.OGR_L_GetName(layer).decode(), code and code.decode(), features
        finally:
            GDAL.GDALClose(dataset)


def _feature(feature: int) -> dict[str, Any]:
    assert GDAL is not None
    values: dict[str, Any] = {}
    for i in range(GDAL.OGR_F_GetFieldCount(feature)):
        name = GDAL.OGR_Fld_GetNameRef(GDAL.OGR_F_GetFieldDefnRef(feature, i)).decode()
        known = GDAL.OGR_F_IsFieldSetAndNotNull(feature, i)
        values[name] = GDAL.OGR_F_GetFieldAsDouble(feature, i) if known else None
    shape = GDAL.OGR_F_GetGeometryRef(feature)
    count = GDAL.OGR_G_GetPointCount(shape) if shape else 0
    values["vertices"] = [(GDAL.OGR_G_GetX(shape, i), GDAL.OGR_G_GetY(shape, i)) for i in range(count)]
    return values
