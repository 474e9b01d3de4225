"""Files that lie beside a raster, or that its metadata name, are not opened unless they are what they are called."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader

import somareg
from somareg.errors import ReadError, SomaregError
from somareg.io.source import Block, open_source
from somareg.tiepoints.formats import read_tie_points, write_tie_points
from somareg.view.folder import find_folder
from tests.t90_security.conftest import SIDE, make_pair, noise, rewrite, tree, write

Pair = tuple[Path, Path]
FAST = {"preset": "fast", "model": "orientation"}

# In a process of its own: GDAL asks without letting other threads of this one answer.
SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    asked, _ = server.accept()
    with open(sys.argv[1], "ab") as log: log.write(asked.recv(99).split(b"\\r")[0] + b"\\n")
    asked.sendall(b"HTTP/1.0 404 x\\r\\nContent-Length: 0\\r\\n\\r\\n"); asked.close()
"""


class Web:
    """A server that notes who asks."""

    def __init__(self, port: int, log: Path) -> None:
        self.root, self._log = f"http://127.0.0.1:{port}", log

    @property
    def asked(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


@pytest.fixture
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    log = tmp_path_factory.mktemp("web") / "log"
    with subprocess.Popen([sys.executable, "-c", SERVER, str(log)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Web(int(server.stdout.readline()), log)
        server.kill()


def vrt(source: str, side: int = SIDE) -> str:
    size = f'RasterXSize="{side}" RasterYSize="{side}"'
    return (
        f'<VRTDataset {size.replace("Raster", "raster")}><Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>'
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="0">{source}'
        f'</SourceFilename><SourceBand>1</SourceBand><SourceProperties {size} DataType="Byte" BlockXSize="{side}" '
        'BlockYSize="1"/></SimpleSource></VRTRasterBand></VRTDataset>'
    )


def overviews_in(path: Path, target: str) -> None:
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=target)


def beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def small_tif(path: Path) -> Path:
    return write(path, noise(3)[:, ::2, ::2])


def chain(path: Path, target: str) -> None:
    small_tif(beside(path, ".ovr"))
    beside(path, ".ovr.msk").write_text(vrt(target, SIDE // 2))


def aux_of_side_file(path: Path, target: str) -> None:
    small_tif(beside(path, ".ovr"))
    pam(beside(path, ".ovr"), target)


def pam(path: Path, target: str) -> None:
    beside(path, ".aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{target}</MDI></Metadata></PAMDataset>'
    )


TRAPS: dict[str, Callable[[Path, str], object]] = {
    "mask": lambda p, t: beside(p, ".msk").write_text(vrt(t)),
    "mask in capitals": lambda p, t: beside(p, ".MSK").write_text(vrt(t)),
    "mask in any case": lambda p, t: p.with_name(f"{p.name.upper()}.Msk").write_text(vrt(t)),
    "mask with spaces before": lambda p, t: beside(p, ".msk").write_text("\n  " + vrt(t)),
    "overviews": lambda p, t: beside(p, ".ovr").write_text(vrt(t, SIDE // 2)),
    "mask of overviews": chain,
    "statistics": lambda p, t: p.with_suffix(".aux").write_text("EHFA_HEADER_TAG" + vrt(t)),
    "metadata beside": pam,
    "metadata inside": overviews_in,
    "metadata beside a side file": aux_of_side_file,
}


def register(pair: Pair, out: Path) -> object:
    return somareg.register(*pair, **FAST)


def register_tiles(pair: Pair, out: Path) -> object:
    return somareg.register(*pair, scene="always", search="local", **FAST)


def warp(pair: Pair, out: Path) -> object:
    return somareg.warp(pair[0], out, out / "warped.tif")


def warp_coarser(pair: Pair, out: Path) -> object:
    return somareg.warp(pair[0], out, resolution="native")


def view(pair: Pair, out: Path) -> object:
    from somareg.view.scene import Scene

    with Scene(find_folder(out, moving=pair[0])) as scene:
        if "before" not in scene.images:
            raise ReadError(" ".join(scene.notes))
        return [scene.tile(name, scene.pyramid.tile(0, 0, 0)) for name in scene.images]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder."""
    place = tmp_path_factory.mktemp("earlier")
    return somareg.register(*make_pair(place), **FAST).save(place / "out", force=True)


@pytest.mark.parametrize("command", [register, register_tiles, warp, warp_coarser, view])
@pytest.mark.parametrize("trap", TRAPS)
def test_traps(
    pair: Pair, tmp_path: Path, web: Web, earlier: Path, trap: str, command: Callable[[Pair, Path], object]
) -> None:
    out = Path(shutil.copytree(earlier, tmp_path / "out"))
    TRAPS[trap](pair[0], f"/vsicurl/{web.root}/{trap.replace(' ', '-')}.tif")
    with pytest.raises(ReadError, match=r"moving\.tif|MOVING\.TIF|moving\.aux"):
        command(pair, out)
    assert web.asked == ""


def test_the_traps_are_traps(pair: Pair, web: Web) -> None:
    """Without this the tests above could pass with duds."""
    for trap, scheme in (("mask", "/vsicurl/"), ("overviews", "/vsicurl/"), ("metadata inside", "")):
        TRAPS[trap](pair[0], f"{scheme}{web.root}/{trap.replace(' ', '-')}.tif")
        with DatasetReader(str(pair[0]), driver=["GTiff"]) as file, suppress(rasterio.errors.RasterioIOError):
            file.read_masks(1) if trap == "mask" else file.overviews(1)
        assert trap.replace(" ", "-") in web.asked
        for side in pair[0].parent.glob("moving.tif.*"):
            side.unlink()


@pytest.mark.parametrize("driver", ["PNG", "ENVI", "HFA", "JPEG", "JP2OpenJPEG"])
def test_every_format(tmp_path: Path, web: Web, driver: str) -> None:
    path = tmp_path / "a.img"
    with rasterio.open(path, "w", driver=driver, width=SIDE, height=SIDE, count=1, dtype="uint8") as file:
        file.write(noise(1))
    with open_source(path, role="moving") as source:
        source.read(Block(0, 0, 64, 64))
    for trap in ("mask", "overviews", "metadata beside"):
        before = tree(tmp_path)
        kept = beside(path, ".aux.xml").read_text() if beside(path, ".aux.xml").exists() else None
        TRAPS[trap](path, f"/vsicurl/{web.root}/a.tif")
        with pytest.raises(ReadError), open_source(path, role="moving") as source:
            source.read()
        for name in tree(tmp_path).keys() - before.keys():
            (tmp_path / name).unlink()
        if kept is not None:
            beside(path, ".aux.xml").write_text(kept)
    assert web.asked == ""


def test_a_local_file_is_not_read_as_a_mask(pair: Pair, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.tif", noise(5) // 200)
    beside(pair[0], ".msk").write_text(vrt(str(secret)))
    with pytest.raises(ReadError, match=r"moving\.tif\.msk that is no GeoTIFF"):
        somareg.register(*pair, **FAST)


def test_honest_side_files_are_used(tmp_path: Path) -> None:
    """A mask and overviews that are GeoTIFFs, a world file, and notes of other programs."""
    path = write(tmp_path / "a.tif", noise(1))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:, 30:] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False, TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
        file.build_overviews([2, 4], Resampling.average)
    assert {"a.tif.msk", "a.tif.ovr"} <= tree(tmp_path).keys()
    (tmp_path / "a.aux").write_text("\\relax")  # of LaTeX, beside a figure
    with open_source(path, role="moving") as source:
        assert MaskFlags.per_dataset in source.dataset.mask_flag_enums[0]
        _, valid = source.read()
        np.testing.assert_array_equal(valid[0], mask)
        assert source.dataset.overviews(1) == [2, 4]


@pytest.mark.parametrize("end", [".msk", ".ovr", ".aux"])
@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0" + bytes(40), b"EHFA_HEADER_TAG\0" + bytes(40), b"EHFA"])
def test_damaged_side_files_are_named(pair: Pair, end: str, content: bytes) -> None:
    """Or passed over where GDAL does so too: what is not there cannot mislead."""
    side = beside(pair[0], end)
    side.write_bytes(content)
    try:
        somareg.register(*pair, **FAST)
    except SomaregError as error:
        assert side.name in str(error)
    else:
        assert end == ".aux" and not content.startswith(b"EHFA_HEADER_TAG")


def test_a_folder_that_cannot_be_listed(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    beside(pair[0], ".MSK").write_text(vrt("/nowhere.tif"))
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ReadError, match=r"moving\.tif\.MSK"):
        somareg.register(*pair, **FAST)


def test_rewritten_files_have_no_side_files(pair: Pair) -> None:
    """What is written by the tests themselves must not be what is tested."""
    rewrite(pair[0], lambda d: d)
    assert tree(pair[0].parent).keys() == {"moving.tif", "reference.tif"}


@pytest.mark.parametrize("kind", ["geojson", "gpkg", "points", "vrt", "stac", "estimate"])
@pytest.mark.parametrize("scheme", ["", "/vsicurl/", "ESRI::"])
def test_a_crs_is_no_address(pair: Pair, tmp_path: Path, web: Web, earlier: Path, kind: str, scheme: str) -> None:
    """GDAL understands a CRS by fetching what has its name."""
    crs = f"{scheme}{web.root}/crs"
    points = tmp_path / f"a.{kind}"
    try:
        if kind == "estimate":
            out = Path(shutil.copytree(earlier, tmp_path / "out"))
            with rasterio.open(out / "displacement.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
                grid = json.loads(file.tags()["SOMAREG_REFERENCE_GRID"])
                file.update_tags(SOMAREG_REFERENCE_GRID=json.dumps(grid | {"crs": crs}))
            somareg.warp(pair[0], out)
        elif kind == "stac":
            item = {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": "a",
                "links": [],
                "properties": {"proj:code": crs},
            }
            item["assets"] = {"vv": {"href": str(pair[0]), "type": "image/tiff"}}
            (tmp_path / "item.json").write_text(json.dumps(item))
            somareg.register(f"{tmp_path / 'item.json'}#vv", pair[1], **FAST)
        elif kind == "gpkg":
            write_tie_points(points, read_tie_points(earlier / "gcps.points", moving=pair[0], reference=pair[1]))
            with sqlite3.connect(points) as database:
                database.execute("UPDATE gpkg_geometry_columns SET srs_id = 7")
                database.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('a', 7, 'NONE', 7, ?, '')", (crs,))
                database.execute("ALTER TABLE tie_points RENAME COLUMN ref_x TO other")
            read_tie_points(points, reference=pair[1], moving=pair[0])
        else:
            text = {
                "geojson": json.dumps({"features": [], "crs": {"properties": {"name": crs}}}),
                "points": f"#CRS: {crs}\nmapX,mapY,sourceX,sourceY,enable\n1,1,1,1,1\n",
                "vrt": f'<V><GCPList Projection="{crs}"><GCP Pixel="1" Line="1" X="1" Y="1"/></GCPList></V>',
            }[kind]
            points.write_text(text)
            read_tie_points(points, reference=pair[1], moving=pair[0])
    except SomaregError:
        assert kind != "stac"  # there it is only compared with the file's own
    else:
        assert kind == "stac"
    assert web.asked == ""


@pytest.mark.parametrize("crs", ["http://127.0.0.1:1/a", "/etc/passwd", "a.prj", "ESRI::a.prj", "[" * 9999])
def test_a_crs_is_no_file_either(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crs: str) -> None:
    monkeypatch.chdir(tmp_path)
    with rasterio.open(pair[0]) as file:
        (tmp_path / "a.prj").write_text(file.crs.to_wkt())
    rewrite(pair[0], lambda d: d, crs=None)
    with pytest.raises(SomaregError, match="is not a CRS"):
        somareg.register(*pair, assume_crs=crs, **FAST)
