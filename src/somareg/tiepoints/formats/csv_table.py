"""CSV (or TSV): one line per point, pixel centres, every digit."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from somareg.errors import InputError
from somareg.io.atomic import write_text
from somareg.tiepoints.formats.point_pairs import Images, PointPairs, to_tie_points
from somareg.tiepoints.formats.records import (
    COLUMNS,
    Geometry,
    Record,
    RecordTable,
    finite_or_none,
    read_records,
    record_of,
)
from somareg.tiepoints.formats.rows import lines_of


def read(path: Path, images: Images, *, skip_bad: bool) -> PointPairs:
    """Read a table with a header; comma, semicolon or tab separate, lines that start with # are comments."""
    lines = ((i, line) for i, line in lines_of(path) if line.strip() and not line.startswith("#"))
    _, header = next(lines, (0, ""))
    if not header:
        raise InputError(
            f"{path} holds no header; its first line must name the columns, such as ref_x,ref_y,mov_x,mov_y"
        )
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().strip('"').lower() for name in header.split(delimiter)]

    def opened(line: str) -> tuple[Record, Geometry]:
        cells = next(csv.reader([line], delimiter=delimiter))
        if len(cells) != len(names):
            raise ValueError(f"{len(cells)} values for {len(names)} columns")
        return dict(zip(names, cells, strict=True)), ()

    return read_records(RecordTable(path, "line", frozenset(names)), lines, opened, skip_bad=skip_bad)


def write(path: Path, pairs: PointPairs, images: Images, *, overwrite: bool) -> int:
    """Write all points; an unknown value is an empty cell."""
    points = to_tie_points(pairs, images, path)
    text = io.StringIO()
    writer = csv.DictWriter(
        text, COLUMNS, lineterminator="\n", delimiter="\t" if path.suffix.lower() == ".tsv" else ","
    )
    writer.writeheader()
    for index in range(len(points)):
        record = record_of(points, index, finite_or_none)
        writer.writerow({**record, "inlier": int(record["inlier"])})
    write_text(path, text.getvalue(), overwrite=overwrite)
    return len(points)
