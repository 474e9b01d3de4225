"""displacement.tif: written, read back, conventions kept."""

import dataclasses
import json

import numpy as np
import pytest
import rasterio

from somareg.errors import InputError, ReadError, UnsupportedError
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.geometry.lattice import pixel_centres
from somareg.io import displacement as module
from somareg.io import read_estimate, write_displacement
from somareg.io.writer import write_geotiff
from somareg.types import Displacement, Estimate, Grid

WKT = rasterio.CRS.from_epsg(32632).to_wkt()
REF = Grid(160, 120, (10, 0, 500000.123456789, 0, -10, 5000000.1), WKT)
MOV = Grid(300, 200, (8.1, 0.1, 499000, 0.2, -8, 5000900), "EPSG:4326")
AFFINE = AffineTransform.from_parameters(rotation_deg=2, scale=1.03, shift=(5, -8), centre=(80, 60))


def bumpy(step=16):
    y, x = np.mgrid[0:12, 0:12].astype(float)
    return FieldTransform(np.stack([np.sin(x / 2), np.cos(y / 3)]), step=(step, step))


def written(path, correction, matrix, reference=REF, moving=MOV):
    xy = pixel_centres(0, 0, reference.width, reference.height)
    array = (correction(xy) - xy).T.reshape(2, reference.height, reference.width).astype(np.float32)
    certainty, sigma = np.full(reference.shape, 0.5, np.float32), np.full(reference.shape, 0.7, np.float32)
    certainty[:, :40], sigma[:, :40] = 0.0, np.nan
    field = Displacement(array, certainty, sigma, reference)
    return write_displacement(path, field, Estimate(correction, reference, moving), matrix, {"RUN": "7"})


def test_file_says_what_it_is(tmp_path):
    with rasterio.open(written(tmp_path / "displacement.tif", AFFINE, AFFINE.matrix)) as dataset:
        assert dataset.descriptions == ("dx", "dy", "certainty", "sigma")
        assert dataset.units == ("px", "px", "1", "px") and dataset.dtypes == ("float32",) * 4
        assert np.isnan(dataset.nodata)
        sigma = dataset.read(4)
        assert np.isnan(sigma[:, :40]).all() and (sigma[:, 40:] == np.float32(0.7)).all()
        assert dataset.tags()["SOMAREG_FORMAT"] == "1" and dataset.tags()["RUN"] == "7"
        assert dataset.crs == rasterio.CRS.from_epsg(32632)
        dx, dy = dataset.read([1, 2])[:, 30, 40]
    np.testing.assert_allclose(AFFINE(np.array([[40.0, 30.0]]))[0], (40 + dx, 30 + dy), atol=1e-4)


@pytest.mark.parametrize("bands", [3, 2])
def test_files_of_earlier_versions_and_of_two_bands_are_read(tmp_path, bands):
    correction = AFFINE @ bumpy()
    path = written(tmp_path / "displacement.tif", correction, AFFINE.matrix)
    with rasterio.open(path) as dataset:
        data, profile, tags = dataset.read(), dataset.profile, dataset.tags()
    profile.update(count=bands, driver="GTiff", nodata=None)
    old = tmp_path / "old.tif"
    with rasterio.open(old, "w", **profile) as dataset:
        dataset.write(data[:bands])
        dataset.update_tags(**tags)
    nodes = pixel_centres(0, 0, REF.width, REF.height)
    np.testing.assert_allclose(read_estimate(old).correction(nodes), correction(nodes), atol=1e-4)


def test_overviews_average_what_is_known(tmp_path):
    big = Grid(1500, 1200, (8, 0, 5e5, 0, -8, 5e6), "EPSG:32632")
    array = np.zeros((2, *big.shape), np.float32)
    sigma = np.full(big.shape, 0.7, np.float32)
    sigma[:, ::2] = np.nan
    estimate = Estimate(AffineTransform.identity(), big, big)
    path = write_displacement(tmp_path / "displacement.tif", Displacement(array, sigma * 0 + 1, sigma, big), estimate)
    with rasterio.open(path, overview_level=0) as dataset:
        np.testing.assert_allclose(dataset.read(4), 0.7, rtol=1e-6)
        assert not dataset.read(1).any()


@pytest.mark.parametrize("where", ["displacement.tif", ".", "report.json"])
def test_estimate_round_trip(tmp_path, where):
    correction = AFFINE @ bumpy()
    written(tmp_path / "displacement.tif", correction, AFFINE.matrix)
    estimate = read_estimate(tmp_path / where)
    assert estimate.reference == REF and estimate.moving == MOV
    nodes = pixel_centres(0, 0, REF.width, REF.height)
    np.testing.assert_allclose(estimate.correction(nodes), correction(nodes), atol=1e-4)
    between = np.random.default_rng(0).uniform((0, 0), (159, 119), (500, 2))
    np.testing.assert_allclose(estimate.correction(between), correction(between), atol=0.02)
    np.testing.assert_allclose(estimate.correction.inverse(estimate.correction(between)), between, atol=1e-3)


def test_beyond_the_edge_the_affine_goes_on(tmp_path):
    correction = AFFINE @ bumpy()
    estimate = read_estimate(written(tmp_path / "displacement.tif", correction, AFFINE.matrix))
    for edge, away in (((159.0, 60.0), (400.0, 60.0)), ((80.0, 0.0), (80.0, -300.0))):
        there = estimate.correction(np.array([edge, away]))
        held = AFFINE.inverse(there[0][None])[0] - edge  # the local displacement at the edge ...
        np.testing.assert_allclose(there[1], AFFINE(np.array([away]) + held)[0], atol=1e-3)  # ... is held outside


def test_purely_affine_comes_back_affine(tmp_path):
    estimate = read_estimate(written(tmp_path / "displacement.tif", AFFINE, AFFINE.matrix))
    assert estimate.correction.is_affine
    np.testing.assert_allclose(estimate.correction.matrix, AFFINE.matrix)


def test_identity_comes_back_as_exactly_nothing(tmp_path):
    identity = AffineTransform.identity()
    estimate = read_estimate(written(tmp_path / "displacement.tif", identity, None))
    xy = np.random.default_rng(0).uniform(-50, 500, (50, 2))
    np.testing.assert_array_equal(estimate.correction(xy), xy)


def test_without_affine_tag_the_field_is_held(tmp_path):
    estimate = read_estimate(written(tmp_path / "displacement.tif", bumpy(), None))
    nodes = pixel_centres(0, 0, REF.width, REF.height)
    np.testing.assert_allclose(estimate.correction(nodes), bumpy()(nodes), atol=1e-5)


def test_pixel_mode_grids(tmp_path):
    plain = written(tmp_path / "displacement.tif", AFFINE, AFFINE.matrix, Grid(160, 120), Grid(100, 90))
    estimate = read_estimate(plain)
    assert estimate.reference == Grid(160, 120) and estimate.moving == Grid(100, 90)


def test_very_large_fields_are_thinned(tmp_path, monkeypatch):
    smooth = AFFINE @ FieldTransform(bumpy(64).array, step=(64.0, 64.0))
    path = written(tmp_path / "displacement.tif", smooth, AFFINE.matrix)
    monkeypatch.setattr(module, "_MAX_NODES", 2000)
    thin = read_estimate(path).correction
    assert isinstance(thin, type(compose(AFFINE, bumpy()))) and thin.parts[1].array[0].size <= 2000
    xy = np.random.default_rng(0).uniform((0, 0), (152, 112), (300, 2))
    np.testing.assert_allclose(thin(xy), smooth(xy), atol=0.02)


def retagged(path, **tags):
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(**tags)
    return path


@pytest.mark.parametrize(
    ("tags", "kind", "words"),
    [
        ({"SOMAREG_FORMAT": "2"}, UnsupportedError, "update somareg"),
        ({"SOMAREG_FORMAT": "new"}, UnsupportedError, "format new"),
        ({"SOMAREG_REFERENCE_GRID": "{"}, InputError, "SOMAREG_REFERENCE_GRID"),
        ({"SOMAREG_MOVING_GRID": '{"width": 5}'}, InputError, "SOMAREG_MOVING_GRID"),
        ({"SOMAREG_MOVING_GRID": "[]"}, InputError, "SOMAREG_MOVING_GRID"),
        ({"SOMAREG_AFFINE": "[[1,0,0],[2,0,0]]"}, InputError, "SOMAREG_AFFINE"),
        ({"SOMAREG_AFFINE": '"x"'}, InputError, "SOMAREG_AFFINE"),
        ({"SOMAREG_REFERENCE_GRID": json.dumps(dataclasses.asdict(Grid(9, 9)))}, InputError, "another size"),
    ],
)
def test_malformed_tags(tmp_path, tags, kind, words):
    path = retagged(written(tmp_path / "displacement.tif", AFFINE, AFFINE.matrix), **tags)
    with pytest.raises(kind, match=words):
        read_estimate(path)


def test_other_files_are_not_estimates(tmp_path):
    with pytest.raises(ReadError, match=r"give a displacement\.tif"):
        read_estimate(tmp_path)
    with pytest.raises(ReadError, match="no estimate"):
        read_estimate(tmp_path / "report.json")
    plain = write_geotiff(tmp_path / "plain.tif", np.ones((3, 70, 70), np.float32), Grid(70, 70))
    with pytest.raises(InputError, match="not a displacement file"):
        read_estimate(plain)
    text = tmp_path / "displacement.tif"
    text.write_text("dx,dy")
    with pytest.raises(ReadError, match="cannot be opened"):
        read_estimate(tmp_path)


def test_values_that_are_not_finite_are_refused(tmp_path):
    array = np.zeros((2, 120, 160), np.float32)
    array[0, 5, 5] = np.nan
    flow = Displacement(array, *np.zeros((2, 120, 160), np.float32), REF)
    path = write_displacement(tmp_path / "d.tif", flow, Estimate(AFFINE, REF, MOV))
    with pytest.raises(InputError, match="not finite"):
        read_estimate(path)
