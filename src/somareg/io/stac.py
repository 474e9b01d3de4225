"""STAC Items as inputs: the asset, its file, and what the Item says about it.

Items are read as JSON, so pystac (an extra, for writing Items) is not needed; its objects are taken as well. It would
replace about ten lines: it does not answer which asset is meant, where it lies and what its fields tell, and an Item
with a value of the wrong type raises one of six kinds of exception there. Nothing is fetched from a network, and the
georeference is the file's: `proj:` fields are only compared with it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import numpy as np

from somareg.config import did_you_mean
from somareg.errors import GeoreferenceError, InputError, ReadError, UnsupportedError
from somareg.io.crs import same_crs
from somareg.io.paths import check_local_file
from somareg.io.stac_fields import Fields, as_list, as_mapping, as_texts, bands_of, modality_of
from somareg.io.text import parse_json
from somareg.types import Grid, Modality, StacOrigin

MAX_ITEM_BYTES = 16 * 1024 * 1024

_REFERENCE = re.compile(r"(?P<item>.+\.(?:geo)?json)(?:#(?P<asset>.*))?", re.IGNORECASE | re.DOTALL)
_REMOTE = re.compile(r"/vsi|[a-z][a-z0-9+.\-]+:", re.IGNORECASE)
_RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".img", ".dat", ".bsq", ".bil", ".bip"}
_NOT_PIXELS = {"thumbnail", "overview", "metadata"}
_CRS_FIELDS = {"proj:code", "proj:epsg", "proj:wkt2", "proj:projjson"}
_DATES = ("datetime", "start_datetime", "end_datetime")


@dataclass(frozen=True, eq=False)
class StacAsset:
    """A raster file that a STAC Item names.

    Attributes:
        path: the file.
        origin: which Item and asset it is, for the result.
        modality: from its fields, None when they do not tell.
        reason: the fields that tell it.
        proj: `proj:` fields of the asset, or of the Item where the asset has none.
    """

    path: Path
    origin: StacOrigin
    modality: Modality | None
    reason: str
    proj: Fields

    def disagreements(self, grid: Grid) -> list[str]:
        """Contradictions between the Item and the file about place and size."""
        sentences = [_about_crs(self.proj, grid), _about_shape(self.proj, grid), _about_transform(self.proj, grid)]
        name = f"asset '{self.origin.asset}' of STAC Item {self.origin.item}"
        return [f"{name}: {text}; the file is used" for text in sentences if text]


def find_asset(image: Any, role: str) -> StacAsset | None:
    """Find the asset that a STAC reference names; None when `image` is no STAC reference.

    Args:
        image: "item.json" or "item.json#ASSET" (text or path), a pystac.Item, or a pystac.Asset of an Item. ASSET is
            a key; else a role, a band's name or common name, or a polarization that one single-band asset has. Without
            ASSET the Item must have one raster asset, or one with the role "data".
        role: "moving" or "reference", named in messages.

    Raises:
        ReadError: the Item's file is missing or is not JSON.
        InputError: not a STAC Item, no such asset, or several candidates; the message lists the keys.
        UnsupportedError: the Item or the asset is not on this machine.
    """
    if isinstance(image, str | Path):
        match = _REFERENCE.fullmatch(str(image))
        return None if match is None else _from_file(match["item"], match["asset"], role)
    pystac = sys.modules.get("pystac")  # a caller with one of its objects has imported it
    if pystac is not None and isinstance(image, pystac.Item):
        return _from_object(image, None)
    if pystac is not None and isinstance(image, pystac.Asset):
        owner = image.owner
        keys = [key for key, asset in getattr(owner, "assets", {}).items() if asset is image]
        if not isinstance(owner, pystac.Item) or not keys:
            raise InputError(f"the {role} pystac.Asset belongs to no Item; take it from one: item.assets[key]")
        return _from_object(owner, keys[0])
    return None


def _from_file(path: str, selector: str | None, role: str) -> StacAsset:
    file = check_local_file(path, role)
    if file.stat().st_size > MAX_ITEM_BYTES:
        raise InputError(f"{file} is larger than any STAC Item; give an Item's JSON file")
    try:
        item = parse_json(file.read_bytes())
    except OSError as error:
        raise ReadError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ReadError(f"{file} is not JSON ({error}); give a raster, or an Item's JSON file") from error
    return asset_of(item, selector or None, file.parent, str(file), str(file))


def _from_object(item: Any, key: str | None) -> StacAsset:
    href = item.get_self_href() or ""
    file = _local_path(href) if href else None
    content = item.to_dict(include_self_link=True, transform_hrefs=False)
    return asset_of(content, key, file and file.parent, href, f"pystac.Item {item.id}")


def asset_of(item: Any, selector: str | None, folder: Path | None, href: str, name: str) -> StacAsset:
    """Find the selected asset in the JSON of an Item.

    Args:
        item: its JSON.
        selector: see `find_asset`.
        folder: where relative hrefs start, None when unknown.
        href: the Item's address, for an Item without a self link.
        name: of the Item, for messages.

    Raises:
        InputError, UnsupportedError: see `find_asset`.
    """
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("stac_version"), str):
        kind = item.get("type") if isinstance(item, dict) else None
        says = f" but a STAC {kind}" if kind in ("Collection", "Catalog", "FeatureCollection") else ""
        raise InputError(f"{name} is not a STAC Item{says}; give an Item's JSON file")
    assets = {str(key): value for key, value in as_mapping(item.get("assets")).items() if isinstance(value, dict)}
    key = choose_asset(assets, selector, name)
    asset, properties = assets[key], as_mapping(item.get("properties"))
    dates = {date: properties[date] for date in _DATES if isinstance(properties.get(date), str)}
    origin = StacOrigin(str(item.get("id", "")), key, _address(item) or href, dates)
    modality, reason = modality_of(key, asset, item)
    path = _locate(asset.get("href"), folder, f"asset '{key}' of {name}")
    return StacAsset(path, origin, modality, reason, _proj(asset, properties))


def choose_asset(assets: Mapping[str, Fields], selector: str | None, name: str) -> str:
    """The key of the selected asset; see `find_asset`.

    Raises:
        InputError: none, or several; the message lists their keys.
    """
    if selector in assets:
        return str(selector)
    rasters = {key: asset for key, asset in assets.items() if _is_raster(asset)}
    if selector is None:
        data = [key for key, asset in rasters.items() if "data" in as_texts(asset.get("roles"))]
        return _only(data or list(rasters), f"{name} names no asset", assets)
    word = selector.casefold()
    rules: tuple[Callable[[str, Fields], bool], ...] = (
        lambda key, _: key.casefold() == word,
        lambda _, asset: word in map(str.casefold, as_texts(asset.get("roles"))),
        lambda _, asset: word in map(str.casefold, _band_names(asset)),
        lambda _, asset: [p.casefold() for p in as_texts(asset.get("sar:polarizations"))] == [word],
    )
    for rule in rules:
        keys = [key for key, asset in rasters.items() if rule(key, asset)]
        if keys:
            return _only(keys, f"'{selector}' in {name} is not one asset", assets)
    hint = did_you_mean(selector, assets) if assets else " It has none."
    raise InputError(f"{name} has no asset '{selector}'.{hint}")


def _only(keys: list[str], problem: str, assets: Mapping[str, Fields]) -> str:
    if len(keys) == 1:
        return keys[0]
    if keys:
        raise InputError(
            f"{problem}, and several could be meant: {', '.join(keys)}; add one, as in item.json#{keys[0]}"
        )
    raise InputError(f"{problem}, and none of its assets is a raster ({', '.join(assets) or 'it has none'})")


def _is_raster(asset: Fields) -> bool:
    if _NOT_PIXELS & set(as_texts(asset.get("roles"))):
        return False
    kind = asset.get("type")
    if isinstance(kind, str):
        return kind.casefold().startswith("image/") and "svg" not in kind.casefold()
    return Path(str(asset.get("href", ""))).suffix.casefold() in _RASTER_SUFFIXES


def _band_names(asset: Fields) -> list[str]:
    """Names of the band of a single-band asset: `bands` of STAC 1.1, or `eo:bands`."""
    bands = bands_of(asset)
    if len(bands) != 1:
        return []
    return as_texts([bands[0].get(field) for field in ("name", "common_name", "eo:common_name")])


def _proj(asset: Fields, properties: Fields) -> dict[str, Any]:
    """`proj:` fields of the asset, else of the Item. The CRS comes from one of the two only."""
    own, shared = ({k: v for k, v in fields.items() if k.startswith("proj:")} for fields in (asset, properties))
    if own.keys() & _CRS_FIELDS:
        shared = {k: v for k, v in shared.items() if k not in _CRS_FIELDS}
    return {**shared, **own}


def _locate(href: Any, folder: Path | None, name: str) -> Path:
    """The file behind an href: absolute, `file://`, or relative to the Item."""
    if not isinstance(href, str) or not href:
        raise InputError(f"{name} has no href; give the raster itself")
    path = _local_path(href)
    if path is not None and not path.is_absolute() and folder is None:
        raise InputError(f"{name} has the relative href {href} but the Item has no local self link to start from")
    file = local_file(href, folder or Path())
    if file is None:
        raise UnsupportedError(
            f"{name} lies at {href}, and nothing is fetched from a network; download it and give its path"
        )
    return file


def local_file(href: str, folder: Path) -> Path | None:
    """The file of an href on this machine, relative ones from `folder`; None for a remote one."""
    path = _local_path(href)
    if path is None:
        return None
    path = folder / path  # an absolute one stays
    decoded = Path(unquote(str(path)))
    return decoded if not path.exists() and decoded.exists() else path


def _local_path(href: str) -> Path | None:
    """The path of an href on this machine, None for a remote one."""
    if href[:7].casefold() == "file://":
        url = urlsplit(href)
        return Path(url2pathname(url.path)) if url.netloc in ("", "localhost") else None
    return None if _REMOTE.match(href) else Path(href)


def _address(item: Fields) -> str:
    """The URL in the Item's self link; "" without one."""
    for link in as_list(item.get("links")):
        if isinstance(link, dict) and link.get("rel") == "self":
            href = link.get("href")
            return href if isinstance(href, str) and href.startswith(("https://", "http://")) else ""
    return ""


def _about_crs(proj: Fields, grid: Grid) -> str:
    epsg = proj.get("proj:epsg")
    crs = proj.get("proj:code") or (f"EPSG:{epsg}" if epsg else None) or proj.get("proj:wkt2")
    if not isinstance(crs, str):
        return ""
    if grid.crs is None:
        return f"it says {_short(crs)}, the file declares no CRS (name one with --assume-crs)"
    try:
        same = same_crs(crs, grid.crs)
    except GeoreferenceError:
        return f"its CRS {_short(crs)} cannot be understood"
    return "" if same else f"it says {_short(crs)}, the file another CRS"


def _about_shape(proj: Fields, grid: Grid) -> str:
    shape = _numbers(proj.get("proj:shape"), (2,))
    if shape is None or tuple(shape) == grid.shape:
        return ""
    return f"proj:shape says {shape[1]:g} x {shape[0]:g} px, the file has {grid.width} x {grid.height} px"


def _about_transform(proj: Fields, grid: Grid) -> str:
    coefficients = _numbers(proj.get("proj:transform"), (6, 9))
    if coefficients is None or grid.crs is None:
        return ""
    corners = np.array([[0.0, 0.0], [grid.width, 0.0], [0.0, grid.height]]) - 0.5
    a, b, c, d, e, f = coefficients[:6]
    off = Grid(grid.width, grid.height, (a, b, c, d, e, f)).to_map(corners) - grid.to_map(corners)
    pixels = float(np.abs(off).max() / min(grid.pixel_size))
    return "" if pixels < 0.01 else f"proj:transform puts it {pixels:.3g} px away from where the file does"


def _numbers(value: Any, lengths: tuple[int, ...]) -> list[float] | None:
    values = as_list(value)
    if len(values) not in lengths or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return None
    return [float(v) for v in values] if np.isfinite(values).all() else None


def _short(crs: str) -> str:
    return crs if len(crs) <= 30 else f"{crs[:27]}..."
