"""aligned.qgz and displacement.qml as files: what they say, without QGIS."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio

from somareg.errors import OutputError
from somareg.io.paths import whole_path
from somareg.register import api
from somareg.report import load_report
from somareg.report.qgis import files, project
from somareg.report.qgis.files import shown_file, source_name
from somareg.types import Decision, Result

Element = ElementTree.Element


def project_of(folder: Path) -> Element:
    with zipfile.ZipFile(folder / "aligned.qgz") as archive:
        assert archive.namelist() == ["aligned.qgs"]
        return ElementTree.fromstring(archive.read("aligned.qgs"))


def layers_of(root: Element) -> dict[str, Element]:
    """Layers by key, the uppermost first."""
    found = {text(layer, "id").split("_")[1]: layer for layer in root.findall("projectlayers/maplayer")}
    order = [str(each.get("id")).split("_")[1] for each in root.findall("layer-tree-group/layer-tree-layer")]
    assert list(found) == order
    return found


def text(element: Element, path: str) -> str:
    found = element.find(path)
    assert found is not None, path
    return found.text or ""


def judged(result: Result, decision: Decision) -> Result:
    """The result with another verdict; a no-go has no error."""
    field = result.displacement
    if decision == "no-go":
        field = replace(field, sigma=np.full_like(field.sigma, np.nan))
    return replace(result, verdict=replace(result.verdict, decision=decision), displacement=field)


def test_the_layers_of_a_result(saved: Path) -> None:
    layers = layers_of(project_of(saved))
    assert list(layers) == ["points", "error", "aligned", "moving", "reference"]
    sources = {key: text(layer, "datasource") for key, layer in layers.items()}
    assert sources["points"] == "./tie_points.geojson"
    assert sources["error"] == "./displacement.tif"
    assert sources["aligned"] == "./aligned.tif"
    for key in ("moving", "reference"):
        assert sources[key].startswith("../") and (saved / sources[key]).resolve().is_file()
    assert text(layers["error"], "provider") == "gdal"
    shown = layers["error"].find("pipe/rasterrenderer")
    assert shown is not None and shown.get("band") == "4"
    checked = [each.get("checked") for each in project_of(saved).findall("layer-tree-group/layer-tree-layer")]
    assert checked == ["Qt::Checked", "Qt::Unchecked", "Qt::Checked", "Qt::Unchecked", "Qt::Checked"]


def test_no_path_of_this_machine_is_inside(saved: Path, pair: tuple[Path, Path]) -> None:
    """A folder that moves together with its inputs goes on working."""
    with zipfile.ZipFile(saved / "aligned.qgz") as archive:
        content = archive.read("aligned.qgs").decode()
    assert str(saved.parent) not in content and str(pair[0].parent) not in content


def test_the_same_result_gives_the_same_bytes(saved: Path, result: Result) -> None:
    again = result.save(saved.parent / "again", reports="none")
    for name in ("aligned.qgz", "displacement.qml"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_ids_of_two_results_differ(saved: Path, result: Result, tmp_path: Path) -> None:
    other = replace(result, reference=replace(result.reference, sha256="other")).save(tmp_path / "out", reports="none")
    ids = [{text(layer, "id") for layer in layers_of(project_of(folder)).values()} for folder in (saved, other)]
    assert not ids[0] & ids[1]


def test_the_report_knows_both_files(saved: Path) -> None:
    outputs = load_report(saved / "report.json").outputs
    for name in ("aligned.qgz", "displacement.qml"):
        assert outputs[name].bytes == (saved / name).stat().st_size


@pytest.mark.parametrize("force", [False, True])
def test_a_no_go_claims_no_error(result: Result, tmp_path: Path, force: bool) -> None:
    folder = judged(result, "no-go").save(tmp_path / "out", reports="none", force=force)
    root = project_of(folder)
    layers = layers_of(root)
    assert list(layers) == ["points", "displacement", *(["aligned"] if force else []), "moving", "reference"]
    band = layers["displacement"].find("pipe/rasterrenderer")
    assert band is not None and band.get("band") == "1"
    told = text(root, "projectMetadata/abstract")
    assert "no error map" in told and ("no aligned image" in told) is not force
    themes = [each.get("name") for each in root.findall("visibility-presets/visibility-preset")]
    assert themes == ["Before", *(["After"] if force else [])]
    style = ElementTree.parse(folder / "displacement.qml").find("pipe/rasterrenderer")
    assert style is not None and style.get("band") == "1"


def test_the_style_of_the_displacement(saved: Path) -> None:
    renderer = ElementTree.parse(saved / "displacement.qml").find("pipe/rasterrenderer")
    assert renderer is not None and renderer.get("type") == "singlebandpseudocolor"
    with rasterio.open(saved / "displacement.tif") as file:
        assert file.descriptions[int(renderer.get("band", 0)) - 1] == "sigma"
        values = file.read(4)
        assert np.isnan(file.nodatavals[3])
    items = [(float(item.get("value", "nan")), str(item.get("color"))) for item in renderer.iter("item")]
    assert items[0][0] == 0 and items[-1][0] >= np.nanpercentile(values, 99)
    light = [np.dot([int(colour[i : i + 2], 16) for i in (1, 3, 5)], (0.30, 0.59, 0.11)) for _, colour in items]
    assert (np.diff(light) > 0).all()  # readable without seeing red or green


def test_before_and_after_are_drawn_alike(saved: Path) -> None:
    layers = layers_of(project_of(saved))
    limits = [
        [text(layers[key], f"pipe/rasterrenderer/contrastEnhancement/{end}Value") for end in ("min", "max")]
        for key in ("moving", "aligned")
    ]
    assert limits[0] == limits[1]


HOSTILE = [
    "a <b> & \"c\" 'd' ]]>.tif",
    "</datasource><datasource>x.tif",
    "{{ 7 * 7 }} {% raw %}.tif",
    "tab\tline\nfeed\rreturn.tif",
    "control\x01\x1b[31m.tif",
    "NETCDF:x|layername=y.tif",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(result: Result, pair: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Names stay names: one layer of the project, its file as it is called where XML can say that."""
    try:
        moving = Path(shutil.copy(pair[0], tmp_path / name.replace("/", "_")))
    except (OSError, ValueError) as error:
        pytest.skip(f"this file system takes no such name: {error}")
    other = replace(result, moving=replace(result.moving, path=moving, name=str(moving)))
    layers = layers_of(project_of(other.save(tmp_path / "out", reports="none")))
    assert list(layers) == ["points", "error", "aligned", "moving", "reference"]
    told = text(layers["moving"], "datasource")
    if name.isprintable() or name.startswith("tab"):
        assert told == f"../{moving.name}"
    else:
        assert told.startswith("../") and told.endswith(".tif") and told != f"../{moving.name}"
    assert text(layers["aligned"], "datasource") == "./aligned.tif"


def test_an_input_that_is_gone_meanwhile_is_left_out_and_told(result: Result, tmp_path: Path) -> None:
    gone = tmp_path / "gone.tif"
    lost = replace(result, reference=replace(result.reference, path=gone, name=str(gone)))
    root = project_of(lost.save(tmp_path / "out", reports="none"))
    assert list(layers_of(root)) == ["points", "error", "aligned", "moving"]
    assert "The reference image gone.tif is not shown" in text(root, "projectMetadata/abstract")


def test_a_full_disk_is_one_line(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "_zipped", lambda name, content: b"")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot write .*aligned.qgz: No space left"):
        result.save(tmp_path / "out", reports="none")
    assert not (tmp_path / "out").exists()


def test_nodata_that_was_said(result: Result, tmp_path: Path) -> None:
    said = replace(result, settings={**result.settings, "moving_nodata": 7.0})
    layers = layers_of(project_of(said.save(tmp_path / "out", reports="none")))
    span = layers["moving"].find("noData/noDataList/noDataRange")
    assert span is not None and float(span.get("min", "nan")) == float(span.get("max", "nan")) == 7.0
    assert layers["aligned"].find("noData") is None and layers["reference"].find("noData") is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/data/in/a.tif", "../in/a.tif"),
        ("/data/out/a.tif", "./a.tif"),
        ('NETCDF:"/data/in/a.nc":vv', 'NETCDF:"../in/a.nc":vv'),
        ('HDF5:"/data/in/a b.h5"://g/vv', 'HDF5:"../in/a b.h5"://g/vv'),
        ("GTIFF_DIR:2:/data/in/a.tif", "GTIFF_DIR:2:/data/in/a.tif"),
    ],
)
def test_how_files_and_their_parts_are_called(name: str, told: str) -> None:
    assert source_name(name, "", Path("/data/out")) == told


def test_another_drive_gets_a_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: str, start: str) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(files.os.path, "relpath", none)
    assert source_name("/data/in/a.tif", "", Path("/data/out")) == "/data/in/a.tif"


def write(path: Path, data: Any, **more: Any) -> Path:
    count, height, width = data.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": data.dtype.name}
    with rasterio.open(path, "w", **profile, **more) as file:
        file.write(data)
    return path


@pytest.mark.parametrize(("count", "wanted", "bands"), [(1, None, (1,)), (2, None, (1,)), (4, (4, 3, 2), (4, 3, 2))])
def test_bands_that_are_shown(tmp_path: Path, count: int, wanted: Any, bands: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).integers(0, 99, (count, 70, 80)).astype(np.uint16)
    path = write(tmp_path / "a.tif", data, photometric="minisblack")
    shown = shown_file(path, tmp_path, "optical", wanted=wanted)
    assert (shown.source, shown.bands, shown.alpha) == ("./a.tif", bands, -1)


def test_limits_come_from_what_is_valid(tmp_path: Path) -> None:
    """Also where the windows that are looked at hold none of it."""
    data = np.zeros((1, 900, 900), np.float32)
    data[:, :20] = np.linspace(100, 200, 900)
    shown = shown_file(write(tmp_path / "rim.tif", data, nodata=0), tmp_path, "optical")
    assert 95 < shown.limits[0, 0] < 110 and 190 < shown.limits[0, 1] < 205


def test_a_palette_keeps_its_colours(tmp_path: Path) -> None:
    path = write(tmp_path / "classes.tif", np.ones((1, 64, 64), np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (10, 20, 30, 255)})
    shown = shown_file(path, tmp_path, "map")
    assert shown.colours is not None and shown.colours[1] == (10, 20, 30, 255)


@pytest.fixture(scope="module")
def plain(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo pair without its georeferences, a quarter of its pixels."""
    folder = tmp_path_factory.mktemp("plain")
    written = []
    for path in pair:
        with rasterio.open(path) as file:
            data = file.read(out_shape=(file.count, 336, 336), resampling=rasterio.enums.Resampling.average)
        written.append(write(folder / path.name, data))
    return written[0], written[1]


def test_without_georeferences(plain: tuple[Path, Path], tmp_path: Path) -> None:
    """The map is in pixels, rows counted downwards from 0 as QGIS does."""
    root = project_of(api.register(*plain, model="orientation").save(tmp_path / "out", reports="none"))
    layers = layers_of(root)
    assert list(layers) == ["points", "error", "aligned", "moving", "reference"]
    assert text(layers["points"], "datasource").startswith("file:./gcps.points?")
    assert text(root, "properties/SpatialRefSys/ProjectionsEnabled") == "0"
    assert [float(text(root, f"mapcanvas/extent/{end}")) for end in ("xmin", "ymin", "xmax", "ymax")] == [
        0,
        -336,
        336,
        0,
    ]


def test_arrays_are_told_to_be_no_files(plain: tuple[Path, Path], tmp_path: Path) -> None:
    arrays = []
    for path in plain:
        with rasterio.open(path) as file:
            arrays.append(file.read())
    root = project_of(api.register(*arrays, model="orientation").save(tmp_path / "out", reports="none"))
    assert list(layers_of(root)) == ["points", "error", "aligned"]
    assert text(root, "projectMetadata/abstract").count("it was given in memory") == 2


def test_pixels_of_a_part_are_not_those_of_the_files(plain: tuple[Path, Path], tmp_path: Path) -> None:
    result = api.register(*plain, model="orientation", extent="common")
    assert "frame" in result.settings
    root = project_of(result.save(tmp_path / "out", reports="none"))
    assert list(layers_of(root)) == ["points", "error", "aligned"]


def test_whole_paths_are_what_files_are_found_by(pair: tuple[Path, Path], result: Result) -> None:
    assert result.moving.path is not None and whole_path(result.moving.path) == str(pair[0])
