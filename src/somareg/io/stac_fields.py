"""Fields of a STAC Item, of any type until checked, and the modality that they imply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from somareg.types import Modality

Fields = Mapping[str, Any]

_HEIGHTS = {"dem", "dsm", "dtm", "elevation"}
_COMMON_NAMES: dict[Modality, set[str]] = {
    "nir": {"nir", "nir08", "nir09"},
    "infrared": {"lwir", "lwir11", "lwir12"},
}
_FEW_BANDS = 4  # an asset with more of them is called multispectral
_OPTICAL_INSTRUMENTS = {
    "msi",
    "oli",
    "oli-2",
    "etm",
    "etm+",
    "tm",
    "mss",
    "olci",
    "modis",
    "viirs",
    "aster",
    "hyperion",
}


def modality_of(key: str, asset: Fields, item: Fields) -> tuple[Modality | None, str]:
    """The modality of an asset and the fields that tell it: its own, else the Item's.

    Args:
        key: of the asset.
        asset: its fields.
        item: that it belongs to.

    Returns:
        None and "" when the fields are silent or contradict each other.
    """
    properties = as_mapping(item.get("properties"))
    for guess in (_by_name(key, asset), _by_bands(asset), _by_extension(asset, properties)):
        if guess is not None:
            return guess
    instruments = as_texts(asset.get("instruments")) or as_texts(properties.get("instruments"))
    sar = any("sar" in _words(name) for name in instruments)
    optical = any(name.casefold() in _OPTICAL_INSTRUMENTS for name in instruments)
    if sar != optical:
        return "sar" if sar else "optical", f"its instrument is {', '.join(instruments)}"
    collection = item.get("collection")
    if not instruments and isinstance(collection, str) and _HEIGHTS & set(_words(collection)):
        return "dem", f"its collection is {collection}"
    return None, ""


def _by_name(key: str, asset: Fields) -> tuple[Modality, str] | None:
    bands = [name for band in bands_of(asset) for name in as_texts([band.get("name")])]
    names = [key, *as_texts(asset.get("roles")), *(bands if len(bands) == 1 else [])]
    height = next((name for name in names if name.casefold() in _HEIGHTS), None)
    return None if height is None else ("dem", f"it is named {height}")


def _by_bands(asset: Fields) -> tuple[Modality, str] | None:
    bands = bands_of(asset)
    names = as_texts([band.get(field) for band in (*bands, asset) for field in ("common_name", "eo:common_name")])
    for modality, common in _COMMON_NAMES.items():
        if len(names) == max(1, len(bands)) and {name.casefold() for name in names} <= common:
            return modality, f"its band is {', '.join(names)}"
    extension = _by_extension(asset, {})
    if len(bands) > _FEW_BANDS and extension is not None and extension[0] == "optical":
        return "multispectral", f"it has {len(bands)} bands"
    return None


def _by_extension(asset: Fields, properties: Fields) -> tuple[Modality, str] | None:
    bands = {key for band in as_list(asset.get("bands")) if isinstance(band, dict) for key in band}
    for fields in ({*asset, *bands}, set(properties)):
        sar, optical = (any(key.startswith(prefix) for key in fields) for prefix in ("sar:", "eo:"))
        if sar != optical:
            return ("sar", "it has sar: fields") if sar else ("optical", "it has eo: fields")
    return None


def bands_of(asset: Fields) -> list[Fields]:
    """`bands` of STAC 1.1, or `eo:bands`."""
    return [band for band in as_list(asset.get("bands")) or as_list(asset.get("eo:bands")) if isinstance(band, dict)]


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", name.casefold())


def as_mapping(value: Any) -> Fields:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_texts(value: Any) -> list[str]:
    """The texts in a list; none of anything else."""
    return [text for text in as_list(value) if isinstance(text, str)]
