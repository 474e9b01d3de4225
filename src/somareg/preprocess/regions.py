"""Connected regions of one exact value in an image, and the shape of their outlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.subsample import subsample
from somareg.types import BoolArray

LEAST_PX = 24  # pixels of a region that may be an overlay
LEAST_SHARE = 0.0005  # least share of the image that a value must cover in regions to be examined
VALUES = 8  # most values that are examined
BLURRED_VALUES, BLURRED_SHARE = 2, 0.01  # most values of blurred regions; least share of the image at exactly one
BLUR = 0.08  # share of the range of all other values: ringing of compression beside an edge
STRAIGHT_PX = 16.0  # least length of an edge that counts as straight when no pixel leaves it


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of one exact value in an image.

    Attributes:
        labels: (H, W) int32, 0 outside of all regions.
        values: of each region, from label 1 on: the value in every band, as text.
    """

    labels: NDArray[np.int32]
    values: tuple[str, ...]


def regions_of(data: NDArray[Any], mask: BoolArray) -> Regions:
    """Connected regions in which every band is constant.

    Args:
        data: (C, H, W) of any dtype.
        mask: (H, W) valid pixels.
    """
    keys, common = _common(data, mask)
    labels = np.zeros(mask.shape, np.int32)
    values: list[str] = []
    for key, count in common[:VALUES]:
        if count < max(LEAST_PX, LEAST_SHARE * mask.size):
            break
        same = keys == key
        _label(labels, values, mask & same, _text(data[(slice(None), *_first(same))]))
    return Regions(labels, tuple(values))


def blurred_regions_of(data: NDArray[Any], mask: BoolArray) -> Regions:
    """Connected regions of a value that lossy compression or resampling kept exact in their middle only.

    Args:
        data: (C, H, W) of any dtype.
        mask: (H, W) valid pixels.
    """
    keys, common = _common(data, mask)
    labels = np.zeros(mask.shape, np.int32)
    values: list[str] = []
    amount = np.abs(data) if np.iscomplexobj(data) else data
    for key, _ in common[:BLURRED_VALUES]:
        same = keys == key
        exact, rest = mask & same, mask & ~same
        if exact.sum() < BLURRED_SHARE * mask.size or not rest.any():
            break
        row, column = _first(same)
        near = mask.copy()
        others = subsample(amount, rest)
        for band, (low, high) in zip(amount, np.percentile(others, [1, 99], axis=1).T, strict=True):
            value = float(band[row, column])
            with np.errstate(invalid="ignore", over="ignore"):
                near &= np.abs(band.astype(np.float64) - value) <= BLUR * (float(high) - float(low))
        near &= labels == 0
        closed = cv2.morphologyEx(near.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        _label(labels, values, closed > 0, _text(data[:, row, column]), exact)
    return Regions(labels, tuple(values))


def _first(there: BoolArray) -> tuple[int, int]:
    """Row and column of the first True of a mask."""
    row, column = divmod(int(there.argmax()), there.shape[1])
    return row, column


def _label(
    labels: NDArray[np.int32], values: list[str], inside: BoolArray, value: str, exact: BoolArray | None = None
) -> None:
    """Add the connected parts of a mask as new regions to `labels` and `values`; existing regions stay.

    Args:
        labels, values: written to, see `Regions`.
        inside: (H, W) pixels of the new regions.
        value: of all of them.
        exact: pixels that hold the value itself; a part with less than half of them is no region.
    """
    _, own, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    large = area >= LEAST_PX
    if exact is not None:
        large &= np.bincount(own.ravel(), exact.ravel(), minlength=len(area)) >= area / 2
    large[0] = False
    numbers = np.where(large, np.cumsum(large) + len(values), 0).astype(np.int32)
    np.copyto(labels, numbers[own], where=labels == 0)
    values += [value] * int(large.sum())


def outline_of(labels: NDArray[np.int32] | BoolArray) -> BoolArray:
    """(H, W), True at pixels of regions (labels above 0) with a neighbour outside of the region."""
    inside = labels > 0
    outline = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        lines, marked = np.moveaxis(labels, axis, 0), np.moveaxis(outline, axis, 0)  # views
        differ = lines[:-1] != lines[1:]
        marked[:-1] |= differ
        marked[1:] |= differ
    return outline & inside


def straight_share(own: NDArray[np.uint8], leeway_px: float) -> float:
    """Share of a region's outline that runs straight within `leeway_px`; the frame of the image does not count."""
    height, width = own.shape
    straight = total = 0.0
    contours, _ = cv2.findContours(own, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        corners = cv2.approxPolyDP(contour, leeway_px, True)[:, 0].astype(float)
        for first, second in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            on_frame = any(
                first[axis] == second[axis] and first[axis] in (0, last)
                for axis, last in ((0, width - 1), (1, height - 1))
            )
            length = float(np.hypot(*(second - first)))
            if not on_frame:
                total += length
                straight += length if length >= STRAIGHT_PX else 0.0
    return straight / total if total else 0.0


def is_solid(own: NDArray[np.uint8]) -> bool:
    """Whether a region has hardly any holes and a smooth outline."""
    closed = cv2.morphologyEx(own, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    opened = cv2.morphologyEx(own, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    rim = max(1, int(outline_of(own > 0).sum()))
    return bool((closed.sum() - own.sum()) + (own.sum() - opened.sum()) < 0.3 * rim)


def _common(data: NDArray[Any], mask: BoolArray) -> tuple[NDArray[np.uint64], list[tuple[np.uint64, int]]]:
    """`_keys` of an image, and the keys of constant pixels with their counts, most common first."""
    keys = _keys(data)
    values, counts = np.unique(keys[_resting(keys, mask)], return_counts=True)
    order = np.argsort(-counts)
    return keys, list(zip(values[order], counts[order].tolist(), strict=True))


def _keys(data: NDArray[Any]) -> NDArray[np.uint64]:
    """(H, W), one number per pixel that is equal exactly when all bands are."""
    key = np.zeros(data.shape[1:], np.uint64)
    for band in data:
        parts = (band.real, band.imag) if np.iscomplexobj(band) else (band,)
        for part in parts:
            part = np.ascontiguousarray(part + 0) if part.dtype.kind == "f" else np.ascontiguousarray(part)  # -0 is 0
            bits = part.view(f"u{part.dtype.itemsize}").astype(np.uint64)
            key = (key * np.uint64(0x9E3779B97F4A7C15)) ^ (bits + np.uint64(1)) * np.uint64(0xC2B2AE3D27D4EB4F)
    return key


def _resting(keys: NDArray[np.uint64], mask: BoolArray) -> BoolArray:
    """(H, W), True at valid pixels that equal two or more of their four neighbours."""
    count = np.zeros(keys.shape, np.uint8)
    down, right = keys[1:] == keys[:-1], keys[:, 1:] == keys[:, :-1]
    count[1:] += down
    count[:-1] += down
    count[:, 1:] += right
    count[:, :-1] += right
    return np.asarray((count >= 2) & mask)


def _text(values: NDArray[Any]) -> str:
    texts = [f"{float(abs(v)) if np.iscomplexobj(v) else v.item():g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)
