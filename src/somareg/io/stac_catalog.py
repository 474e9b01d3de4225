"""Items of a STAC catalogue, collection or item collection on this machine; only links to files are followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somareg.errors import InputError, ReadError, UnsupportedError
from somareg.io.paths import check_local_file
from somareg.io.stac import local_file
from somareg.io.stac_fields import as_list, as_mapping
from somareg.io.text import parse_json, read_bytes

MAX_CATALOG_MIB = 256
MAX_FILES = 200_000
"""Limit of catalogues and Items below one catalogue."""


@dataclass(frozen=True, eq=False)
class CatalogItem:
    """An Item below a catalogue.

    Attributes:
        content: its JSON.
        file: the Item's file, or the item collection that contains it; relative hrefs start at its folder.
        is_alone: whether the file is the Item's own.
    """

    content: Mapping[str, Any]
    file: Path
    is_alone: bool


def read_items(path: str | Path) -> Iterator[CatalogItem]:
    """Every Item below a STAC file, in the order of its links, each file once.

    Args:
        path: of an Item, a Collection, a Catalog, or a FeatureCollection of Items.

    Raises:
        ReadError: a file is missing, too large or not JSON.
        InputError: a file is none of these, or links to too many.
        UnsupportedError: a link to another machine; nothing is fetched.
    """
    visited: set[Path] = set()
    waiting = [check_local_file(path, "STAC")]
    while waiting:
        file = waiting.pop()
        if (whole := file.resolve()) in visited:
            continue
        visited.add(whole)
        if len(visited) > MAX_FILES:
            raise InputError(f"{path} leads to more than {MAX_FILES} files; audit a part of the catalogue")
        content = _read(file)
        kind = content.get("type")
        if kind == "Feature":
            yield CatalogItem(content, file, is_alone=True)
        elif kind == "FeatureCollection":
            yield from (
                CatalogItem(as_mapping(item), file, is_alone=False) for item in as_list(content.get("features"))
            )
        elif kind in ("Catalog", "Collection"):
            waiting += reversed(list(_links(content, file)))
        else:
            raise InputError(f"{file} is no STAC Item, Collection, Catalog or FeatureCollection; give one of them")


def _links(content: Mapping[str, Any], file: Path) -> Iterator[Path]:
    for link in map(as_mapping, as_list(content.get("links"))):
        if link.get("rel") not in ("child", "item", "items"):
            continue
        href = str(link.get("href") or "")
        there = local_file(href, file.parent)
        if there is None:
            raise UnsupportedError(
                f"{file} links to {href[:200]}, and nothing is fetched from a network; download the catalogue"
            )
        yield check_local_file(there, "STAC")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(read_bytes(file, "STAC file", MAX_CATALOG_MIB))
    except OSError as error:
        raise ReadError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ReadError(f"{file} is not JSON ({error}); give a STAC file") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is no STAC Item, Collection, Catalog or FeatureCollection; give one of them")
    return content
