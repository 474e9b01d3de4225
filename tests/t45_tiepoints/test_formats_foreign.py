"""Tie points as other programs and people write them: conventions, old versions, mistakes, malice."""

import json
import sqlite3
import struct

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform as reproject

from somareg.errors import ConfigError, GeoreferenceError, InputError, ReadError, SomaregError, UnsupportedError
from somareg.tiepoints.formats import convert_tie_points, read_tie_points
from somareg.types import Grid

UTM, LONLAT = (rasterio.CRS.from_epsg(code).to_wkt() for code in (32632, 4326))
REFERENCE = Grid(400, 300, (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), UTM)
MOVING = Grid(420, 330, (9.0, 0.0, 499900.0, 0.0, -9.0, 5000100.0), UTM)
PLAIN = Grid(420, 330)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# --- QGIS ----------------------------------------------------------------------------------------------------------

# Column 10, row 20 counted from the corner of the first pixel is the centre (9.5, 19.5).
ROWS = "500105,4999895,10,{sign}20,1,0,0,0.5\n500205,4999795,30,{sign}40.5,0,0,0,0\n"


@pytest.mark.parametrize(
    "header", ["mapX,mapY,sourceX,sourceY,enable,dX,dY,residual", "mapX,mapY,pixelX,pixelY,enable"]
)
@pytest.mark.parametrize("sign", ["-", ""])
def test_qgis_points_of_a_plain_image(tmp_path, header, sign):
    """Rows go down with a minus in QGIS; some scripts leave it out, and no row is negative, so both can be told."""
    path = written(tmp_path / "a.points", f"#CRS: {' '.join(UTM.split())}\n{header}\n{ROWS.format(sign=sign)}")
    points = read_tie_points(path, reference=REFERENCE, moving=PLAIN)
    np.testing.assert_allclose(points.moving_xy, [[9.5, 19.5], [29.5, 40.0]])
    # Map (500105, 4999895) lies 10.5 pixels right and down of the corner: the centre of pixel (10, 10).
    np.testing.assert_allclose(points.reference_xy, [[10, 10], [20, 20]], atol=1e-9)
    assert points.inlier.tolist() == [True, False]


def test_qgis_points_of_a_georeferenced_image_are_its_map_coordinates(tmp_path):
    path = written(
        tmp_path / "a.points", "#CRS: EPSG:32632\nmapX,mapY,sourceX,sourceY,enable\n500105,4999895,500000,5000000,1\n"
    )
    points = read_tie_points(path, reference=REFERENCE, moving=MOVING)
    np.testing.assert_allclose(points.moving_xy, MOVING.to_pixel(np.array([[500000.0, 5000000.0]])))


def test_pixels_of_a_georeferenced_image_are_taken_where_nothing_else_fits(tmp_path, caplog):
    path = written(tmp_path / "a.points", "#CRS: EPSG:32632\nmapX,mapY,pixelX,pixelY,enable\n" + ROWS.format(sign="-"))
    points = read_tie_points(path, reference=REFERENCE, moving=MOVING)
    np.testing.assert_allclose(points.moving_xy, [[9.5, 19.5], [29.5, 40.0]])
    assert "miss the image" in caplog.text


def test_qgis_points_in_another_crs_than_the_reference(tmp_path):
    lon, lat = reproject("EPSG:32632", "EPSG:4326", [500105], [4999895])
    path = written(tmp_path / "a.points", f"#CRS: EPSG:4326\nmapX,mapY,sourceX,sourceY\n{lon[0]!r},{lat[0]!r},10,-20\n")
    points = read_tie_points(path, reference=REFERENCE, moving=PLAIN)
    np.testing.assert_allclose(points.reference_xy, [[10, 10]], atol=1e-4)


def test_qgis_points_of_old_versions_with_tabs_and_without_crs(tmp_path):
    path = written(tmp_path / "a.points", "mapX\tmapY\tpixelX\tpixelY\tenable\n500105\t4999895\t10\t-20\t1\n")
    points = read_tie_points(path, reference=REFERENCE, moving=PLAIN)
    np.testing.assert_allclose(points.reference_xy, [[10, 10]], atol=1e-9)
    np.testing.assert_allclose(points.moving_xy, [[9.5, 19.5]])


def test_qgis_points_need_the_moving_image(tmp_path):
    path = written(tmp_path / "a.points", "mapX,mapY,sourceX,sourceY\n1,2,3,4\n")
    with pytest.raises(InputError, match="--moving"):
        read_tie_points(path, reference=REFERENCE)


# --- ENVI ----------------------------------------------------------------------------------------------------------


def test_envi_counts_from_one_at_the_corner(tmp_path):
    """(1, 1) is the upper left corner of the first pixel, so (1.5, 1.5) is its centre."""
    text = "; ENVI Image to Image GCP File\n; base file: a\n; warp file: b\n; Base Image (x,y), Warp Image (x,y)\n;\n"
    path = written(tmp_path / "a.pts", f"{text}   1.500000  1.500000   101.500000\t 51.250000\n\n")
    points = read_tie_points(path)
    np.testing.assert_allclose(points.reference_xy, [[0, 0]])
    np.testing.assert_allclose(points.moving_xy, [[100, 49.75]])
    assert np.isnan(points.displacement).all()


@pytest.mark.parametrize(
    ("projection", "epsg"),
    [
        ("Geographic Lat/Lon, WGS-84, units=Degrees", 4326),
        ("UTM, 32, North, WGS-84, units=Meters", 32632),
        ("UTM, 56, South, WGS-84, units=Meters", 32756),
    ],
)
def test_envi_image_to_map(tmp_path, projection, epsg):
    text = f"; ENVI Orthorectification Ground Control Points File\n; projection info = {{{projection}}}\n"
    path = written(tmp_path / "a.pts", f"{text}; Map (x,y,elev), Image (x,y)\n;\n9.5 45.0 2000.0 2.5 3.5\n")
    grid = Grid(100, 100, (0.1, 0, 9, 0, -0.1, 46), rasterio.CRS.from_epsg(epsg).to_wkt())
    points = read_tie_points(path, reference=grid)
    np.testing.assert_allclose(points.reference_xy, [[4.5, 9.5]])
    np.testing.assert_allclose(points.moving_xy, [[1, 2]])


def test_envi_projections_that_are_not_known_are_the_references_or_refused(tmp_path, caplog):
    text = "; projection info = {Gauss-Krueger, whatever}\n; Map (x,y), Image (x,y)\n500105 4999895 2.5 3.5\n"
    path = written(tmp_path / "a.pts", text)
    np.testing.assert_allclose(read_tie_points(path, reference=REFERENCE).reference_xy, [[10, 10]], atol=1e-9)
    assert "taken to be that of the reference" in caplog.text
    with pytest.raises(UnsupportedError, match="Gauss-Krueger"):
        read_tie_points(path)
    lamb = Grid(9, 9, REFERENCE.transform, rasterio.CRS.from_epsg(3035).to_wkt())
    points = written(tmp_path / "a.points", "#CRS: EPSG:3035\nmapX,mapY,sourceX,sourceY\n1,2,3,-4\n")
    with pytest.raises(UnsupportedError, match="give the reference image"):
        convert_tie_points(points, tmp_path / "b.pts", moving=PLAIN)
    assert convert_tie_points(points, tmp_path / "b.pts", moving=PLAIN, reference=lamb).written == 1


# --- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "ref_x,ref_y,mov_x,mov_y\n1,2,3.5,4\n",
        "\ufeffREF_X;REF_Y;MOV_X;MOV_Y\n1;2;3.5;4\n",
        "# by hand\nmoving_y\tmoving_x\treference_y\treference_x\tcomment\n\n4\t3.5\t2\t1\thouse, corner\n",
        'base_x,base_y,warp_x,warp_y,name\n1,2,3.5,4,"a, b"\n',
    ],
)
def test_tables_of_people(tmp_path, text):
    points = read_tie_points(written(tmp_path / "a.csv", text))
    np.testing.assert_array_equal(points.reference_xy, [[1, 2]])
    np.testing.assert_array_equal(points.moving_xy, [[3.5, 4]])
    assert points.inlier.all() and np.isnan(points.sigma_px).all()


@pytest.mark.parametrize("names", ["lon,lat", "longitude,latitude", "map_x,map_y"])
def test_tables_on_the_map(tmp_path, names):
    place = (500105, 4999895)
    if names != "map_x,map_y":
        place = tuple(v[0] for v in reproject("EPSG:32632", "EPSG:4326", [500105], [4999895]))
    path = written(tmp_path / "a.csv", f"{names},mov_x,mov_y\n{place[0]!r},{place[1]!r},3,4\n")
    np.testing.assert_allclose(read_tie_points(path, reference=REFERENCE).reference_xy, [[10, 10]], atol=1e-4)
    with pytest.raises(InputError, match="--reference"):
        read_tie_points(path)


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(path, *features, **more):
    return written(path, json.dumps({"type": "FeatureCollection", "features": features, **more}))


def test_drawn_lines_lead_from_the_claimed_place_to_the_true_one(tmp_path):
    line = {"type": "LineString", "coordinates": [[499904.5, 5000095.5], [500105, 4999895, 12.0]]}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    path = collection(tmp_path / "a.geojson", feature(line), crs=crs)
    points = read_tie_points(path, reference=REFERENCE, moving=MOVING)
    np.testing.assert_allclose(points.reference_xy, [[10, 10]], atol=1e-9)
    np.testing.assert_allclose(points.moving_xy, [[0, 0]], atol=1e-9)


def test_points_with_a_pixel_of_the_moving_image(tmp_path):
    lon, lat = reproject("EPSG:32632", "EPSG:4326", [500105], [4999895])
    point = {"type": "Point", "coordinates": [lon[0], lat[0]]}
    path = collection(tmp_path / "a.geojson", feature(point, mov_x=3, mov_y=4, inlier=False))
    points = read_tie_points(path, reference=REFERENCE)
    np.testing.assert_allclose(points.reference_xy, [[10, 10]], atol=1e-4)
    assert points.moving_xy.tolist() == [[3, 4]] and not points.inlier.any()
    bare = collection(tmp_path / "b.geojson", feature(point))
    with pytest.raises(InputError, match=r"feature 1: .*mov_x and mov_y, or draw a line"):
        read_tie_points(bare, reference=REFERENCE)


def geopackage(path, blobs, *, layer="drawn", kind="TABLE", srs=32632):
    """A GeoPackage as a person draws it, with a column that has nothing to do with us."""
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_name, srs_id, organization, organization_coordsys_id, definition);"
            "CREATE TABLE gpkg_geometry_columns (table_name, column_name, geometry_type_name, srs_id, z, m);"
            "CREATE TABLE store (id INTEGER PRIMARY KEY, shape BLOB, remark TEXT);"
        )
        database.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('x', 32632, 'epsg', 32632, '')")
        database.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'shape', 'LINESTRING', ?, 0, 0)", (layer, srs))
        database.executemany("INSERT INTO store (shape, remark) VALUES (?, 'x')", [(blob,) for blob in blobs])
        if kind == "TABLE":
            quoted = layer.replace('"', '""')
            database.execute(f'ALTER TABLE store RENAME TO "{quoted}"')
        else:
            database.execute(f'CREATE VIEW "{layer}" AS SELECT * FROM store')
    return path


VERTICES = ((499904.5, 5000095.5), (500105.0, 4999895.0))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
@pytest.mark.parametrize("envelope", [0, 1, 4])
def test_drawn_geopackages(tmp_path, order, dimensions, envelope):
    """Either byte order, heights and measures, with and without an envelope, a layer name that needs quotes."""
    head = struct.pack("<2sBBi", b"GP", 0, 1 | envelope << 1, 32632) + b"\0" * {0: 0, 1: 32, 4: 64}[envelope]
    code = {2: 2, 3: 1002, 4: 3002}[dimensions]
    body = struct.pack(f"{order}BII", order == "<", code, 2)
    body += b"".join(struct.pack(f"{order}{dimensions}d", *v, *[5.0] * (dimensions - 2)) for v in VERTICES)
    path = geopackage(tmp_path / "a.gpkg", [head + body, None], layer='my "best" points')
    points = read_tie_points(path, reference=REFERENCE, moving=MOVING)
    np.testing.assert_allclose(points.reference_xy[0], [10, 10], atol=1e-9)
    np.testing.assert_allclose(points.moving_xy[0], [0, 0], atol=1e-9)
    assert np.isnan(points.reference_xy[1]).all()


@pytest.mark.parametrize("mapping", ["2,1", None])
def test_vrts_of_gdal_give_longitude_first_unless_they_say_otherwise(tmp_path, mapping):
    def vrt(x, y, mapping):
        told = f' dataAxisToSRSAxisMapping="{mapping}"' if mapping else ""
        return (
            f"<VRTDataset rasterXSize='9' rasterYSize='9'><GCPList Projection='EPSG:4326'{told}>"
            f"<GCP Id='a' Pixel='1.5' Line='2.5' X='{x}' Y='{y}' Z='100'/></GCPList></VRTDataset>"
        )

    grid = Grid(10, 10, (1, 0, 9, 0, -1, 46), LONLAT)
    usual = read_tie_points(written(tmp_path / "a.vrt", vrt(9.5, 45.5, mapping)), reference=grid)
    swapped = read_tie_points(written(tmp_path / "b.vrt", vrt(45.5, 9.5, "1,2")), reference=grid)
    for points in (usual, swapped):
        np.testing.assert_allclose(points.reference_xy, [[0, 0]], atol=1e-9)
        np.testing.assert_allclose(points.moving_xy, [[1, 2]])
    east = vrt(500105, 4999895, "1,2").replace("4326", "32632")  # easting first is what this CRS says itself
    points = read_tie_points(written(tmp_path / "c.vrt", east), reference=REFERENCE)
    np.testing.assert_allclose(points.reference_xy, [[10, 10]], atol=1e-9)


# --- mistakes ------------------------------------------------------------------------------------------------------

GOOD = {
    "csv": ("ref_x,ref_y,mov_x,mov_y\n", "1,2,3,4\n", "line"),
    "points": ("mapX,mapY,sourceX,sourceY,enable\n", "500105,4999895,10,-20,1\n", "line"),
    "pts": ("; Base Image (x,y), Warp Image (x,y)\n", "1 2 3 4\n", "line"),
}


@pytest.mark.parametrize("suffix", GOOD)
@pytest.mark.parametrize("bad", ["1,2,x,4", "1,2", "1,2,inf,4", "1,2,3,4,5,6,7,8,9,1e999"])
def test_a_bad_row_is_named_and_loses_nothing(tmp_path, suffix, bad, caplog):
    header, good, what = GOOD[suffix]
    bad = bad if suffix != "pts" else bad.replace(",", " ")
    if suffix == "points" and bad.endswith("1e999"):
        bad = "1,2,3,4,perhaps"
    path = written(tmp_path / f"a.{suffix}", f"{header}{good}{bad}\n{good}")
    kept = path.read_bytes()
    images = {"reference": REFERENCE, "moving": PLAIN}
    with pytest.raises(InputError, match=rf"a\.{suffix}, {what} 3: .*--skip-bad-rows") as caught:
        read_tie_points(path, **images)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == kept
    points = read_tie_points(path, **images, skip_bad_rows=True)
    assert len(points) == 2 and np.isfinite(points.moving_xy).all()
    assert f"{what} 3" in caplog.text and "left out" in caplog.text


def test_a_bad_row_stops_a_conversion_before_anything_is_written(tmp_path):
    path = written(tmp_path / "a.csv", "ref_x,ref_y,mov_x,mov_y\n1,2,3,4\n1,2,?,4\n")
    out = written(tmp_path / "b.geojson", "mine")
    with pytest.raises(InputError, match="line 3"):
        convert_tie_points(path, out, overwrite=True)
    assert out.read_text() == "mine"
    done = convert_tie_points(path, out, overwrite=True, skip_bad_rows=True)
    assert (done.read, done.written) == (1, 1)


BROKEN = {
    "a.csv": ("", "names? header|no header", InputError),
    "b.csv": ("x,y\n1,2\n", "no columns ref_x, ref_y", InputError),
    "c.csv": ("ref_x,ref_y\n1,2\n", "no columns mov_x, mov_y", InputError),
    "a.geojson": ("{", "not GeoJSON", InputError),
    "b.geojson": ("[]", "FeatureCollection", InputError),
    "c.geojson": ("[" * 100_000, "not GeoJSON", InputError),
    "d.geojson": ('{"features": [3]}', "feature 1: not a feature", InputError),
    "e.geojson": ('{"features": [{"properties": [1]}]}', "feature 1", InputError),
    "f.geojson": ('{"features": [{"geometry": {"type": "Polygon"}}]}', "feature 1: geometry Polygon", InputError),
    "g.geojson": ('{"features": [{"geometry": {"type": "Point", "coordinates": 3}}]}', "feature 1", InputError),
    "h.geojson": ('{"features": [], "crs": {"properties": {"name": "mars"}}}', "CRS", GeoreferenceError),
    "a.points": ("hello\n", "no QGIS points file", InputError),
    "b.points": ("#CRS: nowhere\nmapX,mapY,sourceX,sourceY\n", "CRS of", GeoreferenceError),
    "a.pts": ("1 2 3 4\n", "does not say what its columns are", InputError),
    "a.gpkg": ("not a database at all, but long enough to look at it", "not a GeoPackage", ReadError),
    "a.vrt": ("<VRTDataset/>", "no ground control points", InputError),
    "b.vrt": ("<VRTDataset", "not a VRT", InputError),
    "c.vrt": ("<VRTDataset><GCPList Projection='x'/></VRTDataset>", "CRS", GeoreferenceError),
    "d.vrt": ("<a><GCPList Projection='EPSG:4326'><GCP Pixel='1'/></GCPList></a>", "point 1: Line", InputError),
    "a.tif": ("II*", "cannot be opened", ReadError),
    "a.xyz": ("1 2", r"unknown suffix '\.xyz'", ConfigError),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_none(tmp_path, name):
    text, words, kind = BROKEN[name]
    path = written(tmp_path / name, text or "\n")
    with pytest.raises(kind, match=words) as caught:
        read_tie_points(path, reference=REFERENCE, moving=PLAIN)
    assert "\n" not in str(caught.value) and (name in str(caught.value))


@pytest.mark.parametrize("suffix", ["csv", "geojson", "gpkg", "points", "pts", "vrt", "tif"])
def test_files_that_cannot_be_read(tmp_path, suffix):
    with pytest.raises(ReadError, match="does not exist"):
        read_tie_points(tmp_path / f"none.{suffix}")
    binary = tmp_path / f"binary.{suffix}"
    binary.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SomaregError, match="binary"):
        read_tie_points(binary, reference=REFERENCE, moving=PLAIN)


def test_a_tiff_without_control_points(tmp_path):
    with rasterio.open(
        tmp_path / "a.tif", "w", width=9, height=9, count=1, dtype="uint8", crs="EPSG:32632",
        transform=rasterio.Affine(*REFERENCE.transform),
    ):  # fmt: skip
        pass
    with pytest.raises(InputError, match="no ground control points"):
        read_tie_points(tmp_path / "a.tif", reference=REFERENCE)


# --- malice --------------------------------------------------------------------------------------------------------


def test_entities_are_not_expanded(tmp_path):
    """A billion laughs, and a file that should stay where it is."""
    secret = written(tmp_path / "secret", "s")
    for declared in ('<!ENTITY a "ha">', f'<!ENTITY a SYSTEM "{secret.as_uri()}">'):
        path = written(tmp_path / "a.vrt", f"<!DOCTYPE v [{declared}]><VRTDataset>&a;</VRTDataset>")
        with pytest.raises(InputError, match="document type"):
            read_tie_points(path)


def test_views_that_never_end_are_not_asked(tmp_path):
    path = geopackage(tmp_path / "a.gpkg", [], kind="VIEW")
    with sqlite3.connect(path) as database:
        database.execute("DROP VIEW drawn")
        database.execute(
            "CREATE VIEW drawn AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i, NULL AS shape FROM n"
        )
    with pytest.raises(InputError, match="no layer"):
        read_tie_points(path)  # asked, the view would never end, nor would this


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "format of GeoPackage"),
        ("text", "format of GeoPackage"),
        (b"GP\0\x0f\0\0\0\0", "envelope"),
        (b"GP\0\x01\0\0\0\0", "cut short"),
        (b"GP\0\x01\0\0\0\0\x01\x02\0\0\0\xff\xff\xff\xff", "cut short"),
        (b"GP\0\x01\0\0\0\0\x01\x03\0\0\0\x01\0\0\0", "neither a point nor a line"),
    ],
)
def test_geometries_that_lie_about_themselves(tmp_path, blob, words):
    path = geopackage(tmp_path / "a.gpkg", [blob])
    with pytest.raises(InputError, match=f"record 1: .*{words}"):
        read_tie_points(path, reference=REFERENCE, moving=MOVING)


def test_reading_leaves_the_geopackage_as_it_is(tmp_path):
    path = geopackage(tmp_path / "a.gpkg", [None])
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    path.chmod(0o400)
    read_tie_points(path, reference=REFERENCE, moving=MOVING)
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before
