"""What the fuzzer spoils: small valid files of every format that is read, and the public call that reads each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint

import somareg
from somareg.batches.audit.scenes import find_scenes
from somareg.batches.run import planned
from somareg.errors import SomaregError
from somareg.geometry import AffineTransform
from somareg.io.displacement import read_estimate, write_displacement
from somareg.io.raster import read_raster
from somareg.io.shifts import read_shifts
from somareg.lab.train.config import load_config
from somareg.register.plan import plan
from somareg.register.tiles.journal import Journal
from somareg.report import build_record, load_report
from somareg.tiepoints.estimate import estimate_from_points
from somareg.tiepoints.formats import SUFFIXES, read_tie_points, write_tie_points
from somareg.types import Displacement, Estimate, Grid, Reading, TiePoints
from somareg.view.folder import find_folder
from tests.hdf5_files import GCOV, write_hdf5
from tests.t70_report.conftest import make_result

UTM = rasterio.CRS.from_epsg(32633).to_wkt()
REFERENCE = Grid(90, 80, (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), UTM)
MOVING = Grid(80, 90, (10.0, 0.0, 500020.0, 0.0, -10.0, 5000030.0), UTM)
PIXELS = np.random.default_rng(0).integers(1, 255, (2, 90, 80)).astype(np.uint8)
SHIFTED = AffineTransform.from_parameters(shift=(2.0, -1.0))
PLACE: dict[str, Any] = {"crs": MOVING.crs, "transform": rasterio.Affine(*MOVING.transform)}
ESTIMATE = Estimate(SHIFTED, REFERENCE, MOVING, Reading(nodata=7.0, bands=(1,)), "a" * 64)


@dataclass(frozen=True)
class Subject:
    """A format.

    Attributes:
        make: writes valid files into a folder.
        victims: names of those that are spoilt, one at a time.
        read: reads what lies in the folder.
    """

    make: Callable[[Path], object]
    victims: tuple[str, ...]
    read: Callable[[Path], object]


def image(path: Path, data: Any = PIXELS, driver: str = "GTiff", **profile: Any) -> Path:
    shape = {"count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype.name}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", driver=driver, **shape, **profile) as file:
        file.write(data)
    return path


def copied(path: Path, driver: str, **options: Any) -> None:
    """A format that GDAL only writes as a copy."""
    plain = image(path.with_suffix(".plain.tif"), PIXELS[:1], **PLACE)
    with warnings.catch_warnings(action="ignore"):
        rasterio.shutil.copy(plain, path, driver=driver, **options)
    plain.unlink()


def points() -> TiePoints:
    rng = np.random.default_rng(1)
    here, ones = rng.uniform(5, 75, (12, 2)), np.ones(12)
    there = here + np.array([2.0, -1.0])
    return TiePoints(here, there, there - here, 0.5 * ones, ones, ones > 0, 0.1 * ones)


def write_points(suffix: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        moving = image(folder / "moving image.tif", **PLACE)
        write_tie_points(folder / f"points{suffix}", points(), reference=REFERENCE, moving=moving, estimate=ESTIMATE)

    return make


def read_points(suffix: str) -> Callable[[Path], object]:
    def read(folder: Path) -> None:
        path = folder / f"points{suffix}"
        read_tie_points(path, reference=REFERENCE, moving=MOVING, skip_bad_rows=True)
        estimate_from_points(path, reference=REFERENCE, moving=MOVING)

    return read


def look(name: str) -> Callable[[Path], object]:
    """Headers, then all pixels."""

    def read(folder: Path) -> None:
        plan(folder / name, folder / name, model="orientation", max_memory="1GB")
        read_raster(folder / name, role="moving", max_pixels=1e6)

    return read


def with_side_files(folder: Path) -> None:
    path = image(folder / "image.tif", **PLACE)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    for name in ("image.tif.msk", "image.tif.ovr"):
        image(folder / name, PIXELS[:1] // 128 * 255)
    gcps = "".join(
        f'<GCP Id="{i}" Pixel="{9 * i}" Line="{i * i}" X="{500000 + 90 * i}" Y="4999990"/>' for i in range(7)
    )
    (folder / "image.tif.aux.xml").write_text(
        '<PAMDataset><SRS dataAxisToSRSAxisMapping="1,2">EPSG:32633</SRS>'
        "<GeoTransform>5e5,10,0,5e6,0,-10</GeoTransform>"
        f'<GCPList Projection="EPSG:32633">{gcps}</GCPList><Metadata><MDI key="AREA_OR_POINT">Point</MDI></Metadata>'
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue><ColorInterp>Alpha</ColorInterp><Scale>2</Scale>'
        "<CategoryNames><Category>a</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    (folder / "image.tfw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    (folder / "image_RPC.TXT").write_text("LINE_OFF: 40\nSAMP_OFF: 40\nLAT_OFF: 45\nLONG_OFF: 15\nHEIGHT_OFF: 10\n")


def with_gcps(folder: Path) -> None:
    points = [
        GroundControlPoint(40.0 * i, 30.0 * j, 5e5 + 300 * j + i, 5e6 - 400 * i) for i in range(3) for j in range(3)
    ]
    image(folder / "image.tif", gcps=points, crs=MOVING.crs, tiled=True, blockxsize=16, blockysize=16, compress="lzw")


def with_pages(folder: Path) -> None:
    image(folder / "image.tif", **PLACE)
    image(folder / "image.tif", PIXELS[:1], **PLACE, APPEND_SUBDATASET="YES")


def with_mask(folder: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = image(folder / "image.tif", PIXELS.astype(np.float32), nodata=float("nan"), compress="deflate", **PLACE)
        with rasterio.open(path, "r+") as file:
            file.write_mask(PIXELS[0] > 99)


def displacement(folder: Path) -> None:
    field = np.zeros((2, 80, 90), np.float32) + np.array([2.0, -1.0], np.float32)[:, None, None]
    path = folder / "displacement.tif"
    write_displacement(path, Displacement(field, field[0], field[0], REFERENCE), ESTIMATE, SHIFTED.matrix)


def applied(folder: Path) -> None:
    estimate = read_estimate(folder / "displacement.tif")
    somareg.warp(PIXELS, estimate, max_memory="200MB")


def report(folder: Path) -> None:
    displacement(folder)
    record = build_record(make_result(), {}).model_dump_json()
    (folder / "report.json").write_text(record)


def opened(folder: Path) -> None:
    load_report(folder / "report.json")
    find_folder(folder)


def batch(folder: Path) -> None:
    (folder / "pairs.csv").write_text(
        "name,moving,reference,preset,moving_bands\na,a.tif,b.tif,fast,1\nb,a.tif,b.tif,,\n"
    )
    entry = {"name": "a", "moving": "a.tif", "reference": "b.tif", "key": "0" * 24, "status": "done", "seconds": 1.5}
    entry |= {"verdict": "go", "probability": 0.9, "predicted_rmse_px": 0.5, "misregistration_px": 3.0, "files": []}
    (folder / "out").mkdir()
    lines = [{"somareg_batch": 1}, entry]
    (folder / "out" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def archive(folder: Path) -> None:
    (folder / "scenes.csv").write_text("moving,date,platform,orbit\na_20210104.tif,2021-01-04,S2A,094\nb.tif,,,\n")
    (folder / "scenes.json").write_text(json.dumps([{"moving": "a.tif", "date": "2021-01-04", "moving_bands": [1]}]))
    told = {"datetime": "2021-01-04T10:30:00Z", "platform": "s2a", "sat:relative_orbit": 94}
    asset = {"href": "a.tif", "type": "image/tiff"}
    one = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "properties": told,
        "assets": {"b": asset},
        "links": [],
    }
    (folder / "one.json").write_text(json.dumps(one))
    (folder / "all.json").write_text(json.dumps({"type": "FeatureCollection", "features": [one, one]}))
    links = [{"rel": "item", "href": "./one.json"}, {"rel": "child", "href": "all.json"}]
    (folder / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": links}))


def listed(folder: Path) -> None:
    """Every list by itself: what is wrong with one must not hide another."""
    wrong: list[SomaregError] = []
    for name in ("scenes.csv", "scenes.json", "catalog.json"):
        try:
            find_scenes(folder / name)
        except SomaregError as error:
            wrong.append(error)
    if wrong:
        raise wrong[0]


def journal(folder: Path) -> None:
    (folder / "run" / "work").mkdir(parents=True)
    kept = Journal(folder / "run" / "work" / "journal", {"moving": "a"})
    kept.note("global", {"affine": [[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]})


def configuration(folder: Path) -> None:
    (folder / "base.yaml").write_text("optimiser: {lr: 2e-3, schedule: time}\nrun:\n  batch: 4\n  max_minutes: 5\n")
    network = "network:\n  encoder:\n    compact: {widths: [16, 24, 32, 48]}\n    fge: {sigmas: [0.8]}\n"
    (folder / "run.yaml").write_text("extends: base.yaml\nrun: {batch: 8}\n" + network)


def item(folder: Path) -> None:
    image(folder / "image.tif", **PLACE)
    assets = {"vv": {"href": "./image.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}}
    properties = {"datetime": "2024-01-01T00:00:00Z", "proj:code": "EPSG:32633", "sar:polarizations": ["VV"]}
    told = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": properties, "links": []}
    told |= {"geometry": None, "bbox": [14, 45, 16, 46], "assets": assets}
    (folder / "item.json").write_text(json.dumps(told))


def planned_item(folder: Path) -> None:
    plan(f"{folder / 'item.json'}#vv", f"{folder / 'item.json'}#vv", model="orientation")


def simple(name: str, make: Callable[[Path], object]) -> Subject:
    return Subject(make, (name,), look(name))


SUBJECTS: dict[str, Subject] = {
    **{f"points{s}": Subject(write_points(s), (f"points{s}",), read_points(s)) for s in SUFFIXES},
    "geotiff": simple("image.tif", lambda folder: image(folder / "image.tif", **PLACE, nodata=7)),
    "geotiff with gcps": simple("image.tif", with_gcps),
    "geotiff with pages": simple("image.tif", with_pages),
    "geotiff with mask": simple("image.tif", with_mask),
    "png": simple("image.png", lambda folder: copied(folder / "image.png", "PNG")),
    "jpeg": simple("image.jpg", lambda folder: copied(folder / "image.jpg", "JPEG")),
    "jpeg 2000": simple("image.jp2", lambda folder: copied(folder / "image.jp2", "JP2OpenJPEG")),
    "erdas": simple("image.img", lambda folder: image(folder / "image.img", driver="HFA", **PLACE)),
    "envi": Subject(
        lambda folder: image(folder / "image.img", driver="ENVI", **PLACE),
        ("image.hdr", "image.img"),
        look("image.img"),
    ),
    "hdf5": Subject(lambda folder: write_hdf5(folder / "image.h5", GCOV), ("image.h5",), look("image.h5:HHHH")),
    "side files": Subject(
        with_side_files,
        ("image.tif.aux.xml", "image.tif.msk", "image.tif.ovr", "image.tfw", "image_RPC.TXT"),
        look("image.tif"),
    ),
    "displacement": Subject(displacement, ("displacement.tif",), applied),
    "shifts": Subject(
        lambda folder: image(folder / "shifts.tif", PIXELS.astype(np.float32), **PLACE),
        ("shifts.tif",),
        lambda folder: read_shifts(folder / "shifts.tif"),
    ),
    "report": Subject(report, ("report.json",), opened),
    "batch": Subject(
        batch,
        ("pairs.csv", "out/manifest.jsonl"),
        lambda folder: planned(folder / "pairs.csv", folder / "out"),
    ),
    "archive": Subject(archive, ("scenes.csv", "scenes.json", "catalog.json", "one.json", "all.json"), listed),
    "journal": Subject(
        journal,
        ("run/work/journal",),
        lambda folder: Journal(folder / "run" / "work" / "journal", {"moving": "a"}),
    ),
    "yaml": Subject(configuration, ("run.yaml", "base.yaml"), lambda folder: load_config(folder / "run.yaml")),
    "stac": Subject(item, ("item.json",), planned_item),
}
