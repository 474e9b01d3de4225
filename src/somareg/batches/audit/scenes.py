"""The scenes of an archive and their facts, from a folder, a table, a STAC catalogue or a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from somareg.batches.audit.names import Facts, facts_of_path, parse_date
from somareg.batches.pairs import MAX_TABLE_MIB, SUFFIXES, image_in, images_in, options_in, read_rows
from somareg.config import RegisterConfig, did_you_mean
from somareg.errors import ConfigError, InputError, ReadError
from somareg.io.paths import whole_path
from somareg.io.stac import asset_of
from somareg.io.stac_catalog import CatalogItem, read_items
from somareg.io.stac_fields import as_mapping
from somareg.io.text import parse_json, read_text

_FACTS = ("date", "platform", "orbit", "baseline")
COLUMNS = ("name", "moving", "reference", *_FACTS, "series")
"""Columns of a table of scenes, beside the options of `register`."""


@dataclass(frozen=True)
class Scene:
    """One scene of an archive, or the moving image of a pair.

    Attributes:
        image: absolute path, or "item.json#ASSET".
        facts: date, platform, orbit and baseline.
        name: "" for an automatic one.
        series: name of its series in a table, "" without one.
        reference: of a pair; "" for a scene of an archive.
        options: of `register` that differ from the audit's.
        modality, reference_modality: from a STAC Item when the image is given by its file; "" when unknown.
    """

    image: str
    facts: Facts = field(default_factory=Facts)
    name: str = ""
    series: str = ""
    reference: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    modality: str = ""
    reference_modality: str = ""


Scenes = str | Path | Sequence[str | Path | tuple[str | Path, str | Path] | Scene]


def find_scenes(scenes: Scenes, *, glob: str | None = None, asset: str | None = None) -> list[Scene]:
    """List all scenes in order.

    Args:
        scenes: a folder; a table (CSV, or JSON of a list of objects) with the column `moving` and, if you like,
            `reference`, `name`, `date`, `platform`, `orbit`, `baseline`, `series` and any option of `register`; a STAC
            Item, Collection, Catalog or FeatureCollection; or a list of paths, or of (moving, reference).
        glob: files of a folder, such as "**/*_B08.jp2"; by default all its images.
        asset: of STAC Items, see `find_asset`.

    Raises:
        ReadError, InputError, ConfigError, UnsupportedError: the list cannot be used; nothing is measured.
    """
    result = list(_found(scenes, glob, asset))
    if not result:
        raise InputError(f"{scenes if isinstance(scenes, str | Path) else 'the list'} holds no scene")
    paired = sum(bool(scene.reference) for scene in result)
    if 0 < paired < len(result):
        raise InputError(
            f"{len(result) - paired} of {len(result)} scenes name no reference; name one for all or for none"
        )
    return result


def _found(scenes: Scenes, glob: str | None, asset: str | None) -> Iterator[Scene]:
    if not isinstance(scenes, str | Path):
        _refuse(glob=glob, asset=asset)
        yield from map(_given, scenes)
    elif Path(scenes).is_dir():
        _refuse(asset=asset)
        yield from (_of_file(file) for file in _files(Path(scenes), glob))
    elif Path(scenes).suffix.casefold() not in (".json", ".geojson"):
        _refuse(glob=glob, asset=asset)
        yield from _rows(Path(scenes), read_rows(Path(scenes), ("moving",), COLUMNS, "table of scenes"))
    else:
        _refuse(glob=glob)
        table = _json_table(Path(scenes))
        if table is None:
            yield from (_of_item(item, asset) for item in read_items(scenes))
        else:
            _refuse(asset=asset)
            yield from _rows(Path(scenes), table)


def _refuse(**given: str | None) -> None:
    words = {"glob": "glob goes with a folder", "asset": "asset goes with a STAC file"}
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{words[name]}; leave it out here")


def _given(scene: str | Path | tuple[str | Path, str | Path] | Scene) -> Scene:
    if isinstance(scene, Scene):
        return scene
    if isinstance(scene, tuple):
        moving, reference = scene
        return replace(_of_file(moving), reference=whole_path(reference))
    return _of_file(scene)


def _of_file(file: str | Path) -> Scene:
    path = whole_path(file)
    return Scene(path, facts_of_path(path.partition("#")[0]))


def _files(folder: Path, glob: str | None) -> list[str]:
    if glob is None:
        return list(images_in(folder).values())
    if Path(glob).is_absolute() or ".." in Path(glob).parts:
        raise ConfigError(f"glob '{glob}' leads out of {folder}; write it from there, such as *.tif")
    try:
        files = sorted(path for path in folder.glob(glob) if path.is_file() and not path.name.startswith("."))
    except (ValueError, NotImplementedError, OSError) as error:
        raise ConfigError(f"glob '{glob}' cannot be used ({error}); write one such as **/*_B08.jp2") from error
    if not files:
        raise InputError(f"no file in {folder} is called {glob}; images end in {', '.join(sorted(SUFFIXES))}")
    return [str(path) for path in files]


def _rows(file: Path, rows: list[tuple[str, dict[str, str]]]) -> Iterator[Scene]:
    for where, cells in rows:
        image = image_in(cells, "moving", file.parent, where)
        facts = Facts(
            parse_date(cells["date"], where) if cells.get("date") else None,
            *(cells.get(name, "") for name in _FACTS[1:]),
        )
        yield Scene(
            image,
            facts.over(facts_of_path(image.partition("#")[0])),
            cells.get("name", ""),
            cells.get("series", ""),
            whole_path(cells["reference"], file.parent) if cells.get("reference") else "",
            options_in(cells, COLUMNS, file.parent, where),
        )


def _json_table(file: Path) -> list[tuple[str, dict[str, str]]] | None:
    """Rows of a JSON list of objects; None for a STAC file."""
    try:
        content = parse_json(read_text(file, "list of scenes", MAX_TABLE_MIB))
    except ValueError as error:
        raise ReadError(f"{file} is not JSON ({error}); give a table of scenes or a STAC file") from error
    if not isinstance(content, list):
        return None
    columns = (*COLUMNS, *RegisterConfig.model_fields)
    rows = []
    for number, row in enumerate(content, 1):
        where = f"{file}, scene {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where} is no object; write it as {{'moving': 'scene.tif', 'date': '2024-05-06'}}")
        for column in row:
            if column not in columns:
                raise ConfigError(f"{where}: unknown column '{column}'.{did_you_mean(column, columns)}")
        rows.append((where, {column: _cell(value) for column, value in row.items()}))
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_cell, value))
    return "" if value is None else str(value).strip()


def _of_item(item: CatalogItem, asset: str | None) -> Scene:
    name = str(item.content.get("id") or "")
    facts = _facts_of(as_mapping(item.content.get("properties")), name).over(facts_of_path(name or "item"))
    if item.is_alone:
        image = whole_path(item.file)
        return Scene(f"{image}#{asset}" if asset else image, facts)
    found = asset_of(item.content, asset, item.file.parent, str(item.file), f"Item {name} of {item.file}")
    path = whole_path(found.path)
    return Scene(path, facts.over(facts_of_path(path)), modality=found.modality or "")


def _facts_of(properties: Mapping[str, Any], name: str) -> Facts:
    date = properties.get("datetime") or properties.get("start_datetime")
    orbit = properties.get("sat:relative_orbit", properties.get("landsat:wrs_path"))
    baseline = properties.get("s2:processing_baseline", properties.get("processing:version"))
    return Facts(
        parse_date(date, f"STAC Item {name}") if isinstance(date, str) else None,
        _word(properties.get("platform")),
        _number(orbit),
        _word(baseline) or _word(properties.get("landsat:collection_number")),
    )


def _word(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _number(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:03d}"
    text = _word(value)
    return text.zfill(3) if text.isascii() and text.isdigit() else text
