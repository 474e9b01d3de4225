"""SVG inside a page: elements and paths, with all text escaped."""

from __future__ import annotations

from markupsafe import Markup, escape

from somareg.types import FloatArray


def element(name: str, *content: str, **attributes: object) -> Markup:
    """An SVG element; content that is no `Markup` is escaped.

    Args:
        name: of the element.
        *content: its content.
        **attributes: floats are written to a tenth; a trailing underscore is left out, the others become hyphens.
    """
    text = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    inner = "".join(escape(part) for part in content)
    return Markup(f"<{name}{text}>{inner}</{name}>" if inner else f"<{name}{text}/>")  # noqa: S704, all is escaped


def joined(*parts: str) -> Markup:
    """Concatenate parts; those that are no `Markup` are escaped."""
    return Markup("").join(parts)


def number(value: float) -> str:
    """Format a coordinate to a tenth of a unit, without trailing zeros."""
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 0.05 else "0"


def polygons(*corners: FloatArray) -> str:
    """Closed polygons, each (N, 2), as the `d` of a path."""
    return "".join("M" + "L".join(f"{number(x)} {number(y)}" for x, y in each.tolist()) + "Z" for each in corners)


def boxes(left: FloatArray, top: FloatArray, right: FloatArray, bottom: float) -> str:
    """Upright boxes (N,) on one ground line as the `d` of a path."""
    return "".join(
        f"M{number(x)} {number(bottom)}V{number(y)}H{number(end)}V{number(bottom)}Z"
        for x, y, end in zip(left.tolist(), top.tolist(), right.tolist(), strict=True)
    )


def _value(value: object) -> Markup:
    return escape(number(value) if isinstance(value, float) else str(value))
