"""Which scenes an archive has, and what their names, tables and STAC files tell of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from somareg.batches.audit.names import Facts, facts_of_path, parse_date
from somareg.batches.audit.scenes import Scene, find_scenes
from somareg.errors import ConfigError, InputError, ReadError, UnsupportedError


def day(year: int, month: int, number: int, *clock: int) -> datetime:
    return datetime(year, month, number, *clock, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        (
            "S2B_MSIL2A_20230102T031129_N0509_R075_T49QGF_20230102T053000.tif",
            Facts(day(2023, 1, 2, 3, 11, 29), "S2B", "075", "05.09"),
        ),
        (  # the image has tile and date, the product above it all else
            "in/S2A_MSIL1C_20170105T013442_N0204_R031_T53NMJ_20170105T013443.SAFE/GRANULE/L1C_T53NMJ_A008/IMG_DATA/"
            "T53NMJ_20170105T013442_B02.jp2",
            Facts(day(2017, 1, 5, 1, 34, 42), "S2A", "031", "02.04"),
        ),
        ("S2A_53NMJ_20170105_0_L2A.tif", Facts(day(2017, 1, 5), "S2A")),
        (
            "S1A_IW_GRDH_1SDV_20180516T031409_20180516T031434_021929_025E32_6E25.tif",
            Facts(day(2018, 5, 16, 3, 14, 9), "S1A", "157"),
        ),
        (
            "s1b-iw-grd-vv-20180516t031409-20180516t031434-010929-025e32-001.tiff",
            Facts(day(2018, 5, 16, 3, 14, 9), "S1B", "053"),
        ),
        ("LC08_L1TP_039037_20150728_20160917_01_T1_B4.TIF", Facts(day(2015, 7, 28), "LC08", "039", "C01")),
        ("LC80390372015209LGN00_B4.tif", Facts(day(2015, 7, 28), "LC8", "039")),
        ("aerial_2024-05-06.tif", Facts(day(2024, 5, 6))),
        ("20240506T070809_vv.tif", Facts(day(2024, 5, 6, 7, 8, 9))),
        ("2024_05_06 over 2023.tif", Facts(day(2024, 5, 6))),
        ("run20231399_20240506.tif", Facts(day(2024, 5, 6))),  # 13 is no month
        ("tile_1234567890.tif", Facts()),
        ("scene.tif", Facts()),
        ("2020-01-01/scene.tif", Facts()),  # a folder's date may be that of anything
    ],
)
def test_names_tell(path: str, facts: Facts) -> None:
    assert facts_of_path(path) == facts


@pytest.mark.parametrize("text", ["2024-05-06", "20240506", "2024-05-06T00:00:00Z", " 2024-05-06T02:00:00+02:00 "])
def test_dates_as_people_write_them(text: str) -> None:
    assert parse_date(text, "here") == day(2024, 5, 6)


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "06.05.2024", "0001-01-01T00:00:00+14:00", "9" * 200])
def test_what_is_no_date_is_told_with_its_place(text: str) -> None:
    with pytest.raises(InputError, match="line 3"):
        parse_date(text, "t.csv, line 3")


def test_a_table_goes_before_names(tmp_path: Path) -> None:
    file = tmp_path / "scenes.csv"
    file.write_text(
        "moving,date,platform,orbit,baseline,series,name,moving_bands\n"
        "a_20200101.tif,,,,,,,\n"
        "b_20200101.tif,2021-02-03,drone,7,v2,north,bee,2\n"
    )
    plain, told = find_scenes(file)
    assert plain == Scene(str(tmp_path / "a_20200101.tif"), Facts(day(2020, 1, 1)))
    assert told.facts == Facts(day(2021, 2, 3), "drone", "7", "v2")
    assert (told.series, told.name, told.options) == ("north", "bee", {"moving_bands": "2"})


def test_a_json_table_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "scenes.json"
    file.write_text(json.dumps([{"moving": "b.tif", "date": "2021-02-03", "moving_bands": [2, 1], "orbit": None}]))
    (scene,) = find_scenes(file)
    assert scene.facts == Facts(day(2021, 2, 3))
    assert scene.options == {"moving_bands": "2,1"}


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("t.csv", "movin,date\na,\n", InputError, "needs the column moving"),
        ("t.csv", "moving,datum\na,\n", ConfigError, "unknown column 'datum'"),
        ("t.csv", "moving,date\na.tif,soon\n", InputError, "line 2: 'soon' is no date"),
        ("t.csv", "moving,reference\na.tif,b.tif\nc.tif,\n", InputError, "1 of 2 scenes name no reference"),
        ("t.csv", "moving\n", InputError, "holds no scene"),
        ("t.json", "[1]", InputError, "scene 1 is no object"),
        ("t.json", '[{"movin": "a"}]', ConfigError, "scene 1: unknown column 'movin'"),
        ("t.json", "{", ReadError, "is not JSON"),
        ("t.json", "{}", InputError, "no STAC Item, Collection"),
        ("t.json", "[" * 100_000, ReadError, "nested too deep"),
        ("t.json", '{"type": "Catalog"}', InputError, "holds no scene"),
        (
            "t.json",
            '{"type": "Catalog", "links": [{"rel": "item", "href": "https://x/i.json"}]}',
            UnsupportedError,
            "net",
        ),
        ("t.json", '{"type": "Catalog", "links": [{"rel": "child", "href": "gone.json"}]}', ReadError, "gone.json"),
    ],
)
def test_what_is_wrong_with_a_list_is_told_in_one_line(
    name: str, content: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(error, match=message) as caught:
        find_scenes(file)
    assert "\n" not in str(caught.value)


def test_folders_with_and_without_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b_2020-01-02.tif", "a.png", "notes.txt", "deep/c.tif", ".hidden.tif"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(scene.image).name for scene in find_scenes(tmp_path)] == ["a.png", "b_2020-01-02.tif"]
    assert [Path(scene.image).name for scene in find_scenes(tmp_path, glob="**/*.tif")] == ["b_2020-01-02.tif", "c.tif"]
    for glob, error in (("../*", ConfigError), ("/etc/*", ConfigError), ("*.jp2", InputError), ("", ConfigError)):
        with pytest.raises(error):
            find_scenes(tmp_path, glob=glob)


def item(name: str, **properties: Any) -> dict[str, Any]:
    told = {"datetime": "2021-01-04T10:30:00Z", "platform": "sentinel-2a", "sat:relative_orbit": 94, **properties}
    assets = {
        "visual": {"href": f"./{name}.tif", "type": "image/tiff"},
        "B08": {"href": f"{name}_B08.tif", "type": "image/tiff", "eo:bands": [{"name": "B08", "common_name": "nir"}]},
    }
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": told, "assets": assets, "links": []}


def test_a_catalogue_is_walked_and_its_items_tell(tmp_path: Path) -> None:
    (tmp_path / "year").mkdir()
    (tmp_path / "year" / "one.json").write_text(json.dumps(item("one", **{"s2:processing_baseline": "02.14"})))
    (tmp_path / "two.json").write_text(json.dumps(item("two", datetime=None, start_datetime="2022-01-04T00:00:00Z")))
    links = [{"rel": rel, "href": href} for rel, href in (("root", "./catalog.json"), ("item", "one.json"))]
    # A link back to the root is a circle that ends.
    child = {"type": "Collection", "links": [*links[1:], {"rel": "child", "href": "../catalog.json"}]}
    (tmp_path / "year" / "collection.json").write_text(json.dumps(child))
    children = [{"rel": "child", "href": "./year/collection.json"}, {"rel": "item", "href": "./two.json"}]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": [links[0], *children]}))
    one, two = find_scenes(tmp_path / "catalog.json", asset="B08")
    assert one.image == f"{tmp_path / 'year' / 'one.json'}#B08"
    assert one.facts == Facts(day(2021, 1, 4, 10, 30), "sentinel-2a", "094", "02.14")
    assert two.facts.date == day(2022, 1, 4)


def test_an_item_collection_names_files_and_modalities(tmp_path: Path) -> None:
    file = tmp_path / "items.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [item("a"), item("b")]}))
    scenes = find_scenes(file, asset="B08")
    assert [scene.image for scene in scenes] == [str(tmp_path / "a_B08.tif"), str(tmp_path / "b_B08.tif")]
    assert {scene.modality for scene in scenes} == {"nir"}
    with pytest.raises(InputError, match="no asset"):
        find_scenes(file, asset="B99")
    with pytest.raises(ConfigError, match="glob goes with a folder"):
        find_scenes(file, glob="*.tif")


def test_pairs_of_a_list(tmp_path: Path) -> None:
    (scene,) = find_scenes([(tmp_path / "a.tif", tmp_path / "b.tif")])
    assert scene.reference == str(tmp_path / "b.tif")
    with pytest.raises(InputError, match="1 of 2"):
        find_scenes([(tmp_path / "a.tif", tmp_path / "b.tif"), tmp_path / "c.tif"])
