"""STAC: Items as the images of `register` and `warp`, and the Item that `save(stac=True)` writes."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
from pystac.extensions.projection import ProjectionExtension

import somareg
from somareg.errors import ConfigError, InputError, UnsupportedError
from somareg.geometry.ground_control import GroundControl
from somareg.io.stac import find_asset
from somareg.register import api
from somareg.report.stac import ACCURACY, PROCESSING, to_stac_item
from somareg.types import Grid, Raster, Result, StacOrigin
from tests.t65_register.conftest import ORIGIN, REFERENCE, SIDE, UTM, Files, register
from tests.t65_register.test_outputs import NAMES, names

Describe = Callable[..., Path]

CORE = "https://schemas.stacspec.org/"
# What the extensions ask of the fields that are written here, in the words of their tables.
FIELDS = {
    "type": "object",
    "properties": {
        "proj:code": {"type": ["string", "null"], "pattern": "^[A-Z]+:[0-9]+$"},
        "proj:wkt2": {"type": ["string", "null"]},
        "proj:shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "proj:transform": {"type": "array", "items": {"type": "number"}, "minItems": 6, "maxItems": 6},
        "accuracy:geometric_rmse": {"type": "number", "minimum": 0},
        "processing:software": {"type": "object", "additionalProperties": {"type": "string"}},
        "processing:lineage": {"type": "string"},
    },
    "patternProperties": {"^(?!(proj|accuracy|processing):)": {}},
    "additionalProperties": False,
    "required": ["processing:software", "processing:lineage", "proj:shape", "proj:transform"],
}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def describe(tmp_path: Path) -> Describe:
    """Write an Item beside nothing, whose one asset is a file somewhere else."""

    def write(name: str, key: str, path: Path, properties: dict[str, Any] | None = None, **fields: Any) -> Path:
        href = os.path.relpath(path, tmp_path)
        content = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": name,
            "geometry": None,
            "properties": {"datetime": "2024-05-06T07:08:09Z", **(properties or {})},
            "links": [],
            "assets": {key: {"href": href, "type": "image/tiff; application=geotiff", **fields}},
        }
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        return file

    return write


def check(document: dict[str, Any]) -> None:
    """Valid by the schemas that pystac carries, and by what the extensions ask."""
    assert pystac.validation.validate_dict(document, extensions=[])[0].startswith(CORE)
    jsonschema.validate(document["properties"], FIELDS)
    item = pystac.Item.from_dict(document)
    assert ProjectionExtension.get_schema_uri() in item.stac_extensions
    assert PROCESSING in item.stac_extensions
    assert (ACCURACY in item.stac_extensions) == ("accuracy:geometric_rmse" in item.properties)


# --- in ---------------------------------------------------------------------------------------------------------------


def test_items_are_as_good_as_their_files(files: Files, file_result: Result, describe: Describe) -> None:
    sar = describe("s1", "vv", files.moving, {"sar:frequency_band": "C"})
    optical = describe("s2", "visual", files.reference, {"instruments": ["msi"]})
    result = register(f"{sar}#vv", optical, moving_bands=(1,))
    np.testing.assert_array_equal(result.displacement.array, file_result.displacement.array)
    assert result.moving.path is not None
    assert result.moving.path.samefile(files.moving)
    assert result.moving.origin == StacOrigin("s1", "vv", str(sar), {"datetime": "2024-05-06T07:08:09Z"})
    assert any("moving image taken as sar" in note and "sar: fields" in note for note in result.notes)
    assert any("reference image taken as optical" in note and "msi" in note for note in result.notes)


def test_items_tell_the_modality_and_the_user_tells_better(files: Files, describe: Describe) -> None:
    sar = describe("s1", "vv", files.moving, {"instruments": ["c-sar"]})
    optical = describe("s2", "visual", files.reference, {"eo:cloud_cover": 2})
    turned = api.plan(optical, sar)  # the optical image moves
    assert turned["moving"]["file"].endswith("optical.tif")
    result = register(optical, sar, reference_bands=(1,), preset="fast", local=False)
    assert (result.settings["moving_modality"], result.settings["reference_modality"]) == ("optical", "sar")
    said = register(sar, optical, moving_modality="other", moving_bands=(1,), preset="fast", local=False)
    assert (said.settings["moving_modality"], said.settings["reference_modality"]) == ("other", "optical")
    assert any("taken as other, as asked, although STAC Item s1 says sar" in note for note in said.notes)


def test_the_item_does_not_overrule_the_file(
    files: Files, file_result: Result, describe: Describe, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {"proj:code": "EPSG:32631", "proj:shape": [9, 9]}
    sar = describe("s1", "vv", files.moving, wrong)
    result = register(sar, files.reference, moving_bands=(1,))
    np.testing.assert_array_equal(result.displacement.array, file_result.displacement.array)
    assert result.moving.grid == file_result.moving.grid
    assert sum("the file is used" in note for note in result.notes) == 2
    assert "EPSG:32631" in caplog.text


def test_pystac_objects_and_warp(files: Files, saved: Path, describe: Describe) -> None:
    scene = pystac.Item.from_file(str(describe("s1", "vv", files.moving)))
    plain = somareg.warp(files.moving, saved)
    for image in (scene, scene.assets["vv"], describe("s1", "vv", files.moving)):
        warped = somareg.warp(image, saved)
        np.testing.assert_array_equal(warped.data, plain.data)
    result = register(scene.assets["vv"], files.reference, moving_bands=(1,), preset="fast", local=False)
    assert result.moving.origin.asset == "vv"


def test_what_an_item_cannot_do(files: Files, describe: Describe, saved: Path) -> None:
    item = describe("s1", "vv", files.moving)
    with pytest.raises(ConfigError, match="moving_mask is an array for an image in memory only"):
        register(item, files.reference, moving_mask=np.ones((3, 3), bool))
    with pytest.raises(InputError, match="no asset 'vh'"):
        register(f"{item}#vh", files.reference)
    with pytest.raises(InputError, match="not a STAC Item"):
        register(saved / "report.json", files.reference)


# --- out --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(file_result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_result.save(tmp_path_factory.mktemp("stac") / "out", stac=True)


def load(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "item.json").read_text())
    return content


def test_the_item_is_valid(folder: Path, no_network: None) -> None:
    document = load(folder)
    check(document)
    assert document["stac_version"].startswith("1.1")
    assert names(folder) == NAMES | {"item.json"}


def test_every_file_is_an_asset(folder: Path, file_result: Result, no_network: None) -> None:
    item = pystac.Item.from_file(str(folder / "item.json"))
    paths = {key: Path(str(asset.get_absolute_href())) for key, asset in item.assets.items()}
    assert {path.name for path in paths.values()} == NAMES
    assert all(path.is_file() for path in paths.values())
    assert item.assets["aligned"].roles == ["data"]
    assert "cloud-optimized" in str(item.assets["aligned"].media_type)
    bands = item.assets["aligned"].extra_fields["bands"]
    assert [band["name"] for band in bands] == ["VV", "VV upside down"]
    assert {band["data_type"] for band in bands} == {"uint16"}
    assert [band["name"] for band in item.assets["displacement"].extra_fields["bands"]] == [
        "dx",
        "dy",
        "certainty",
        "sigma",
    ]


def test_it_says_where_the_aligned_image_lies(folder: Path, no_network: None) -> None:
    item = pystac.Item.from_file(str(folder / "item.json"))
    projection = ProjectionExtension.ext(item)
    with rasterio.open(folder / "aligned.tif") as file:
        assert projection.code == f"EPSG:{file.crs.to_epsg()}" == UTM
        assert projection.shape == list(file.shape)
        assert projection.transform == list(file.transform)[:6]
    assert item.bbox is not None
    assert item.geometry is not None
    ring = np.array(item.geometry["coordinates"][0])
    np.testing.assert_allclose([*ring.min(0), *ring.max(0)], item.bbox, atol=2e-6)
    assert area(ring) > 0
    assert 15.0 <= item.bbox[0] < 15.01  # the origin lies on the central meridian
    assert item.bbox[2] - item.bbox[0] == pytest.approx(SIDE * 10 / 82_850, rel=0.01)  # metres per degree at 42 N


def test_the_accuracy_is_the_predicted_one_in_metres(folder: Path, file_result: Result) -> None:
    properties = load(folder)["properties"]
    assert properties["accuracy:geometric_rmse"] == pytest.approx(10 * file_result.predicted_rmse_px, rel=2e-3)
    assert "predicted" in properties["somareg:accuracy_basis"]
    assert "not measured" in properties["somareg:accuracy_basis"]
    assert properties["somareg:verdict"] == file_result.verdict.decision == "go"
    assert properties["somareg:headline"] == file_result.verdict.headline
    assert properties["somareg:predicted_rmse_m"] == pytest.approx(file_result.verdict.predicted_rmse_m, abs=1e-4)


def test_it_says_what_it_came_from_and_how(folder: Path, files: Files, file_result: Result) -> None:
    document = load(folder)
    sources = [link for link in document["links"] if link["rel"] == "derived_from"]
    assert [link["title"] for link in sources] == ["moving image", "reference image"]
    for link, path in zip(sources, (files.moving, files.reference), strict=True):
        assert (folder / unquote(link["href"])).samefile(path)
    properties = document["properties"]
    assert properties["processing:software"] == {"somareg": somareg.__version__}
    for word in ("sar.tif (sar)", "optical.tif (optical)", "orientation", "cubic"):
        assert word in properties["processing:lineage"]
    assert "not known" in properties["somareg:datetime_basis"]
    assert properties["datetime"] == properties["created"]


def test_the_acquisition_time_comes_with_the_item(
    folder: Path, files: Files, file_result: Result, no_network: None
) -> None:
    def saved(**dates: str) -> dict[str, Any]:
        origin = StacOrigin("S1A IW/7", "vv", "https://x.org/items/7", dates)
        moving = replace(file_result.moving, origin=origin)
        document: dict[str, Any] = to_stac_item(replace(file_result, moving=moving), folder).to_dict()
        check(document)
        assert document["id"] == "S1A-IW-7-vv-on-optical"
        assert document["links"][1]["href"] == "https://x.org/items/7"
        return dict(document["properties"])

    taken = saved(datetime="2024-05-06T07:08:09Z")
    assert (taken["datetime"], taken["somareg:datetime_basis"][:11]) == ("2024-05-06T07:08:09Z", "acquisition")
    span = saved(start_datetime="2024-01-01T00:00:00Z", end_datetime="2024-01-02T00:00:00Z")
    assert (span["datetime"], span["start_datetime"]) == (None, "2024-01-01T00:00:00Z")
    assert "not known" in saved(datetime="yesterday")["somareg:datetime_basis"]
    assert "not known" in saved(start_datetime="2024-01-01T00:00:00Z")["somareg:datetime_basis"]
    given = to_stac_item(file_result, folder, acquired=datetime(2020, 2, 3, tzinfo=UTC)).to_dict()
    assert given["properties"]["datetime"] == "2020-02-03T00:00:00Z"
    assert "as given" in given["properties"]["somareg:datetime_basis"]


def test_the_function_gives_what_save_wrote(folder: Path, file_result: Result) -> None:
    item = to_stac_item(file_result, folder)
    assert item.get_self_href() == str(folder / "item.json")
    document, written = item.to_dict(include_self_link=False), load(folder)
    for properties in (document["properties"], written["properties"]):
        del properties["created"], properties["datetime"]
    assert json.loads(json.dumps(document)) == written


def test_an_item_of_ours_is_an_input(folder: Path) -> None:
    asset = find_asset(folder / "item.json", "moving")
    assert asset is not None
    assert asset.path == folder / "aligned.tif"
    with rasterio.open(asset.path) as file:
        grid = Grid(file.width, file.height, REFERENCE.transform, file.crs.to_wkt())
    assert asset.disagreements(grid) == []


def test_without_an_aligned_image_there_is_no_accuracy(tmp_path: Path, file_result: Result, no_network: None) -> None:
    failed = replace(file_result, verdict=replace(file_result.verdict, decision="no-go"))
    document = load(failed.save(tmp_path / "out", stac=True))
    check(document)
    assert document["properties"]["somareg:verdict"] == "no-go"
    assert "accuracy:geometric_rmse" not in document["properties"]
    assert "aligned" not in document["assets"]
    assert "displacement" in document["assets"]


def test_without_a_crs_there_is_no_place(tmp_path: Path, result: Result, no_network: None) -> None:
    document = load(result.save(tmp_path / "out", stac=True))
    check(document)
    assert document["geometry"] is None
    assert "bbox" not in document
    assert "accuracy:geometric_rmse" not in document["properties"]
    assert document["properties"]["somareg:predicted_rmse_px"] == pytest.approx(result.predicted_rmse_px, abs=1e-4)
    assert not [link for link in document["links"] if link["rel"] == "derived_from"]  # arrays have no address


def area(ring: np.ndarray) -> float:
    """Signed area of a closed ring, positive when counter-clockwise."""
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


PLACES = {
    "south up": (Grid(SIDE, SIDE, (10.0, 0.0, ORIGIN[0], 0.0, 10.0, ORIGIN[1]), UTM), "EPSG:32633"),
    "rotated": (Grid(SIDE, SIDE, (8.0, 6.0, ORIGIN[0], 6.0, -8.0, ORIGIN[1]), UTM), "EPSG:32633"),
    "degrees": (Grid(SIDE, SIDE, (1e-4, 0.0, 15.0, 0.0, -1e-4, 42.0), "EPSG:4326"), "EPSG:4326"),
    "no code": (
        Grid(SIDE, SIDE, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), "+proj=laea +lat_0=12 +lon_0=34 +datum=WGS84"),
        None,
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_footprints(name: str, file_result: Result, tmp_path: Path, no_network: None) -> None:
    grid, code = PLACES[name]
    document = to_stac_item(
        replace(file_result, reference=replace(file_result.reference, grid=grid)), tmp_path
    ).to_dict()
    properties = document["properties"]
    assert properties["proj:code"] == code
    assert properties.get("proj:wkt2", "").startswith("PROJCRS") == (code is None)
    ring = np.array(document["geometry"]["coordinates"][0])
    assert area(ring) > 0
    assert ring[0].tolist() == ring[-1].tolist()
    np.testing.assert_allclose([*ring.min(0), *ring.max(0)], document["bbox"], atol=1e-5)


def test_across_the_antimeridian(file_result: Result, tmp_path: Path) -> None:
    grid = Grid(SIDE, SIDE, (100.0, 0.0, 595000.0, 0.0, -100.0, 8000000.0), "EPSG:32660")
    document = to_stac_item(
        replace(file_result, reference=replace(file_result.reference, grid=grid)), tmp_path
    ).to_dict()
    west, south, east, north = document["bbox"]
    assert 179 < west < 180
    assert -180 < east < -179
    assert 71 < south < north < 73
    (first,), (second,) = (np.array(part) for part in document["geometry"]["coordinates"])
    assert first[:, 0].max() == 180
    assert second[:, 0].min() == -180
    assert area(first) > 0
    assert area(second) > 0


def test_ground_control_points_place_it_without_a_transform(file_result: Result, tmp_path: Path) -> None:
    xy = np.array([[0.0, 0.0], [SIDE - 1.0, 0.0], [0.0, SIDE - 1.0], [SIDE - 1.0, SIDE - 1.0]])
    points = tuple(
        (*map(float, pixel), *map(float, place)) for pixel, place in zip(xy, REFERENCE.to_map(xy), strict=True)
    )
    control = GroundControl(points, "polynomial", (-0.5, -0.5, SIDE - 0.5, SIDE - 0.5))  # type: ignore[arg-type]
    grid = Grid(SIDE, SIDE, control.transform, UTM, control)
    placed, known = (
        to_stac_item(replace(file_result, reference=replace(file_result.reference, grid=g)), tmp_path).to_dict()
        for g in (grid, REFERENCE)
    )
    assert "proj:transform" not in placed["properties"]
    assert placed["properties"]["proj:code"] == UTM
    np.testing.assert_allclose(placed["bbox"], known["bbox"], atol=1e-6)


# --- a folder and its Item --------------------------------------------------------------------------------------------


def test_no_item_unless_asked_and_none_left_behind(tmp_path: Path, file_result: Result) -> None:
    out = file_result.save(tmp_path / "out", stac=True)
    file_result.save(out, overwrite=True)
    assert names(out) == NAMES


def test_awkward_names(tmp_path: Path, file_result: Result, no_network: None) -> None:
    odd = tmp_path / "a b#c%20.tif"
    odd.write_bytes(b"x")
    moving = replace(file_result.moving, path=odd, name=str(odd))
    reference: Raster = replace(file_result.reference, name="€\udcff/\n<b>.tif")
    item = to_stac_item(replace(file_result, moving=moving, reference=reference), tmp_path / "out")
    document = json.loads(json.dumps(item.to_dict(), ensure_ascii=False).encode())
    check(document)
    href = next(link["href"] for link in document["links"] if link["rel"] == "derived_from")
    assert "#" not in href
    (tmp_path / "out").mkdir()
    assert (tmp_path / "out" / unquote(href)).samefile(odd)


def test_without_pystac_nothing_is_written(
    tmp_path: Path, file_result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pystac", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'somareg\[stac\]'"):
        file_result.save(tmp_path / "out", stac=True)
    assert names(tmp_path) == set()
    with pytest.raises(UnsupportedError, match="pystac"):
        to_stac_item(file_result, tmp_path)
    assert names(file_result.save(tmp_path / "out")) == NAMES
