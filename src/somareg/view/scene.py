"""An open result: the images and layers of the map, by name."""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from somareg.config import RegisterConfig, make_config
from somareg.errors import ConfigError, SomaregError, guarded
from somareg.geometry import AffineTransform, compose
from somareg.io.displacement import node_step
from somareg.io.georef import georeference
from somareg.io.memory import block_cache
from somareg.io.source import open_source
from somareg.report.previews import limits_of, picture_of
from somareg.report.words import IMAGE_NAMES
from somareg.types import BoolArray, FloatArray, Modality, Transform
from somareg.view.arrows import Arrows
from somareg.view.edges import EdgeLayer, edge_sources
from somareg.view.folder import Folder
from somareg.view.images import SceneImage
from somareg.view.layers import CertaintyLayer, ErrorLayer, Layer, LocalLayer, ResidualLayer
from somareg.view.points import Points
from somareg.view.pyramid import Area, Pyramid

log = logging.getLogger("somareg.view")

LIMITS_PX = 1024
"""Longer side of the picture that black and white points are taken from, as in the report."""


class Scene:
    """Everything that the map can show.

    Args:
        folder: from `find_folder`.

    Attributes:
        folder: as given.
        pyramid: of the reference's pixels.
        images: "reference", "before" and "after", those that can be shown.
        layers: "error", "certainty", "local" and "residual", those that can be shown; on no-go neither of the
            first two.
        edges: "edges-after" and "edges-before", or "edges-reference": of SAR, over what they can be compared with.
        points: the tie points, None without.
        arrows: the displacement.
        notes: sentences about what cannot be shown.

    Raises:
        ReadError, InputError, GeoreferenceError: a file is damaged or does not fit the others.
    """

    @guarded
    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        grid = folder.estimate.reference
        self.pyramid = Pyramid(grid.width, grid.height)
        self.notes = list(folder.missing)
        self._settings = self._read_settings()
        self.images: dict[str, SceneImage] = {}
        self.layers: dict[str, Layer] = {}
        self.edges: dict[str, EdgeLayer] = {}
        self.points: Points | None = None
        self._limits: dict[str, FloatArray] = {}
        self._stack = ExitStack()  # the last opened is closed first, as GDAL environments want it
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=block_cache()))
        try:
            self._open_images()
            self._open_layers()
            self._open_edges()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def tile(self, name: str, area: Area) -> tuple[NDArray[np.uint8], BoolArray | NDArray[np.uint8]]:
        """Colours (h, w) or (h, w, 3) of an image or layer, and where it has any (h, w); of edges how opaque, 0-255.

        Raises:
            KeyError: it has no such name.
            ReadError: a file is damaged there.
        """
        if name in self.layers:
            return self.layers[name].tile(area)
        return self.edges[name].tile(area) if name in self.edges else self._picture(name, area)

    def _picture(self, name: str, area: Area) -> tuple[NDArray[np.uint8], BoolArray]:
        data, mask = self.images[name].picture(area)
        mask = mask & self._inside(area)
        return picture_of(data, mask, self.limits("reference" if name == "reference" else "moving")), mask

    def limits(self, role: str) -> FloatArray:
        """Black and white points: those of the aligned picture serve for both pictures of the moving image."""
        if role not in self._limits:
            names = ("reference",) if role == "reference" else ("after", "before")
            name = next(name for name in names if name in self.images)
            modality: Modality = getattr(self._settings, f"{role}_modality")
            self._limits[role] = limits_of(*self.images[name].picture(self.pyramid.overview(LIMITS_PX)), modality)
        return self._limits[role]

    def warm_up(self) -> None:
        """Read what every first look needs; errors are told when the picture is asked for."""
        with suppress(SomaregError):
            for name in self.images:
                self.tile(name, self.pyramid.tile(0, 0, 0))
        with suppress(SomaregError):
            if self.points is not None:
                len(self.points)
        with suppress(SomaregError):
            for layer in self.edges.values():
                layer.warm_up()

    def _inside(self, area: Area) -> BoolArray:
        """(h, w) True where a pixel of an area lies in the reference."""
        x, y = np.moveaxis(area.points, -1, 0)
        return np.asarray((x > -0.5) & (y > -0.5) & (x < self.pyramid.width - 0.5) & (y < self.pyramid.height - 0.5))

    def _read_settings(self) -> RegisterConfig:
        """The options that the report tells; it may come from a stranger."""
        told = self.folder.record.settings
        try:
            return make_config({name: told[name] for name in RegisterConfig.model_fields if name in told})
        except ConfigError as error:
            self.notes.append(f"The report's settings are not understood ({error}); images are shown without them.")
            return RegisterConfig(moving_modality="other", reference_modality="other")

    def _open_images(self) -> None:
        folder, settings = self.folder, self._settings
        if folder.reference is not None:
            self._open("reference", folder.reference, "reference", settings.reference_nodata)
        if folder.moving is not None:
            self._open("before", folder.moving, "moving", settings.moving_nodata)
            if folder.aligned is None:
                self._open("after", folder.moving, "moving", settings.moving_nodata)
        if folder.aligned is not None:
            self._open("after", folder.aligned, "aligned", None)

    def _open(self, name: str, path: Path, role: str, nodata: float | None) -> None:
        """Open an image; one that is unusable is told and left out, the rest can still be looked at."""
        estimate = self.folder.estimate
        expected = estimate.moving if role == "moving" else estimate.reference
        try:
            named = self.folder.record.settings.get(f"{role}_bands")
            image = SceneImage(path, role, nodata, named=named if isinstance(named, list) else None)
        except SomaregError as error:
            self.notes.append(f"{IMAGE_NAMES[name]} is not shown: {error}")
            return
        corner = _corner(self.folder.record.settings.get("frame")) if role == "reference" else None
        if corner is not None and image.grid.shape != expected.shape:
            image.to_pixels = AffineTransform.from_parameters(shift=corner)
        elif image.grid.shape != expected.shape:
            size = f"{image.grid.width} x {image.grid.height} px, not {expected.width} x {expected.height}"
            self.notes.append(f"{IMAGE_NAMES[name]} is not shown: {path} is {size} as when it was registered.")
            image.close()
            return
        if role == "moving":
            start = self._start()
            image.to_pixels = start if name == "before" else compose(start, estimate.correction)
            if name == "before" and not estimate.reference.is_georeferenced:
                image.to_pixels = self._centred()
        self._stack.callback(image.close)
        self.images[name] = image

    def _start(self) -> Transform:
        """Reference pixels -> moving pixels by the georeferences alone."""
        return georeference(self.folder.estimate.reference, self.folder.estimate.moving)

    def _centred(self) -> AffineTransform:
        """Images without a georeference are laid centre on centre, as where the search begins."""
        reference, moving = self.folder.estimate.reference, self.folder.estimate.moving
        shift = (moving.width - reference.width) / 2, (moving.height - reference.height) / 2
        return AffineTransform.from_parameters(shift=shift)

    def _open_layers(self) -> None:
        folder = self.folder
        affine = _affine(folder.record.affine.matrix)
        with open_source(folder.displacement, role="displacement", tell=False) as source:
            step, count = node_step(source.tags, folder.displacement), source.count
        if self._is_unreliable:
            count = 2  # files of earlier versions tell of a certainty and an error all the same
        self.arrows = Arrows(folder.estimate, affine, folder.record.figures.edges_m, self._certainty)
        if count >= 4:
            error = ErrorLayer(folder.displacement, step, self.pyramid, folder.record.figures.metres_per_pixel)
            self._stack.callback(error.close)
            self.layers["error"] = error
        if count >= 3:
            certainty = CertaintyLayer(folder.displacement, step, self.pyramid)
            self._stack.callback(certainty.close)
            self.layers["certainty"] = certainty
        if affine is not None:
            self.layers["local"] = LocalLayer(folder.estimate.correction, affine, self.pyramid)
        if folder.points is not None:
            self.points = Points(folder.points, folder.estimate)
            # Files of earlier versions have no map of the expected error; on no-go points tell nothing of it.
            is_first = "error" not in self.layers and not self._is_unreliable
            self.layers["residual"] = ResidualLayer(self.points, self.pyramid, is_first=is_first)

    def _open_edges(self) -> None:
        kinds = self._settings.moving_modality, self._settings.reference_modality
        for name, source in edge_sources(*kinds).items():
            if source.image in self.images:
                draw = partial(self._picture, source.image)
                kind = kinds[source.image == "reference"]
                self.edges[name] = EdgeLayer(source, draw, kind, self.pyramid)

    def _certainty(self, xy: FloatArray) -> FloatArray:
        layer: Any = self.layers.get("certainty")
        if layer is None:
            return np.full(len(xy), 0.0 if self._is_unreliable else 1.0)
        return np.asarray(layer.at(xy))

    @property
    def _is_unreliable(self) -> bool:
        """Nothing is claimed of how good the estimate is."""
        return self.folder.record.verdict.decision == "no-go"


def _corner(frame: object) -> tuple[float, float] | None:
    """Where in the reference the outputs begin, when they cover a part of it."""
    if not isinstance(frame, list) or len(frame) != 4 or not all(isinstance(value, int) for value in frame):
        return None
    return float(frame[0]), float(frame[1])


def _affine(matrix: list[list[float | None]]) -> AffineTransform | None:
    values = np.array(matrix, float)
    if values.shape != (2, 3) or not np.isfinite(values).all():
        return None
    return AffineTransform(values)
