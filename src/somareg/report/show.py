"""A result in a notebook: a fragment of HTML without scripts, and the figure of `Result.plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import UnsupportedError, guarded
from somareg.report.html import page_environment, verdict_parts
from somareg.report.pictures import jpeg_uri, reduced
from somareg.report.record import build_record
from somareg.types import Result

INSTALL = "pip install 'somareg[plot]'"
PICTURES_BYTES = 260_000
"""Most bytes of all pictures of a fragment as text; the rest takes a few thousand more."""
WIDEST = 420  # longer side of a picture, pixels
_SMALLEST = 24
_QUALITY = 88  # JPEG quality
_REASONS = 4


@guarded
def show(result: Result, what: str, panels: Sequence[str] = ()) -> Any:
    """Render a result: "html" for `Result._repr_html_`, "figure" with these panels for `Result.plot`."""
    if what == "html":
        return fragment(result)
    need_matplotlib()
    from somareg.report.plot import plot

    return plot(result, panels)


def need_matplotlib() -> None:
    """Make sure that matplotlib can be imported.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(f"a figure needs {error.name}, which is not installed; {INSTALL}") from error


def fragment(result: Result) -> str:
    """Verdict, key figures, and sliders that reveal the reference under the moving image before and after.

    All texts are escaped, styles are inline, and nothing is loaded, so that it works in a notebook that runs no
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
    """Pictures of one size, (h, w) or (h, w, 3), as data URIs of JPEGs, reduced until they fit.

    Args:
        pictures: the first one is used twice.
        limit: characters of all URIs, the first counted twice.
    """
    longest = min(WIDEST, max(pictures[0].shape[:2]))
    while True:
        uris = [jpeg_uri(reduced(picture, longest), _QUALITY) for picture in pictures]
        total = len(uris[0]) + sum(map(len, uris))
        if total <= limit or longest <= _SMALLEST:
            return uris
        longest = max(_SMALLEST, min(longest - 1, int(0.97 * longest * (limit / total) ** 0.5)))
