"""The pairs of a batch and their names, from a table, two folders matched by name, or a list."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from somareg.config import RegisterConfig, did_you_mean, make_config
from somareg.errors import ConfigError, InputError, ReadError
from somareg.io.paths import is_file_name, whole_path
from somareg.io.text import read_text

MAX_TABLE_MIB = 64
SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", ".img", ".bsq", ".bil", ".bip"})
"""Suffixes of images in a folder."""

_COLUMNS = ("name", "moving", "reference")
_UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')


@dataclass(frozen=True)
class BatchPair:
    """One pair of a batch.

    Attributes:
        name: of its output folder; "" for an automatic one.
        moving, reference: absolute paths, or "item.json#ASSET" of STAC Items.
        options: of `register` that differ from the batch's.
    """

    name: str
    moving: str
    reference: str
    options: Mapping[str, Any] = field(default_factory=dict)


Pairs = str | Path | Sequence[BatchPair | tuple[str | Path, str | Path]]


def find_pairs(pairs: Pairs, reference: str | Path | None = None) -> list[BatchPair]:
    """List all pairs with their names.

    Args:
        pairs: a table (see `read_table`), a folder of moving images, or a list.
        reference: for a folder of moving images: the folder of references, matched by name, or the one reference of a
            time series.

    Raises:
        ReadError: the table or a folder is missing.
        InputError: a bad row or name, or no pair at all.
        ConfigError: an unknown column or a bad value, or a `reference` beside a table or list.
    """
    if not isinstance(pairs, str | Path):
        if reference is not None:
            raise ConfigError("a list of pairs holds the references itself; leave `reference` out")
        result = [p if isinstance(p, BatchPair) else _given(*p) for p in pairs]
    elif Path(pairs).is_dir():
        if reference is None:
            raise ConfigError(f"{pairs} is a folder; name the references, too: a folder, or one image")
        result = _match_folders(Path(pairs), Path(reference))
    else:
        if reference is not None:
            raise ConfigError(f"{pairs} is no folder: a table holds the references itself, give nothing beside it")
        result = read_table(pairs)
    if not result:
        raise InputError(f"{pairs if isinstance(pairs, str | Path) else 'the list'} holds no pair")
    return _named(result)


def read_table(path: str | Path) -> list[BatchPair]:
    """Read the pairs of a CSV file (comma, semicolon or tab).

    Columns are `moving` and `reference`, optionally `name`, and any option of `register`; an empty cell leaves the
    option to the batch. Relative paths start at the table's folder.

    Raises:
        ReadError: missing, too large or not text.
        InputError: no such columns, or a row with too many or too few cells.
        ConfigError: an unknown column or a bad value; file and line are named.
    """
    file = Path(path)
    return [_pair(cells, file.parent, where) for where, cells in read_rows(file, ("moving", "reference"), _COLUMNS)]


def read_rows(
    file: Path, needed: Sequence[str], own: Sequence[str], what: str = "table of pairs"
) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file that are not empty: the place of each for messages, and its cells by column.

    Args:
        file: comma, semicolon or tab.
        needed: required columns.
        own: columns that are no options of `register`.
        what: kind of table, for messages.

    Raises:
        ReadError, InputError, ConfigError: see `read_table`.
    """
    rows = csv.reader(io.StringIO(text := read_text(file, what, MAX_TABLE_MIB), newline=""), delimiter=_delimiter(text))
    try:
        header = [cell.strip() for cell in next(rows, [])]
        _check_header(header, file, needed, own)
        return [
            (where := f"{file}, line {rows.line_num}", _cells(header, row, where))
            for row in rows
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise InputError(f"{file}, line {rows.line_num}: {error}") from error


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _check_header(header: list[str], file: Path, needed: Sequence[str], own: Sequence[str]) -> None:
    if not set(needed) <= set(header):
        columns = f"column{'s' if len(needed) > 1 else ''} {' and '.join(needed)}"
        raise InputError(f"{file} needs the {columns}; its first line is '{','.join(header)[:200]}'")
    known = (*own, *RegisterConfig.model_fields)
    for column in header:
        if column not in known:
            raise ConfigError(f"{file}: unknown column '{column}'.{did_you_mean(column, known)}")
        if header.count(column) > 1:
            raise InputError(f"{file} has the column '{column}' twice")


def _cells(header: list[str], row: list[str], where: str) -> dict[str, str]:
    if len(row) != len(header):
        raise InputError(f"{where} has {len(row)} cells, the first line has {len(header)}")
    return {column: cell.strip() for column, cell in zip(header, row, strict=True)}


def _pair(cells: Mapping[str, str], folder: Path, where: str) -> BatchPair:
    moving, reference = (image_in(cells, role, folder, where) for role in ("moving", "reference"))
    return BatchPair(cells.get("name", ""), moving, reference, options_in(cells, _COLUMNS, folder, where))


def image_in(cells: Mapping[str, str], role: str, folder: Path, where: str) -> str:
    """The image of a row; relative paths start at `folder`.

    Raises:
        InputError: the cell is empty.
    """
    if not cells.get(role):
        raise InputError(f"{where} names no {role} image")
    return whole_path(cells[role], folder)


def options_in(cells: Mapping[str, str], own: Sequence[str], folder: Path, where: str) -> dict[str, Any]:
    """The options of `register` in a row; relative paths start at `folder`.

    Raises:
        ConfigError: a bad value.
    """
    options: dict[str, Any] = {name: cell for name, cell in cells.items() if cell and name not in own}
    for column in ("tie_points", "model", "moving_mask", "reference_mask"):
        text = str(options.get(column, ""))
        if column != "model" or text.lower().endswith(".safetensors"):
            options |= {column: whole_path(text, folder)} if text else {}
    # A folder beside the list, else a name of the hub.
    if "dinov2" in options and Path(whole := whole_path(str(options["dinov2"]), folder)).is_dir():
        options["dinov2"] = whole
    try:
        make_config(options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return options


def _given(moving: str | Path, reference: str | Path) -> BatchPair:
    return BatchPair("", whole_path(moving), whole_path(reference))


def _match_folders(moving: Path, reference: Path) -> list[BatchPair]:
    movings = images_in(moving)
    if not reference.is_dir():
        return [BatchPair("", image, whole_path(reference)) for image in movings.values()]
    references = images_in(reference)
    both = [stem for stem in movings if stem in references]
    if not both:
        raise InputError(
            f"no image in {moving} has the name of one in {reference} ({len(movings)} and {len(references)} images); "
            "give a table with the columns moving and reference"
        )
    return [BatchPair("", movings[stem], references[stem]) for stem in both]


def unmatched(moving: str | Path, reference: str | Path) -> list[str]:
    """Images of two folders without a partner in the other one."""
    first, second = images_in(Path(moving)), images_in(Path(reference))
    return [first[k] for k in first if k not in second] + [second[k] for k in second if k not in first]


def images_in(folder: Path) -> dict[str, str]:
    """The images of a folder: stem in lower case -> absolute path, sorted by name.

    Raises:
        ReadError: the folder cannot be read.
        InputError: two images have one stem.
    """
    images: dict[str, str] = {}
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise ReadError(f"folder {folder} cannot be read: {error.strerror or error}") from error
    for entry in entries:
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file():
            stem = entry.stem.casefold()
            if stem in images:
                raise InputError(f"{folder} holds {Path(images[stem]).name} and {entry.name}; which one is meant?")
            images[stem] = whole_path(entry)
    return images


def _named(pairs: Iterable[BatchPair]) -> list[BatchPair]:
    """Give every pair a unique folder name, unique also on file systems that ignore case."""
    pairs = list(pairs)
    names: set[str] = set()
    for pair in pairs:
        if not pair.name:
            continue
        if _UNFIT.search(pair.name) or pair.name.startswith(".") or pair.name.endswith((".", " ")) or _own(pair.name):
            raise InputError(f"the pair's name {pair.name!r} cannot be a folder's; use letters, digits, - and _")
        if is_file_name(pair.name):
            raise InputError(
                f"the pair's name {pair.name!r} is a file's, and its outputs are a folder; leave the end out"
            )
        if pair.name.casefold() in names:
            raise InputError(f"two pairs are called '{pair.name}'; give each its own name")
        names.add(pair.name.casefold())
    return [pair if pair.name else replace(pair, name=unused_name(_folder_name(pair.moving), names)) for pair in pairs]


def _folder_name(image: str) -> str:
    stem = file_stem(image)
    return f"{stem}_pair" if _own(stem) or is_file_name(stem) else stem


def unused_name(stem: str, taken: set[str]) -> str:
    """Return `stem`, numbered if it is in `taken` (case ignored), and add it to `taken`."""
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def file_stem(image: str) -> str:
    """Name for outputs of an image: its file's name without suffix, "item_ASSET" for an asset."""
    item, mark, asset = image.partition(".json#")
    stem = f"{Path(item).name}_{asset}" if mark else Path(image).stem
    return _UNFIT.sub("_", stem).strip(". ")[:120] or "image"


def _own(name: str) -> bool:
    """Names of the batch's own files."""
    return name.casefold() in ("manifest.jsonl", "summary.csv", "summary.json")
