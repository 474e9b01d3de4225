"""One-line representations of values for shells and debuggers: sizes and names, never arrays.

The text is ASCII except for names, so every terminal can print it. Its cost does not grow with the number of pixels.
"""

from __future__ import annotations

import math
import re
from typing import Protocol

LONGEST_NAME = 48

_ROOT_EPSG = re.compile(r'(?:AUTHORITY\["EPSG","(\d+)"\]|ID\["EPSG",(\d+)\])\]\s*$')
_ROOT_NAME = re.compile(r'^\s*\w+\[\s*"([^"]+)"')


class Sized(Protocol):
    """Anything with a width and a height, such as a grid."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...


def brief(kind: str, *parts: str) -> str:
    """Return `<kind first, second>`; empty parts are left out."""
    text = ", ".join(part for part in parts if part)
    return f"<{kind} {text}>" if text else f"<{kind}>"


def size_of(grid: Sized) -> str:
    """Format a size, width first: "672 x 480 px"."""
    return f"{grid.width} x {grid.height} px"


def name_of(text: str) -> str:
    """Return the last part of a path, or the name of an array, on one short line."""
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1] or text
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in last)
    return plain if len(plain) <= LONGEST_NAME else f"{plain[:20]}...{plain[-25:]}"


def count(number: int, thing: str) -> str:
    """Format a count: "1 band" or "3 bands"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def error(px: float, m: float | None) -> str:
    """Format an error: "0.40 px (3.3 m)"; "" when it is unknown."""
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
