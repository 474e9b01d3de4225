"""Figures as text, the same on every page and in every message."""

from __future__ import annotations


def pixels(value: float | None) -> str:
    """Pixels as in "0.46 px", or a dash."""
    if value is None:
        return "–"
    size = abs(value)
    return _minus(f"{value:.2f} px" if size < 10 else f"{value:.1f} px" if size < 100 else f"{value:,.0f} px")


def metres(value: float | None) -> str:
    """Metres as in "4.6 m", about three figures; "" when unknown."""
    if value is None:
        return ""
    size = abs(value)
    return _minus(f"{value:.2f} m" if size < 1 else f"{value:.1f} m" if size < 100 else f"{value:,.0f} m")


def percent(share: float | None) -> str:
    """Percent as in "97 %"; never rounds up to 100 % nor down to 0 %."""
    if share is None:
        return "–"
    if 0.995 <= share < 1:
        return "> 99 %"
    if 0 < share < 0.005:
        return "< 1 %"
    return f"{100 * share:.0f} %"


def chance(probability: float) -> str:
    """A probability of 0-1 as text, "97 %" or "more than 99 %"; never 0 or 100 %."""
    if probability >= 0.995:
        return "more than 99 %"
    return "less than 1 %" if probability < 0.005 else f"{100 * probability:.0f} %"


def _minus(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")
