"""All figures of a report, with the words that go with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from somareg.report.error_figure import error_figure
from somareg.report.maps import arrows_figure, local_figure, points_figure
from somareg.report.plain import plain
from somareg.report.residuals import histogram_figure, scatter_figure
from somareg.report.style import DARK, LIGHT, Theme
from somareg.types import Result
from somareg.types.words import percent, pixels

__all__ = [
    "DARK",
    "LIGHT",
    "Drawing",
    "arrows_figure",
    "drawings",
    "error_figure",
    "histogram_figure",
    "local_figure",
    "points_figure",
    "scatter_figure",
]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure with its words.

    Attributes:
        key: identifier, lower case.
        title, caption: what it shows and how to read it.
        alt: the finding in one sentence, for who cannot see it.
        draw: makes the PNG for a theme.
    """

    key: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Theme], bytes]


def drawings(result: Result) -> list[Drawing]:
    """All figures of a result, in reading order, without an error map on no-go; nothing is drawn before `draw`."""
    quality, is_found = result.quality, result.verdict.decision != "no-go"
    points, inliers = len(result.tie_points), int(np.count_nonzero(result.tie_points.inlier))
    return [
        *([_error(result)] if is_found else []),
        Drawing(
            "arrows",
            "Displacement",
            "Each arrow starts at a reference pixel and points to where the moving image showed the same ground before "
            "alignment. "
            + (
                "Pale arrows stand where nothing was seen nearby."
                if is_found
                else "All are pale: no reliable alignment was found."
            ),
            f"Map of displacement arrows, {pixels(plain(quality.shift_before_px))} RMS.",
            lambda theme: arrows_figure(result, theme),
        ),
        Drawing(
            "points",
            "Tie points",
            "Every matched window, coloured by its distance to the final transform. Hollow points disagree with the "
            "others and were left out.",
            f"Map of {points} tie points, {inliers} of them kept.",
            lambda theme: points_figure(result, theme),
        ),
        Drawing(
            "local",
            "Local displacement beyond the affine",
            "What one shift, rotation, scale and shear for the whole image cannot explain: relief, sensor geometry, "
            "mosaicking.",
            f"Map of the local displacement, {pixels(plain(quality.local_rms_px))} RMS.",
            lambda theme: local_figure(result, theme),
        ),
        Drawing(
            "histogram",
            "How far tie points are off",
            "Distance of each point to the final transform. It includes the noise of the single point, so it is "
            "usually wider than the predicted error of the alignment."
            if is_found
            else "Distance of each point to a transform that is not reliable: it tells nothing of an error.",
            f"Histogram of residuals, median {pixels(plain(quality.residual_median_px))}.",
            lambda theme: histogram_figure(result, theme),
        ),
        Drawing(
            "scatter",
            "In which direction they are off",
            "The same residuals by direction."
            + (" A cloud that is round and centred shows no systematic error;" if is_found else "")
            + " the cross is their mean (bias) and standard deviation (sigma) along each axis.",
            "Scatter of residual dx against dy with their bias"
            + (" and the circle of the predicted CE90." if is_found else "."),
            lambda theme: scatter_figure(result, theme),
        ),
    ]


def _error(result: Result) -> Drawing:
    """The error map, which a no-go has not."""
    quality = result.quality
    return Drawing(
        "error",
        "Expected error",
        "How far off each place is expected to be, by what matches nearby tell and by the pair's predicted "
        "error; the numbers are those of 6 by 6 cells, in pixels. Grey places were not seen: no match nearby tells "
        "anything of them, or one image shows nothing there.",
        f"Map of the expected error, worst cell {pixels(plain(quality.worst_px))}, "
        f"{percent(plain(quality.unseen_share))} not seen.",
        lambda theme: error_figure(result, theme),
    )
