"""All drawings of a report, with their titles and captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from somareg.report.maps import arrows_map, error_map, local_map, points_map
from somareg.report.plain import plain
from somareg.report.residuals import histogram, residuals_of, scatter
from somareg.report.samples import NOTHING_PX, local_length
from somareg.types import Result
from somareg.types.words import percent, pixels


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing with its texts.

    Attributes:
        key: identifier, lower case.
        title, caption: what it shows and how to read it.
        svg: for the page, with the finding in one sentence for screen readers.
    """

    key: str
    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Drawings:
    """All drawings of a result.

    Attributes:
        error: the map of the expected error; None without one.
        others: in reading order.
        absent: one sentence for each drawing that is left out.
    """

    error: Drawing | None
    others: tuple[Drawing, ...]
    absent: tuple[str, ...]


def drawings(result: Result) -> Drawings:
    """Make all drawings of a result; a sentence replaces a drawing without content."""
    is_found = result.verdict.decision != "no-go"
    error = [_error(result)] if is_found else []
    others = [
        _arrows(result, is_found), *_points(result), _local(result, is_found), *_residuals(result, is_found)
    ]  # fmt: skip
    return Drawings(
        error=next((each for each in error if isinstance(each, Drawing)), None),
        others=tuple(each for each in others if isinstance(each, Drawing)),
        absent=tuple(each for each in (*error, *others) if isinstance(each, str)),
    )


def _error(result: Result) -> Drawing | str:
    """The error map; None for a no-go."""
    quality = result.quality
    alt = (
        f"Map of the expected error, worst cell {pixels(plain(quality.worst_px))}, "
        f"{percent(plain(quality.unseen_share))} not seen."
    )
    svg = error_map(result, alt)
    if svg is None:
        return "No map of the expected error: no part has enough matches nearby."
    return Drawing(
        "error",
        "Expected error",
        "The expected error of each place, from the matches nearby and the pair's predicted error. The numbers are "
        "those of 6 by 6 cells, in pixels; a frame marks the worst. Grey places were not seen: no match is near, or "
        "one image has no data.",
        svg,
    )


def _arrows(result: Result, is_found: bool) -> Drawing | str:
    svg = arrows_map(result, f"Map of displacement arrows, {pixels(plain(result.quality.shift_before_px))} RMS.")
    if svg is None:
        return f"No arrows: the displacement is below {NOTHING_PX} px everywhere."
    return Drawing(
        "arrows",
        "Displacement",
        "Each arrow starts at a reference pixel and points to where the moving image showed the same ground before "
        "alignment. "
        + ("Pale arrows have no match nearby." if is_found else "All are pale: no reliable alignment was found."),
        svg,
    )


def _points(result: Result) -> list[Drawing | str]:
    points = result.tie_points
    svg = points_map(result, f"Map of {len(points)} tie points, {int(np.count_nonzero(points.inlier))} of them kept.")
    if svg is None:
        return ["No tie points: nothing could be matched."]
    caption = (
        "Every matched window, coloured by its distance to the final transform. Hollow points disagree with the "
        "others and were left out."
    )
    return [Drawing("points", "Tie points", caption, svg)]


def _residuals(result: Result, is_found: bool) -> list[Drawing | str]:
    """Drawings of the residuals; none without points."""
    residuals = residuals_of(result)
    if residuals is None:
        return ["No residuals: no tie point was kept."] if len(result.tie_points) else []
    median = pixels(plain(result.quality.residual_median_px))
    far = (
        "Distance of each point to the final transform. It includes the noise of the single point, so it is "
        "usually wider than the predicted error of the alignment."
        if is_found
        else "Distance of each point to a transform that is not reliable: it is no measure of the error."
    )
    where_to = (
        "The same residuals by direction."
        + (" A cloud that is round and centred shows no systematic error;" if is_found else "")
        + " the cross is their mean (bias) and standard deviation (sigma) along each axis."
    )
    circle = " and the circle of the predicted CE90." if is_found else "."
    alt = f"Scatter of residual dx against dy with their bias{circle}"
    bars = histogram(result, residuals, f"Histogram of residuals, median {median}.")
    return [
        Drawing("histogram", "How far tie points are off", far, bars),
        Drawing("scatter", "In which direction they are off", where_to, scatter(result, residuals, alt)),
    ]


def _local(result: Result, is_found: bool) -> Drawing | str:
    length = local_length(result)
    if float(length.max()) < NOTHING_PX:
        if not is_found:
            return "No local displacement: no alignment was found."
        return "No local displacement: one shift, rotation, scale and shear explain everything."
    return Drawing(
        "local",
        "Local displacement beyond the affine",
        "What one shift, rotation, scale and shear for the whole image cannot explain: relief, sensor geometry, "
        "mosaicking.",
        local_map(result, f"Map of the local displacement, {pixels(plain(result.quality.local_rms_px))} RMS.", length),
    )
