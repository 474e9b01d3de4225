"""Facts from file names: date, platform, orbit and processing baseline of Sentinel and Landsat products.

A product's name may be that of the file or of a folder above it (an image in a SAFE folder is called by tile and date
alone). The nearest name that tells something has the word on it. A name that is no product's may still hold a date:
2024-05-06, 20240506 or 20240506T070809, anywhere in the file's own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from somareg.errors import InputError

_FOLDERS = 5  # above a file, as many as a SAFE product has above its images

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
    """What is known of a scene; "" and None for what is not.

    Attributes:
        date: when it was taken, in UTC.
        platform: as in "S2A", "LC08", or in a STAC Item's own word.
        orbit: the relative orbit; for Landsat the path.
        baseline: of the processing, as in "05.00"; for Landsat the collection.
    """

    date: datetime | None = None
    platform: str = ""
    orbit: str = ""
    baseline: str = ""

    def over(self, other: Facts) -> Facts:
        """These, and the other's where these are silent."""
        return Facts(*(getattr(self, each.name) or getattr(other, each.name) for each in fields(Facts)))


def facts_of_path(path: str | Path) -> Facts:
    """What a file's name tells, and the folders above it where they are called like products."""
    file = Path(path)
    told = _of_product(file.name).over(Facts(date=_date_in(file.name)))
    for folder in list(file.parents)[:_FOLDERS]:
        told = told.over(_of_product(folder.name))
    return told


def parse_date(text: str, where: str) -> datetime:
    """A date as people and STAC Items write it: 2024-05-06, 20240506, 2024-05-06T07:08:09Z; UTC where it names no zone.

    Raises:
        InputError: it is none; `where` says of what.
    """
    try:
        told = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"{where}: {text.strip()[:40]!r} is no date; write it as 2024-05-06 or 2024-05-06T07:08:09Z"
        ) from None
    try:
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise InputError(f"{where}: {text.strip()[:40]!r} is no date of a scene") from None


def _of_product(name: str) -> Facts:
    for pattern in _PRODUCTS:
        if match := pattern.search(name):
            told = match.groupdict()
            return Facts(_taken(told), (told.get("platform") or "").upper(), _orbit(told), _baseline(told))
    return Facts()


def _taken(told: dict[str, str | None]) -> datetime | None:
    try:
        if told.get("year"):
            start = datetime(int(told["year"] or 0), 1, 1, tzinfo=UTC)
            return start + timedelta(days=int(told["day_of_year"] or 1) - 1)
        return datetime.strptime(f"{told['day']}{told.get('time') or '000000'}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:  # eight digits that are no day
        return None


def _orbit(told: dict[str, str | None]) -> str:
    absolute, first = told.get("absolute"), _FIRST_ORBIT.get((told.get("platform") or "").upper())
    if absolute and first:
        return f"{(int(absolute) - first) % 175 + 1:03d}"
    return told.get("orbit") or ""


def _baseline(told: dict[str, str | None]) -> str:
    if number := told.get("baseline"):
        return f"{number[:2]}.{number[2:]}"
    return f"C{told['collection']}" if told.get("collection") else ""


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
