"""Choice of the bands that are matched."""

from __future__ import annotations

from somareg.errors import ConfigError
from somareg.types import HEIGHTS, Modality

MAX_BANDS = 4

# Spellings of a band's name, the likeliest first: Sentinel-2's numbers and STAC's common names.
_BLUE, _GREEN, _RED = ("B2", "BLUE"), ("B3", "GREEN"), ("B4", "RED")
_NIR, _SWIR = ("B8", "NIR", "NIR08"), ("B11", "SWIR16")


def choose_bands(
    count: int, wanted: tuple[int, ...] | None, descriptions: tuple[str, ...], modality: Modality = "optical"
) -> tuple[int, ...]:
    """1-based bands for matching: the user's, else all up to `MAX_BANDS`, else the most useful ones.

    With more than `MAX_BANDS`, these are blue, green, red and near infrared by name, or the first ones. Bands of a
    "multispectral" image are spread over the spectrum, because neighbouring bands are alike: green, red, near and
    short-wave infrared by name, or evenly spread ones. Heights are one band, the first.

    Args:
        count: bands of the image.
        wanted: by the user.
        descriptions: of the bands; "" for none.
        modality: what the image is.
    """
    if wanted:
        return wanted
    if modality in HEIGHTS:
        return (1,)
    if count <= MAX_BANDS:
        return tuple(range(1, count + 1))
    if modality != "multispectral":
        return _named(descriptions, _BLUE, _GREEN, _RED, _NIR) or tuple(range(1, MAX_BANDS + 1))
    if (channels := _named(descriptions, _GREEN, _RED, _NIR, _SWIR)) is None:
        return tuple(int((i + 0.5) * count / MAX_BANDS) + 1 for i in range(MAX_BANDS))
    return channels


def _named(descriptions: tuple[str, ...], *groups: tuple[str, ...]) -> tuple[int, ...] | None:
    """The bands with these names, in the image's order; None unless each name has a band."""
    names = [text.strip().upper().replace("B0", "B") for text in descriptions]
    numbers = [next((names.index(name) + 1 for name in spellings if name in names), 0) for spellings in groups]
    return tuple(sorted(numbers)) if all(numbers) else None


def check_bands(bands: tuple[int, ...], count: int, name: str) -> None:
    """Raise `ConfigError` for a 1-based band that an image of `count` bands does not have."""
    for band in bands:
        if not 1 <= band <= count:
            raise ConfigError(f"{name} has no band {band}; choose from 1 to {count}")
