"""The page and what it asks for first: everything but pictures."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from somareg.report.html import asset, page_environment, verdict_parts
from somareg.report.words import IMAGE_NAMES
from somareg.view.pyramid import TILE_PX
from somareg.view.scene import Scene
from somareg.view.worst import worst_places

_OWN = {
    "view.css": "text/css",
    "view.js": "text/javascript",
    "layers.js": "text/javascript",
    "link.js": "text/javascript",
    "loupe.js": "text/javascript",
    "marks.js": "text/javascript",
    "places.js": "text/javascript",
    "popup.js": "text/javascript",
    "ol/ol.css": "text/css",
    "ol/ol.js": "text/javascript",
    "ol/LICENSE.md": "text/plain",
    "ol/THIRD-PARTY.txt": "text/plain",
}
"""Every file that can be fetched besides those made for a request, with its type: no path leads to any other."""

_SHARED = {"base.css": "text/css", "compare.css": "text/css", "compare.js": "text/javascript"}
"""The same of the files that the report is made of, too."""


KEYS = (
    ("1 2 3 4", "Swipe, checkerboard, blink, overlay"),
    ("[ ]", "Turn the slider of the view"),
    ("Space", "Swap the images; in blink pause and play"),
    ("N Shift+N", "Next worst place, and the one before"),
    ("E Shift+E", "Edges, aligned and before"),
    ("X", "Map of the expected error"),
    ("A", "Displacement arrows"),
    ("P", "Tie points; a click on one shows its figures"),
    ("L B", "Loupe; with the image before, too"),
    ("C", "Copy the link to this view"),
    ("0", "Fit the whole image"),
    ("+ −", "Zoom, as the wheel does"),
    ("← → ↑ ↓", "Move, as dragging does"),
    ("Esc", "Close what is open"),
    ("?", "These keys"),
)
"""Keys of the page, separated by blanks, and what they do."""


def render_page(scene: Scene) -> str:
    """The page as HTML; all that it loads lies beside it."""
    template = page_environment("somareg.view").get_template("view.html.j2")
    record = scene.folder.record
    page: str = template.render(
        **verdict_parts(record),
        images=[(name, label) for name, label in IMAGE_NAMES.items() if name in scene.images],
        layers=[(name, layer.title, layer.caption) for name, layer in scene.layers.items()],
        edges=[(name, layer.source.title) for name, layer in scene.edges.items()],
        has_points=scene.points is not None,
        has_local=scene.arrows.has_local,
        keys=KEYS,
        missing=scene.notes,
        places=record.error_map.places if record.error_map else [],
    )
    return page


def describe(scene: Scene) -> dict[str, Any]:
    """Sizes, names and legends for the script of the page."""
    pyramid, record = scene.pyramid, scene.folder.record
    grid = scene.folder.estimate.reference
    placed = grid.crs is not None and grid.control is None
    return {
        "width": pyramid.width,
        "height": pyramid.height,
        "tile": TILE_PX,
        "steps": pyramid.steps,
        "images": {name: label for name, label in IMAGE_NAMES.items() if name in scene.images},
        "layers": {name: layer.legend() for name, layer in scene.layers.items()},
        "edges": {name: layer.legend() for name, layer in scene.edges.items()},
        "worst": worst_places(record.error_map, grid),
        "points": scene.points is not None,
        "metres": record.figures.edges_m[0] if record.figures.edges_m else None,
        "crs": record.reference.crs_name if placed else None,
        "transform": grid.transform if placed else None,
    }


def page_asset(name: str) -> tuple[bytes, str]:
    """A file of the page and its type.

    Raises:
        KeyError: it is none of them.
    """
    if name in _SHARED:
        return asset(name).encode(), _SHARED[name]
    kind = _OWN[name]
    return files("somareg.view").joinpath("assets", *name.split("/")).read_bytes(), kind
