"""The verdict in words, and formatting of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from somareg.report.plain import Length
from somareg.report.record import Report
from somareg.types import Decision
from somareg.types.words import metres, pixels

IMAGE_NAMES = {"reference": "Reference", "before": "Moving, before", "after": "Moving, aligned"}
"""Names of modalities in sentences."""


@dataclass(frozen=True, slots=True)
class VerdictWords:
    """The texts at the top of the page.

    Attributes:
        label: one or two words, as on a stamp.
        headline: decision, chance and expected error, the same in every output.
        advice: consequence of the decision for the use of the images.
        summary: the findings in numbers; "" on no-go.
        steps: next steps, in order.
    """

    label: str
    headline: str
    advice: str
    summary: str
    steps: tuple[str, ...]


_ADVICE: dict[Decision, tuple[str, str]] = {
    "go": ("Go", "The images are aligned. Ready to use."),
    "review": ("Review", "Probably aligned. Look before you use it."),
    "no-go": ("No-go", "No reliable alignment was found. Do not use it."),
}

_REVIEW_STEPS = (
    "Swipe over sharp lines (roads, shores, field edges) in the centre and in all four corners.",
    "Read the checks that are not good below; low coverage means that some parts are extrapolated.",
    "If lines still step at the divider, run again with tie points (--tie-points), or with --search full if the images "
    "may be rotated or scaled against each other.",
)
_NO_GO_STEPS = (
    "Check that both images show the same ground, and that their georeferences are right.",
    "Check the notes below: were the SAR scale, the bands and the nodata value understood correctly?",
    "Run again with --search full (any rotation, scale 0.7 to 1.4) or a larger --search-radius.",
    "Open water, desert, snow and cloud give nothing to match: choose another date or a larger area.",
)


def verdict_words(record: Report) -> VerdictWords:
    """Sentences for the verdict of a record."""
    label, advice = _ADVICE[record.verdict.decision]
    return VerdictWords(label, record.headline, advice, _summary(record), _steps(record))


def _summary(record: Report) -> str:
    if record.verdict.decision == "no-go":
        return ""
    return f"The images were {length(record.figures.misregistration_before)} apart before."


def _steps(record: Report) -> tuple[str, ...]:
    aligned = "aligned.tif" in record.outputs
    if record.verdict.decision == "go":
        first = (
            "Use aligned.tif: the moving image on the grid of the reference."
            if aligned
            else "Save the result to get aligned.tif."
        )
        return (first, "Apply the same alignment to other bands, dates or masks with somareg warp (see below).")
    if record.verdict.decision == "review":
        return _REVIEW_STEPS
    forced = (
        "aligned.tif was written because it was asked for; do not measure in it."
        if aligned
        else "aligned.tif was not written."
    )
    return (forced, *_NO_GO_STEPS)


def edges_from(moving: str, reference: str) -> str:
    """The image whose edges close-ups show: SAR, because speckle hides lines drawn over it; else the moving image.

    Args:
        moving, reference: modalities.

    Returns:
        "moving" or "reference".
    """
    return "reference" if reference == "sar" and moving != "sar" else "moving"


def edges_words(moving: str, reference: str) -> str:
    """The sentence under the close-ups about their edges."""
    above, below = ("moving", "reference") if edges_from(moving, reference) == "moving" else ("reference", "moving")
    return f"Edges of the {above} image in colour, over the {below} image as aligned."


def length(value: Length) -> str:
    """Format a length in both units: "0.46 px (4.6 m)"."""
    return pixels(value.px) + (f" ({metres(value.m)})" if value.m is not None else "")


def file_size(count: int) -> str:
    """Format bytes: "1.4 MB"."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def nice(value: float, *, up: bool = False) -> float:
    """The nearest 1, 2 or 5 times a power of ten below `value` (above with `up`); 0 for 0 and less."""
    if not value > 0 or not math.isfinite(value):
        return 0.0
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    steps = (1.0, 2.0, 5.0, 10.0)
    near = [
        step * power
        for step in steps
        if (step * power >= value * (1 - 1e-9) if up else step * power <= value * (1 + 1e-9))
    ]
    return near[0] if up else near[-1]


def on_ground(length_px: float, pixel_m: tuple[float, float] | None) -> str:
    """Format the metres of a length: "8.33 m", or in both directions when a pixel is no square: "4.17 m across, 11.2 m
    down"; "" without a georeference.

    Args:
        length_px: pixels.
        pixel_m: upper and left edge of a pixel, metres.
    """
    if pixel_m is None:
        return ""
    across, down = (length_px * edge for edge in pixel_m)
    if abs(across - down) <= 0.01 * max(across, down):
        return f"{math.sqrt((across**2 + down**2) / 2):.3g} m"
    return f"{across:.3g} m across, {down:.3g} m down"


def arrow_key(length_px: float, factor: float, pixel_m: tuple[float, float] | None) -> str:
    """The label of a sample arrow of `length_px` that is drawn `factor` times as long; see `on_ground`."""
    ground = "" if pixel_m is None else f" = {on_ground(length_px, pixel_m)}"
    scale = "drawn to scale" if factor == 1 else f"drawn {factor:g} times {'longer' if factor > 1 else 'as long'}"
    return f"{length_px:g} px{ground}, {scale}"
