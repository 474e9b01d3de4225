"""Edges of an image as a see-through layer: the same at a place whatever tile shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.report.edges import EDGE, slopes, smoothing_of
from somareg.report.words import edges_from
from somareg.types import BoolArray, FloatArray, Modality
from somareg.view.pyramid import Area, Pyramid

MARGIN_PX = 14
"""Around a tile: as far as smoothing and thinning look."""
BEGINS, FULL = 0.70, 0.88
"""Shares of all pixels that change less than an edge that is just seen, and than one in full colour."""
_EQUAL = 1e-4
SAMPLES = 3  # windows along each side of the image that the two are measured in, at each level
SAMPLE_PX = 192

EARLIER = (53, 208, 255)
"""Colour of edges where they lay before: told apart from `EDGE` by colour-blind readers, too."""

Draw = Callable[[Area], tuple[NDArray[np.uint8], BoolArray]]


@dataclass(frozen=True)
class EdgeSource:
    """An image that gives edges.

    Attributes:
        image: its name in the scene.
        title: of the layer.
        colour: of its lines.
        over: names of the images that it is laid over.
    """

    image: str
    title: str
    colour: tuple[int, int, int]
    over: tuple[str, ...]


def edge_sources(moving: Modality, reference: Modality) -> dict[str, EdgeSource]:
    """Layers of edges, by name: of SAR where there is some, as in the close-ups; otherwise of the moving image.

    Args:
        moving, reference: modalities.
    """
    role = edges_from(moving, reference)
    kind = moving if role == "moving" else reference
    whose = "SAR edges" if kind == "sar" else f"Edges of the {role} image"
    if role == "reference":
        return {"edges-reference": EdgeSource("reference", whose, EDGE, ("after", "before"))}
    return {
        "edges-after": EdgeSource("after", f"{whose}, aligned", EDGE, ("reference",)),
        "edges-before": EdgeSource("before", f"{whose}, before", EARLIER, ("reference",)),
    }


class EdgeLayer:
    """Thin lines where the picture of an image changes most, brighter to darker or darker to brighter alike.

    Every pixel is decided by its own neighbourhood and by two figures for the whole level of the pyramid, so tiles meet
    without seams; hysteresis, which follows an edge from tile to tile, would leave some. The figures are shares of all
    pixels, so that as much is drawn at every zoom.

    Args:
        source: what it shows.
        draw: the picture of the image and its mask in an area.
        kind: modality of the image.
        pyramid: of the map.
    """

    def __init__(self, source: EdgeSource, draw: Draw, kind: Modality, pyramid: Pyramid) -> None:
        self.source = source
        self._draw, self._pyramid = draw, pyramid
        self._smooth_px = smoothing_of(kind)
        self._ends: dict[float, tuple[float, float]] = {}
        self._lock = Lock()

    def tile(self, area: Area) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Colours (h, w, 3) and their opacity (h, w), 0-255.

        Raises:
            ReadError: the file is damaged there.
        """
        dx, dy, known = self._slopes(area)
        inner = slice(MARGIN_PX, MARGIN_PX + area.height), slice(MARGIN_PX, MARGIN_PX + area.width)
        begins, full = self._scale(area.step)
        lines = thinned(dx, dy)[inner]
        opacity = np.where(known[inner], np.clip((lines - begins) / (full - begins), 0, 1), 0)
        colours = np.full((*opacity.shape, 3), self.source.colour, np.uint8)
        return colours, np.rint(255 * opacity).astype(np.uint8)

    def warm_up(self) -> None:
        """Measure every level, so that no first tile has to wait for it.

        Raises:
            ReadError: the file is damaged.
        """
        for step in self._pyramid.steps:
            self._scale(step)

    def legend(self) -> dict[str, Any]:
        """What the page says about it."""
        return {
            "title": self.source.title,
            "colour": "#{:02x}{:02x}{:02x}".format(*self.source.colour),
            "over": list(self.source.over),
        }

    def _slopes(self, area: Area) -> tuple[NDArray[np.float32], NDArray[np.float32], BoolArray]:
        return slopes(*self._draw(area.grown(MARGIN_PX)), self._smooth_px)

    def _scale(self, step: float) -> tuple[float, float]:
        """Slopes at which a line begins, and from which it has its full colour, for all tiles of a level."""
        with self._lock:  # whoever comes second waits and does not read it again
            if step not in self._ends:
                self._ends[step] = self._measured(step)
            return self._ends[step]

    def _measured(self, step: float) -> tuple[float, float]:
        sizes: list[FloatArray] = []
        for area in self._samples(step):
            dx, dy, known = self._slopes(area)
            sizes.append(np.hypot(dx, dy)[known])
        pooled = np.concatenate(sizes)
        begins, full = np.quantile(pooled, (BEGINS, FULL)) if pooled.size else (1.0, 1.0)
        return float(begins), max(float(full), float(begins) + 1.0)  # flat ground has none

    def _samples(self, step: float) -> list[Area]:
        """Windows spread evenly over the image; all of it where it is small."""
        sizes = [max(1, round(size / step)) for size in (self._pyramid.width, self._pyramid.height)]
        if max(sizes) <= SAMPLES * SAMPLE_PX:
            return [Area(0, 0, step, *sizes)]
        width, height = (min(SAMPLE_PX, size) for size in sizes)
        columns, rows = (
            np.linspace(0, size - side, SAMPLES) for size, side in zip(sizes, (width, height), strict=True)
        )
        return [
            Area(float(round(x)) * step, float(round(y)) * step, step, width, height) for y in rows for x in columns
        ]


def thinned(dx: NDArray[np.float32], dy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths (h, w) of slopes (h, w) that are largest across their edge; 0 elsewhere."""
    size = np.hypot(dx, dy)
    height, width = size.shape
    padded = np.pad(size, 1, mode="edge")
    sector = np.rint(np.arctan2(dy, dx) / (np.pi / 4)).astype(int) % 4  # to the right, both down, down, left and down
    steps = np.array([(0, 1), (1, 1), (1, 0), (1, -1)])[sector]
    y, x = np.ogrid[1 : height + 1, 1 : width + 1]
    ahead = padded[y + steps[..., 0], x + steps[..., 1]]
    behind = padded[y - steps[..., 0], x - steps[..., 1]]
    # Of two that are as large but for rounding, always the same one: no line jumps between them.
    return np.where((size > (1 + _EQUAL) * behind) & (size >= (1 - _EQUAL) * ahead), size, 0)
