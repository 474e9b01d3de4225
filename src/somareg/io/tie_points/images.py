"""What is known of the two images that tie points join."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from somareg.io.source import open_source
from somareg.types import Grid, Header, Raster

ImageLike = str | Path | Raster | Header | Grid
"""A raster file (only its header is read), a raster in memory, or a grid."""


@dataclass(frozen=True, eq=False)
class Images:
    """The grids of the two images, as far as they are known.

    Attributes:
        reference, moving: None where not given.
        reference_file, moving_file: None where the grid came without a file.
    """

    reference: Grid | None = None
    moving: Grid | None = None
    reference_file: Path | None = None
    moving_file: Path | None = None


def known_images(reference: ImageLike | None, moving: ImageLike | None) -> Images:
    """Grids and files of the two images.

    Raises:
        ReadError, UnsupportedError, GeoreferenceError: a file cannot be opened, see `open_source`.
    """
    fixed, moved = _known(reference, "reference"), _known(moving, "moving")
    return Images(fixed[0], moved[0], fixed[1], moved[1])


def _known(image: ImageLike | None, role: str) -> tuple[Grid | None, Path | None]:
    if image is None or isinstance(image, Grid):
        return image, None
    if isinstance(image, Raster | Header):
        return image.grid, image.path
    with open_source(image, role=role) as source:
        return source.grid, Path(image)
