"""Where the demo pair is: real Sentinel-1 and Sentinel-2 imagery inside the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "demo"


def sample_pair() -> tuple[Path, Path]:
    """Paths of the demo's (moving SAR, reference optical) GeoTIFFs.

    Raises:
        ReadError: the installation lacks them.
    """
    from somareg.errors import ReadError

    pair = FOLDER / "sar.tif", FOLDER / "optical.tif"
    for path in pair:
        if not path.is_file():
            raise ReadError(f"{path}: the demo image is missing from this installation; reinstall somareg")
    return pair
