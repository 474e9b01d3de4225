"""What a notebook shows of a result: a fragment of HTML that needs no script, and the figure of `Result.plot`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from somareg.errors import guarded
from somareg.report.html import page_environment, verdict_parts
from somareg.report.pictures import data_uri, encode_png
from somareg.report.record import build_record
from somareg.types import Result

PICTURES_BYTES = 260_000
"""All pictures of a fragment together, as text; the words around them take a few thousand more."""
WIDEST = 420  # pixels of the longer side of a picture
_SMALLEST = 24
_REASONS = 4


@guarded
def show(result: Result, what: str, panels: Sequence[str] = ()) -> Any:
    """A result for the eye: "html" for `Result._repr_html_`, "figure" with these panels for `Result.plot`."""
    if what == "html":
        return fragment(result)
    from somareg.report.plot import plot  # brings matplotlib

    return plot(result, panels)


def fragment(result: Result) -> str:
    """Verdict, key figures, and the reference under the moving image before and after, to be drawn over each other.

    Every text is escaped, styles stand at their elements, and nothing is loaded: it works in a notebook that runs no
    script, and beside other results.
    """
    record = build_record(result, {})
    previews = result.previews
    names = ("reference", "before", "after")
    uris = small_pictures([getattr(previews, name) for name in names])
    rows, columns = previews.reference.shape[:2]
    page: str = (
        page_environment()
        .get_template("notebook.html.j2")
        .render(
            **verdict_parts(record),
            reasons=record.verdict.reasons[:_REASONS],
            images=dict(zip(names, uris, strict=True)),
            ratio=f"{columns} / {rows}",
        )
    )
    return page


def small_pictures(pictures: Sequence[NDArray[np.uint8]], limit: int = PICTURES_BYTES) -> list[str]:
    """Pictures of one size, (h, w) or (h, w, 3), as data URIs of PNGs that are smaller until they fit.

    Args:
        pictures: the first one is used twice.
        limit: characters of all URIs, the first counted twice.
    """
    longest = min(WIDEST, max(pictures[0].shape[:2]))
    while True:
        uris = [data_uri(_small_png(picture, longest), "png") for picture in pictures]
        total = len(uris[0]) + sum(map(len, uris))
        if total <= limit or longest <= _SMALLEST:
            return uris
        longest = max(_SMALLEST, min(longest - 1, int(0.97 * longest * (limit / total) ** 0.5)))


def _small_png(picture: NDArray[np.uint8], longest: int) -> bytes:
    """Colours are reduced to 256: a third of the bytes."""
    rows, columns = picture.shape[:2]
    share = min(1.0, longest / max(rows, columns))
    size = max(1, round(columns * share)), max(1, round(rows * share))
    small = picture if share == 1 else np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    if small.ndim == 2:
        return encode_png(small)
    stream = io.BytesIO()
    Image.fromarray(small).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(stream, "PNG")
    return stream.getvalue()
