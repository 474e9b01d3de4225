"""Cut the demo pair that ships inside the wheel (src/somareg/data/demo) from a scene of the `volkov` set.

    python benchmarks/make_demo_sample.py --data DIR

Scene 201 (Santa Ana and Irvine, California): freeways, an airport and canals, shipped with a real misregistration of
about 5-6 px, mostly along x. Pixels are copied, never resampled, so the error in the files is the one in the source.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

SCENE = "201"
SCENE_SIZE = 1024
SIZE = 672
ORIGIN = (160, 320)  # x, y of the crop's first pixel in the scene
CRS = "EPSG:3395"
TARGET = Path(__file__).resolve().parents[1] / "src" / "somareg" / "data" / "demo"

ATTRIBUTION = """\
Demo pair of somareg: sar.tif and optical.tif

Contains modified Copernicus Sentinel data 2020.

  sar.tif      Sentinel-1 GRD, VH, {sar}
               sensed {sar_date} (day.month.year)
  optical.tif  Sentinel-2 L1C, true colour, {optical}
               sensed {optical_date} (day.month.year)

Processed to display-scaled 8-bit images in EPSG:3395 (World Mercator) with pixels of 10 map metres, which are 8.3 m on
the ground there, by the author of the dataset "Optical-SAR-dataset" (github.com/VolkovVl/Optical-SAR-dataset), fragment
{fragment}, whose page says that the dataset is free to distribute and modify. Cropped here to {size} x {size} px from
pixel {origin} of the fragment, without resampling, and written as GeoTIFF. The misregistration between the two images
is that of the source.

Copernicus Sentinel data are available under free, full and open terms (Commission Delegated Regulation (EU)
No 1159/2013): use, copies and changes are allowed when the origin is named as in the first line.
"""


def read_scene(folder: Path, kind: str) -> NDArray[np.uint8]:
    """One image of the scene, cropped: (SIZE, SIZE, 3) uint8 in B, G, R order."""
    path = folder / kind / f"{SCENE}.webp"
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"error: cannot read {path}")
    x, y = ORIGIN
    crop = image[y : y + SIZE, x : x + SIZE]
    return np.ascontiguousarray(crop, dtype=np.uint8)


def crop_transform(corners: list[list[float]]) -> Affine:
    """Geotransform (corner convention) of the crop, from the map coordinates of the scene's four corners."""
    xs, ys = zip(*corners, strict=True)
    step_x = (max(xs) - min(xs)) / SCENE_SIZE
    step_y = (max(ys) - min(ys)) / SCENE_SIZE
    x, y = ORIGIN
    return Affine(step_x, 0.0, min(xs) + x * step_x, 0.0, -step_y, max(ys) - y * step_y)


def write(
    path: Path, bands: NDArray[np.uint8], names: tuple[str, ...], transform: Affine, tags: dict[str, str]
) -> None:
    """Write (C, H, W) uint8 as a tiled, deflate-compressed GeoTIFF."""
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": len(bands), "width": SIZE, "height": SIZE}
    profile |= {"crs": CRS, "transform": transform, "tiled": True, "blockxsize": 224, "blockysize": 224}
    profile |= {"compress": "deflate", "zlevel": 9, "predictor": 2, "interleave": "pixel"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        file.descriptions = names
        file.update_tags(**tags)
        if len(bands) == 1:
            file.colorinterp = (ColorInterp.gray,)
        else:
            file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def main() -> None:
    """Write the pair and its attribution."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds volkov/")
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args()

    folder = args.data / "volkov"
    scenes = {item["fragment_filename"]: item for item in json.loads((folder / "metadata.json").read_text())}
    about = scenes[f"{SCENE}.png"]
    transform = crop_transform(about["corners_EPSG:3395"])
    args.out.mkdir(parents=True, exist_ok=True)

    common = {"TIFFTAG_COPYRIGHT": "Contains modified Copernicus Sentinel data 2020"}
    sar = read_scene(folder, "sar")[None, :, :, 1]  # grey: the three channels agree to one level
    sar_tags = {"PRODUCT": about["sar_tile_name"], "SENSING_DATE": iso(about["sar_tile_sensing_date"])}
    write(args.out / "sar.tif", sar, ("VH (display-scaled)",), transform, common | sar_tags)

    optical = read_scene(folder, "optical").transpose(2, 0, 1)[::-1]
    optical_tags = {"PRODUCT": about["opt_tile_name"], "SENSING_DATE": iso(about["opt_tile_sensing_date"])}
    names = ("B4 red (display-scaled)", "B3 green (display-scaled)", "B2 blue (display-scaled)")
    write(args.out / "optical.tif", optical, names, transform, common | optical_tags)

    text = ATTRIBUTION.format(
        sar=about["sar_tile_name"],
        sar_date=about["sar_tile_sensing_date"],
        optical=about["opt_tile_name"],
        optical_date=about["opt_tile_sensing_date"],
        fragment=about["fragment_filename"],
        size=SIZE,
        origin=ORIGIN,
    )
    (args.out / "ATTRIBUTION.txt").write_text(text, encoding="utf-8")
    for path in sorted(args.out.iterdir()):
        print(f"{path.name:16} {path.stat().st_size / 1e3:8.1f} kB")


def iso(day_month_year: str) -> str:
    """`"04.11.2020"` -> `"2020-11-04"`."""
    day, month, year = day_month_year.split(".")
    return f"{year}-{month}-{day}"


if __name__ == "__main__":
    main()
