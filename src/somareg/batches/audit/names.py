"""Facts about a scene from file names: date, platform, orbit and processing baseline of Sentinel and Landsat products.

The product's name may be that of the file or of a folder above it (an image in a SAFE folder is named by tile and date
alone). For each fact the nearest name that contains it counts. Any other name may still contain a date:
2024-05-06, 20240506 or 20240506T070809, anywhere in the file's own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from somareg.errors import InputError

_FOLDERS = 5  # folders above a file that are examined, as many as a SAFE product has above its images

_DAY = r"(?P<day>(?:19[7-9]|20)\d{6})"
_PRODUCTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![A-Z0-9])(?P<platform>S2[A-D])_MSIL\w\w_{_DAY}T(?P<time>\d{{6}})_N(?P<baseline>\d{{4}})_R(?P<orbit>\d{{3}})_",
        rf"(?<![A-Z0-9])(?P<platform>S2[A-D])_\d{{1,2}}[A-Z]{{3}}_{_DAY}_\d+_L\w\w",
        rf"(?<![A-Z0-9])(?P<platform>S1[A-D])_\w\w_\w{{4}}_\w{{4}}_{_DAY}T(?P<time>\d{{6}})_\d{{8}}T\d{{6}}_(?P<absolute>\d{{6}})_",
        rf"(?<![A-Z0-9])(?P<platform>S1[A-D])-\w+-\w+-\w\w-{_DAY}T(?P<time>\d{{6}})-\d{{8}}T\d{{6}}-(?P<absolute>\d{{6}})-",
        rf"(?<![A-Z0-9])(?P<platform>L[COTEM]0\d)_L\w{{3}}_(?P<orbit>\d{{3}})\d{{3}}_{_DAY}_\d{{8}}_(?P<collection>\d\d)_",
        r"(?<![A-Z0-9])(?P<platform>L[COTEM]\d)(?P<orbit>\d{3})\d{3}(?P<year>(?:19|20)\d\d)(?P<day_of_year>\d{3})[A-Z]{3}\d\d",
        rf"(?<![A-Z0-9])T\d\d[A-Z]{{3}}_{_DAY}T(?P<time>\d{{6}})",
    )
)
_DATE = re.compile(r"(?<!\d)((?:19[7-9]|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?:[T_ ]?(\d\d)[:-]?(\d\d)[:-]?(\d\d))?(?!\d)")
_FIRST_ORBIT = {"S1A": 73, "S1B": 27}  # absolute orbits before the first relative one; 175 make a cycle


@dataclass(frozen=True)
class Facts:
    """Facts about a scene; "" and None when unknown.

    Attributes:
        date: of acquisition, UTC.
        platform: such as "S2A" or "LC08", or the value of a STAC Item.
        orbit: the relative orbit; for Landsat the path.
        baseline: of the processing, such as "05.00"; for Landsat the collection.
    """

    date: datetime | None = None
    platform: str = ""
    orbit: str = ""
    baseline: str = ""

    def over(self, other: Facts) -> Facts:
        """Complete these facts by those of another."""
        return Facts(*(getattr(self, each.name) or getattr(other, each.name) for each in fields(Facts)))


def facts_of_path(path: str | Path) -> Facts:
    """Facts from a file's name, and from the folders above it that are named like products."""
    file = Path(path)
    facts = _of_product(file.name).over(Facts(date=_date_in(file.name)))
    for folder in list(file.parents)[:_FOLDERS]:
        facts = facts.over(_of_product(folder.name))
    return facts


def parse_date(text: str, where: str) -> datetime:
    """Parse a date such as 2024-05-06, 20240506 or 2024-05-06T07:08:09Z; UTC without a time zone.

    Raises:
        InputError: it is no date; `where` names the place.
    """
    try:
        date = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"{where}: {text.strip()[:40]!r} is no date; write it as 2024-05-06 or 2024-05-06T07:08:09Z"
        ) from None
    try:
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise InputError(f"{where}: {text.strip()[:40]!r} is no date of a scene") from None


def _of_product(name: str) -> Facts:
    for pattern in _PRODUCTS:
        if match := pattern.search(name):
            fields = match.groupdict()
            return Facts(_acquired(fields), (fields.get("platform") or "").upper(), _orbit(fields), _baseline(fields))
    return Facts()


def _acquired(fields: dict[str, str | None]) -> datetime | None:
    try:
        if fields.get("year"):
            start = datetime(int(fields["year"] or 0), 1, 1, tzinfo=UTC)
            return start + timedelta(days=int(fields["day_of_year"] or 1) - 1)
        return datetime.strptime(f"{fields['day']}{fields.get('time') or '000000'}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:  # eight digits that are no date
        return None


def _orbit(fields: dict[str, str | None]) -> str:
    absolute, first = fields.get("absolute"), _FIRST_ORBIT.get((fields.get("platform") or "").upper())
    if absolute and first:
        return f"{(int(absolute) - first) % 175 + 1:03d}"
    return fields.get("orbit") or ""


def _baseline(fields: dict[str, str | None]) -> str:
    if number := fields.get("baseline"):
        return f"{number[:2]}.{number[2:]}"
    return f"C{fields['collection']}" if fields.get("collection") else ""


def _date_in(name: str) -> datetime | None:
    return next(_dates_in(name), None)


def _dates_in(name: str) -> Iterator[datetime]:
    for match in _DATE.finditer(name):
        year, _, month, day, *clock = match.groups()
        try:
            date(int(year), int(month), int(day))
            hour, minute, second = (int(part) for part in clock) if all(clock) else (0, 0, 0)
            yield datetime(int(year), int(month), int(day), hour, minute, second, tzinfo=UTC)
        except ValueError:
            continue
