"""The web application: page, tiles, arrows and points of one scene."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from somareg.errors import SomaregError
from somareg.types import BoolArray
from somareg.view.cache import Cache
from somareg.view.guard import Guard
from somareg.view.page import describe, page_asset, render_page
from somareg.view.scene import Scene

log = logging.getLogger("somareg.view")

CACHE_BYTES = 128 * 1024 * 1024
KEEP = {"cache-control": "private, max-age=3600"}  # addresses hold a token that no other run has
FRESH = {"cache-control": "no-store"}


def make_app(scene: Scene, token: str, port: int) -> Guard:
    """The application for one scene.

    Args:
        scene: open; it stays the caller's to close.
        token: every path begins with it.
        port: that the server listens on.
    """
    handlers = _Handlers(scene)
    routes = [
        Route("/", handlers.page),
        Route("/scene.json", handlers.scene_json),
        Route("/assets/{name:path}", handlers.asset),
        Route("/tiles/{name}/{level:int}/{column:int}/{row:int}.png", handlers.tile),
        Route("/arrows.json", handlers.arrows),
        Route("/points.json", handlers.points),
        Route("/points/{number:int}.json", handlers.point),
    ]
    told: dict[Any, Any] = {404: _not_found, 405: _not_found, SomaregError: _told, Exception: _unexpected}
    return Guard(Starlette(routes=routes, exception_handlers=told), token, port)


class _Handlers:
    """One method per address. They are plain functions, which Starlette runs on threads."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._cache = Cache(CACHE_BYTES)

    def page(self, request: Request) -> Response:
        return HTMLResponse(render_page(self._scene), headers=FRESH)

    def scene_json(self, request: Request) -> Response:
        return JSONResponse(describe(self._scene), headers=FRESH)

    def asset(self, request: Request) -> Response:
        try:
            content, kind = page_asset(request.path_params["name"])
        except KeyError:
            return _nothing()
        return Response(content, media_type=kind, headers=KEEP)

    def tile(self, request: Request) -> Response:
        name, level, column, row = (request.path_params[key] for key in ("name", "level", "column", "row"))
        try:
            content = self._cache.get((name, level, column, row), partial(self._draw, name, level, column, row))
        except KeyError:
            return _nothing()
        return Response(content, media_type="image/png", headers=KEEP)

    def arrows(self, request: Request) -> Response:
        query = request.query_params
        bounds, spacing = _bounds(request), _number(query.get("spacing"))
        if bounds is None or spacing is None or query.get("part", "whole") not in ("whole", "local"):
            return _nothing()
        part: Any = query.get("part", "whole")
        return JSONResponse(self._scene.arrows.over(bounds, spacing, part), headers=FRESH)

    def points(self, request: Request) -> Response:
        bounds = _bounds(request)
        if bounds is None or self._scene.points is None:
            return _nothing()
        return JSONResponse(self._scene.points.in_view(bounds), headers=FRESH)

    def point(self, request: Request) -> Response:
        try:
            if self._scene.points is None:
                return _nothing()
            return JSONResponse(self._scene.points.figures(request.path_params["number"]), headers=FRESH)
        except IndexError:
            return _nothing()

    def _draw(self, name: str, level: int, column: int, row: int) -> bytes:
        return encode(*self._scene.tile(name, self._scene.pyramid.tile(level, column, row)))


def encode(colours: NDArray[np.uint8], mask: BoolArray | NDArray[np.uint8]) -> bytes:
    """A PNG of colours (h, w) or (h, w, 3), transparent outside a mask (h, w) or as opaque as it says, 0-255."""
    opacity = np.where(mask, np.uint8(255), np.uint8(0)) if mask.dtype == bool else mask
    bands = [colours] * 3 if colours.ndim == 2 else [colours[..., band] for band in (2, 1, 0)]  # OpenCV: blue first
    # Fast rather than small: the reader is on the same machine.
    return cv2.imencode(".png", np.dstack([*bands, opacity]), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _bounds(request: Request) -> tuple[float, float, float, float] | None:
    """The query's `bounds`: left, top, right, bottom in reference pixels."""
    numbers = [_number(part) for part in request.query_params.get("bounds", "").split(",")]
    if len(numbers) != 4 or None in numbers:
        return None
    left, top, right, bottom = (float(n) for n in numbers if n is not None)
    return left, top, right, bottom


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _nothing() -> Response:
    return PlainTextResponse("not found\n", status_code=404, headers=FRESH)


def _not_found(request: Request, error: Exception) -> Response:
    return _nothing()


def _told(request: Request, error: Exception) -> Response:
    log.warning("%s", error)
    return PlainTextResponse(f"{error}\n", status_code=500, headers=FRESH)


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected %s: %s", type(error).__name__, error)
    return PlainTextResponse("unexpected error; see the terminal\n", status_code=500, headers=FRESH)
