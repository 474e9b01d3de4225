"""STAC Items as inputs: which asset is meant, where it lies, what its fields tell, and what they may not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pystac
import pytest
from rasterio.crs import CRS

from somareg.errors import InputError, ReadError, UnsupportedError
from somareg.io.stac import StacAsset, choose_asset, find_asset
from somareg.types import Grid

UTM = CRS.from_epsg(32633).to_wkt()
GRID = Grid(120, 100, (10.0, 0.0, 500000.0, 0.0, -10.0, 4650000.0), UTM)
TIFF = "image/tiff; application=geotiff"


def item(assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "scene-7",
        "geometry": None,
        "properties": {"datetime": "2024-05-06T07:08:09Z", **properties},
        "links": [],
        "assets": assets,
    }


def raster(href: str = "a.tif", **fields: Any) -> dict[str, Any]:
    return {"href": href, "type": TIFF, **fields}


def found(folder: Path, content: Any, key: str = "") -> StacAsset:
    file = folder / "item.json"
    file.write_text(json.dumps(content))
    asset = find_asset(f"{file}#{key}" if key else file, "moving")
    assert asset is not None
    return asset


# --- what is a reference ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["a.tif", Path("b/c.jp2"), "json", "a.json.tif", "x#y.tif", 7, None])
def test_everything_else_is_no_reference(image: Any) -> None:
    assert find_asset(image, "moving") is None


def test_a_hash_in_the_name_of_the_file_belongs_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "a#b"
    folder.mkdir()
    assert found(folder, item({"vv": raster(), "vh": raster("b.tif")}), "vh").path == folder / "b.tif"


# --- which asset ------------------------------------------------------------------------------------------------------

SENTINEL_2 = {
    "blue": raster("B02.tif", roles=["data"], **{"eo:bands": [{"name": "B02", "common_name": "blue"}]}),
    "nir": raster("B08.tif", roles=["data"], bands=[{"name": "B08", "eo:common_name": "nir"}]),
    "visual": raster("TCI.tif", roles=["visual"], **{"eo:bands": [{"name": "B04"}, {"name": "B03"}, {"name": "B02"}]}),
    "thumbnail": {"href": "t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
    "metadata": {"href": "m.xml", "type": "application/xml", "roles": ["metadata"]},
}
SENTINEL_1 = {
    "iw-1": raster("1.tif", roles=["data"], **{"sar:polarizations": ["VV"]}),
    "iw-2": raster("2.tif", roles=["data"], **{"sar:polarizations": ["VH"]}),
}


@pytest.mark.parametrize(
    ("assets", "wanted", "key"),
    [
        (SENTINEL_2, "blue", "blue"),
        (SENTINEL_2, "thumbnail", "thumbnail"),  # a key is a key
        (SENTINEL_2, "BLUE", "blue"),
        (SENTINEL_2, "visual", "visual"),
        (SENTINEL_2, "B08", "nir"),
        (SENTINEL_2, "B02", "blue"),  # not the three-band image that has it among others
        (SENTINEL_1, "vv", "iw-1"),
        (SENTINEL_1, "VH", "iw-2"),
        ({"a": raster(), "b": raster(roles=["data"])}, None, "b"),
        ({"only": raster("x")}, None, "only"),
        ({"a": {"href": "a.TIF"}, "b": {"href": "b.xml"}}, None, "a"),  # no media type: the suffix tells
        ({"a": raster(), "t": {"href": "t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}}, None, "a"),
    ],
)
def test_the_asset_that_is_meant(assets: dict[str, Any], wanted: str | None, key: str) -> None:
    assert choose_asset(assets, wanted, "item.json") == key


@pytest.mark.parametrize(
    ("assets", "wanted", "words"),
    [
        (SENTINEL_1, None, ("several", "iw-1, iw-2", "#iw-1")),
        (SENTINEL_2, None, ("several", "blue, nir", "#blue")),
        (SENTINEL_2, "data", ("several", "blue, nir")),
        (SENTINEL_2, "bleu", ("no asset 'bleu'", "Did you mean 'blue'?")),
        (SENTINEL_1, "red", ("no asset 'red'", "iw-1, iw-2")),
        ({"m": {"href": "m.xml"}}, None, ("none of its assets is a raster", "m")),
        ({}, None, ("none of its assets is a raster",)),
        ({}, "vv", ("no asset 'vv'", "It has none")),
    ],
)
def test_a_choice_that_is_not_plain_is_an_error_that_lists_the_keys(
    assets: dict[str, Any], wanted: str | None, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        choose_asset(assets, wanted, "item.json")
    for word in words:
        assert word in str(caught.value)


# --- where it lies ----------------------------------------------------------------------------------------------------


def test_hrefs_start_at_the_item_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "scene"
    folder.mkdir()
    (folder / "with space.tif").write_bytes(b"x")
    elsewhere = (tmp_path / "else.tif").absolute()
    hrefs = {
        "./a.tif": folder / "a.tif",
        "../b.tif": folder / "../b.tif",
        "with%20space.tif": folder / "with space.tif",
        str(elsewhere): elsewhere,
        elsewhere.as_uri(): elsewhere,
        f"file://localhost{elsewhere}": elsewhere,
    }
    for href, path in hrefs.items():
        assert found(folder, item({"a": raster(href)})).path == path


@pytest.mark.parametrize(
    "href", ["https://x.org/a.tif", "s3://b/a.tif", "HTTP://x/a.tif", "/vsicurl/http://x", "file://host/a.tif"]
)
def test_nothing_is_fetched(href: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="nothing is fetched") as caught:
        found(tmp_path, item({"a": raster(href)}))
    assert href in str(caught.value)


@pytest.mark.parametrize("reference", ["https://x.org/item.json#vv", "s3://x/item.json", "/vsizip/x/item.json"])
def test_items_are_local_too(reference: str) -> None:
    with pytest.raises(UnsupportedError, match="not a local file"):
        find_asset(reference, "reference")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", ReadError, "not JSON"),
        ("[" * 100_000, ReadError, "not JSON"),
        ("\xff\xfe", ReadError, "not JSON"),
        ("[1]", InputError, "not a STAC Item"),
        ('{"type": "Feature"}', InputError, "not a STAC Item"),
        ('{"type": "Collection", "stac_version": "1.0.0"}', InputError, "STAC Collection; give"),
        ('{"type": "FeatureCollection", "features": []}', InputError, "STAC FeatureCollection"),
        ('{"type": "Feature", "stac_version": 1, "assets": {}}', InputError, "not a STAC Item"),
        (json.dumps(item([1])), InputError, "none of its assets"),  # type: ignore[arg-type]
        (json.dumps(item({"a": {"type": "image/tiff"}})), InputError, "href"),
        (json.dumps(item({"a": {"href": 3, "type": "image/png"}})), InputError, "href"),
    ],
)
def test_what_is_no_item(text: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    file = tmp_path / "item.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(error, match=words):
        find_asset(file, "moving")


def test_a_file_larger_than_any_item_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "item.json"
    with file.open("wb") as stream:
        stream.truncate(17 * 1024 * 1024)
    with pytest.raises(InputError, match="larger"):
        find_asset(file, "moving")
    with pytest.raises(ReadError, match="does not exist"):
        find_asset(tmp_path / "other.json", "moving")


# --- what it tells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "properties", "modality"),
    [
        ({}, {"sar:instrument_mode": "IW"}, "sar"),
        ({"sar:polarizations": ["VV"]}, {"eo:cloud_cover": 3}, "sar"),  # the asset knows better than the Item
        ({"eo:bands": [{"name": "B1"}]}, {"sar:frequency_band": "C"}, "optical"),
        ({"bands": [{"name": "B1", "eo:common_name": "red"}]}, {}, "optical"),
        ({}, {"eo:cloud_cover": 3}, "optical"),
        ({}, {"instruments": ["c-sar"]}, "sar"),
        ({}, {"instruments": ["MSI"]}, "optical"),
        ({}, {"instruments": ["msi", "c-sar"]}, None),
        ({}, {"eo:cloud_cover": 3, "sar:frequency_band": "C"}, None),
        ({}, {"instruments": ["sarsat"]}, None),
        ({}, {"instruments": "msi"}, None),  # malformed: not a list
        ({}, {}, None),
        ({"bands": [{"name": "B08", "eo:common_name": "nir"}]}, {}, "nir"),
        ({"eo:bands": [{"name": "B5", "common_name": "NIR08"}]}, {"sar:frequency_band": "C"}, "nir"),
        ({"eo:common_name": "lwir11"}, {"eo:cloud_cover": 3}, "infrared"),
        ({"eo:bands": [{"common_name": "lwir11"}, {"common_name": "lwir12"}]}, {}, "infrared"),
        ({"eo:bands": [{"common_name": "red"}, {"common_name": "nir"}]}, {}, "optical"),
        ({"bands": [{"eo:common_name": name} for name in ("blue", "green", "red", "nir")]}, {}, "optical"),
        ({"bands": [{"eo:common_name": name} for name in ("blue", "green", "red", "nir", "x")]}, {}, "multispectral"),
        ({"eo:bands": [{"name": f"B{i}"} for i in range(12)]}, {}, "multispectral"),
        ({"roles": ["dem"]}, {"sar:frequency_band": "C"}, "dem"),  # the heights that a SAR product was made with
        ({"bands": [{"name": "Elevation"}]}, {}, "dem"),
        ({"bands": [{"name": "elevation"}, {"name": "vv"}]}, {"sar:frequency_band": "C"}, "sar"),
        ({"eo:bands": [{"common_name": 7}, "nir"]}, {}, "optical"),  # malformed
        ({"eo:bands": [{"name": f"m{i}"} for i in range(7)], "sar:polarizations": ["VV"]}, {}, None),
    ],
)
def test_modality(fields: dict[str, Any], properties: dict[str, Any], modality: str | None, tmp_path: Path) -> None:
    asset = found(tmp_path, item({"a": raster(**fields)}, **properties))
    assert asset.modality == modality
    assert bool(asset.reason) == (modality is not None)


@pytest.mark.parametrize(
    ("key", "collection", "modality"),
    [
        ("elevation", "nasadem", "dem"),
        ("DSM", None, "dem"),
        ("data", "cop-dem-glo-30", "dem"),
        ("data", "academy", None),  # no word of its own
        ("demography", None, None),
        ("data", 7, None),
    ],
)
def test_heights_by_name(key: str, collection: object, modality: str | None, tmp_path: Path) -> None:
    asset = found(tmp_path, {**item({key: raster()}), "collection": collection})
    assert asset.modality == modality


def test_a_collection_named_after_heights_has_no_word_where_fields_tell(tmp_path: Path) -> None:
    told = item({"data": raster()}, **{"sar:frequency_band": "C"})
    assert found(tmp_path, {**told, "collection": "sar-with-dem"}).modality == "sar"


def test_origin(tmp_path: Path) -> None:
    asset = found(tmp_path, item({"a": raster()}))
    assert (asset.origin.item, asset.origin.asset) == ("scene-7", "a")
    assert asset.origin.href == str(tmp_path / "item.json")
    assert asset.origin.dates == {"datetime": "2024-05-06T07:08:09Z"}
    span = {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-01-02T00:00:00Z"}
    content = item({"a": raster()}, datetime=None, **span)
    content["links"] = [{"rel": "root", "href": "../c.json"}, {"rel": "self", "href": "https://x.org/items/7"}]
    asset = found(tmp_path, content)
    assert asset.origin.href == "https://x.org/items/7"
    assert asset.origin.dates == span


PROJ = {"proj:code": "EPSG:32633", "proj:shape": [100, 120], "proj:transform": list(GRID.transform)}


@pytest.mark.parametrize(
    ("fields", "properties", "words"),
    [
        (PROJ, {}, []),
        ({}, {**PROJ, "proj:transform": [*GRID.transform, 0, 0, 1]}, []),
        ({"proj:epsg": 32633}, {"proj:code": "EPSG:4326"}, []),  # the asset's CRS, in the old spelling
        ({"proj:wkt2": CRS.from_epsg(32633).to_wkt(version="WKT2_2019")}, {}, []),
        ({"proj:epsg": 32632}, PROJ, ["EPSG:32632, the file another CRS"]),
        ({"proj:code": "EPSG:999999"}, {}, ["cannot be understood"]),
        ({"proj:shape": [50, 60]}, PROJ, ["60 x 50 px, the file has 120 x 100"]),
        ({"proj:transform": [10, 0, 500010, 0, -10, 4650000]}, PROJ, ["1 px away"]),
        ({"proj:transform": [20, 0, 500000, 0, -20, 4650000]}, PROJ, ["120 px away"]),
        ({"proj:transform": ["x"] * 6, "proj:shape": 7, "proj:epsg": None}, {}, []),  # malformed: says nothing
        ({"proj:transform": [1e999, 0, 0, 0, 1, 0], "proj:shape": [True, 2]}, {}, []),
    ],
)
def test_proj_is_compared_with_the_file(
    fields: dict[str, Any], properties: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    notes = found(tmp_path, item({"a": raster(**fields)}, **properties)).disagreements(GRID)
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note
        assert note.endswith("the file is used")


def test_a_file_without_crs_is_not_given_the_items(tmp_path: Path) -> None:
    asset = found(tmp_path, item({"a": raster(**{"proj:code": "EPSG:32633"})}))
    (note,) = asset.disagreements(Grid(120, 100))
    assert "--assume-crs" in note


# --- pystac's objects -------------------------------------------------------------------------------------------------


def test_pystac_items_and_assets(tmp_path: Path) -> None:
    file = tmp_path / "item.json"
    file.write_text(json.dumps(item(SENTINEL_1)))
    scene = pystac.Item.from_file(str(file))
    asset = find_asset(scene.assets["iw-2"], "moving")
    assert asset is not None
    assert asset.path == tmp_path / "2.tif"
    assert asset.modality == "sar"
    assert (asset.origin.item, asset.origin.asset, asset.origin.href) == ("scene-7", "iw-2", str(file))
    with pytest.raises(InputError, match="several"):
        find_asset(scene, "moving")
    del scene.assets["iw-1"]
    whole = find_asset(scene, "moving")
    assert whole is not None
    assert whole.path == asset.path


def test_a_pystac_item_in_memory_needs_absolute_hrefs(tmp_path: Path) -> None:
    scene = pystac.Item.from_dict(item({"a": raster(str(tmp_path / "a.tif")), "b": raster("b.tif")}))
    asset = find_asset(scene.assets["a"], "moving")
    assert asset is not None
    assert (asset.path, asset.origin.href) == (tmp_path / "a.tif", "")
    with pytest.raises(InputError, match="relative href"):
        find_asset(scene.assets["b"], "moving")
    with pytest.raises(InputError, match="belongs to no Item"):
        find_asset(pystac.Asset("a.tif"), "moving")
