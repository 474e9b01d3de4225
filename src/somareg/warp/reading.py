"""Reading options of a raster: the user's, else those of the estimate's moving image when they are known to fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from somareg.config import GcpMethod, make_config
from somareg.io.paths import split
from somareg.io.raster import file_sha256
from somareg.types import Estimate, Grid, Reading

log = logging.getLogger("somareg.warp")

NO_MASK = "none"


@dataclass(frozen=True)
class Claims:
    """Facts about a raster from its own metadata.

    Attributes:
        grid: of its pixels.
        declares: whether it marks invalid pixels itself.
        is_classes: whether its values are classes, so that the nodata value of an image does not apply.
        path: of its file, None in memory.
        has_alpha: whether a band is flagged as alpha.
    """

    grid: Grid
    declares: bool
    is_classes: bool
    path: Path | None = None
    has_alpha: bool = False


def reading_for(claims: Claims, estimate: Estimate, said: Reading) -> Reading:
    """Settle the reading options of a raster.

    The user's options come first. The moving image itself is read as it was for the estimate; it is recognised by the
    checksum of its file, or by its grid when it was in memory. Any other raster is read by its own metadata; one that
    declares no invalid pixels and holds no classes gets the nodata value of the moving image.
    """
    remembered = estimate.reading
    own = claims.declares or claims.is_classes
    matters = (
        remembered.mask is not None
        or (remembered.nodata is not None and own)
        or (remembered.bands is not None and claims.has_alpha)
    )
    if matters and is_moving(claims, estimate):
        return _settled(said.over(remembered), [name for name in ("nodata", "mask") if getattr(said, name) is None])
    shared = Reading(gcp_method=remembered.gcp_method, assume_crs=remembered.assume_crs)
    if not own and said.nodata is None and remembered.nodata is not None:
        shared = replace(shared, nodata=remembered.nodata)
        log.warning(
            "%s declares no nodata value; it is taken to be %g, as in the moving image (nan for none)",
            claims.path or "the input",
            remembered.nodata,
        )
    return _settled(said.over(shared), [])


def as_named(path: str | Path, estimate: Estimate) -> str | Path:
    """The path of a raster; for the moving image's file, add the page or variable that was registered unless the user
    names one.
    """
    part = estimate.reading.part
    if part is None or split(path)[1] or not Path(path).is_file() or file_sha256(path) != estimate.moving_sha256:
        return path
    log.info("%s: %s is read, as the moving image of the estimate was", path, part)
    return f"{path}:{part}"


def make_reading(
    *,
    nodata: float | None = None,
    bands: str | Sequence[int] | None = None,
    mask: str | Path | None = None,
    mask_values: str | Sequence[int] | None = None,
    gcp_method: GcpMethod | None = None,
) -> Reading:
    """Validate the user's reading options; None leaves an option to the file.

    Raises:
        ConfigError: a bad value.
    """
    options = {"nodata": nodata, "bands": bands, "mask": mask, "mask_values": mask_values}
    cfg = make_config({**{f"moving_{name}": value for name, value in options.items()}, "gcp_method": gcp_method})
    return replace(Reading.of_moving(cfg.model_dump()), mask_values=cfg.moving_mask_values)


def is_moving(claims: Claims, estimate: Estimate) -> bool:
    """Whether a raster is the estimate's moving image."""
    here, there = claims.grid, estimate.moving
    if here.shape != there.shape:
        return False
    if estimate.moving_sha256:
        return claims.path is not None and file_sha256(claims.path) == estimate.moving_sha256
    return claims.path is None and here.transform == there.transform


def _settled(reading: Reading, remembered: list[str]) -> Reading:
    """Replace "none" by no mask, and log options that come from the estimate."""
    for name in remembered:
        if (value := getattr(reading, name)) is not None:
            log.info("%s %s, as the moving image of the estimate was read", name, value)
    return replace(reading, mask=None, mask_values=None) if reading.mask == NO_MASK else reading
