"""One line about a value, for whoever looks at it in a shell or a debugger: sizes and names, never arrays.

ASCII but for names, so that every terminal can print it; nothing is computed that takes longer with more pixels.
"""

from __future__ import annotations

import math
import re
from typing import Protocol

LONGEST_NAME = 48

_ROOT_EPSG = re.compile(r'(?:AUTHORITY\["EPSG","(\d+)"\]|ID\["EPSG",(\d+)\])\]\s*$')
_ROOT_NAME = re.compile(r'^\s*\w+\[\s*"([^"]+)"')


class Sized(Protocol):
    """What has a width and a height, as a grid."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...


def brief(kind: str, *parts: str) -> str:
    """`<kind first, second>`; empty parts are left out."""
    told = ", ".join(part for part in parts if part)
    return f"<{kind} {told}>" if told else f"<{kind}>"


def size_of(grid: Sized) -> str:
    """As in "672 x 480 px", width first."""
    return f"{grid.width} x {grid.height} px"


def name_of(text: str) -> str:
    """The end of a path or the name of an array: on one line, and not too long."""
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1] or text
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in last)
    return plain if len(plain) <= LONGEST_NAME else f"{plain[:20]}...{plain[-25:]}"


def count(number: int, thing: str) -> str:
    """As in "1 band" or "3 bands"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def error(px: float, m: float | None) -> str:
    """As in "0.40 px (3.3 m)"; "" where it is not known."""
    if not math.isfinite(px):
        return ""
    return f"{px:.2f} px" + (f" ({m:.3g} m)" if m is not None and math.isfinite(m) else "")


def crs_name(wkt: str | None) -> str | None:
    """A short name for a CRS: "EPSG:32633", else the name its WKT gives, else its first 60 characters."""
    if not wkt:
        return None
    if code := _ROOT_EPSG.search(wkt):
        return f"EPSG:{code[1] or code[2]}"
    if name := _ROOT_NAME.match(wkt):
        return name[1]
    return wkt[:60]
