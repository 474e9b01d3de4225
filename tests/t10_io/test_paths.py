"""What a path may name beside a plain file: pages, variables, product folders; and what is said of what is not read."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.shutil import copy

from somareg.errors import GeoreferenceError, InputError, ReadError, SomaregError, UnsupportedError
from somareg.io import georeference, read_raster
from somareg.io.ground_control import gdal_points
from somareg.io.paths import file_behind, named, whole_path
from tests.hdf5_files import EXTERNAL, EXTERNAL_NEW, GCOV, VIEW, write_hdf5

T = Affine(10.0, 0.0, 400000.0, 0.0, -10.0, 3800000.0)
SIDE = 72


def tif(path: Path, value: int = 1, *, bands: int = 1, **more: Any) -> Path:
    data = (np.arange(bands * SIDE * SIDE).reshape(bands, SIDE, SIDE) % 7 + value).astype(np.uint8)
    profile = {"driver": "GTiff", "count": bands, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(path, "w", **({"transform": T, "crs": "EPSG:32611"} | profile | more)) as file,
    ):
        file.write(data)
    return path


def read(path: str | Path) -> Any:
    return read_raster(path, role="moving")


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    path = tif(tmp_path / "two.tif")
    tif(path, 100, APPEND_SUBDATASET="YES")
    return path


def test_the_first_page_is_read_and_the_others_are_told(pages: Path) -> None:
    raster = read(pages)
    assert raster.data.max() < 10
    assert any("page 1 of 2" in note and "two.tif:2" in note for note in raster.notes)


@pytest.mark.parametrize("form", ["{}:2", "GTIFF_DIR:2:{}", "gtiff_dir:2:{}"])
def test_a_page_is_named(pages: Path, form: str) -> None:
    raster = read(form.format(pages))
    assert raster.data.min() >= 100
    assert raster.grid == read(pages).grid
    assert raster.sha256 == read(pages).sha256
    assert not raster.notes
    assert file_behind(form.format(pages)) == pages


@pytest.mark.parametrize("page", ["3", "0", "-1", "vv", "2.0"])
def test_no_such_page(pages: Path, page: str) -> None:
    with pytest.raises(InputError, match="pages 1 to 2"):
        read(f"{pages}:{page}")
    with pytest.raises(InputError, match="one image only"):
        read(f"{tif(pages.with_name('one.tif'))}:{'2' if page == '0' else page}")


def test_a_file_that_is_called_so_is_that_file(tmp_path: Path, pages: Path) -> None:
    odd = tif(tmp_path / "two.tif:2", 50)
    assert read(odd).data.min() >= 50
    assert file_behind(odd) == odd


def test_paths_of_tables_start_at_their_folder(pages: Path) -> None:
    folder = pages.parent
    assert whole_path("two.tif:2", folder) == f"{pages}:2"
    assert whole_path("sub/../two.tif", folder) == str(pages)
    assert whole_path("GTIFF_DIR:2:two.tif", folder) == f"{pages}:2"
    assert whole_path('NETCDF:"two.tif":vv', folder) == f"{pages}:vv"
    assert whole_path("missing.tif", folder) == str(folder / "missing.tif")


# --- netCDF and HDF5 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["NC", "NC2", "NC4", "NC4C"])
def test_variables_of_netcdf(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "both.nc"
    copy(tif(tmp_path / "a.tif", bands=2), path, driver="netCDF", FORMAT=kind)
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = file.read()
    for form in ("{}:Band2", 'NETCDF:"{}":Band2', "NETCDF:{}:Band2", "{}:band2"):
        raster = read(form.format(path))
        np.testing.assert_array_equal(raster.data[0], expected[1])
        assert raster.grid.transform == tuple(T)[:6]
        assert raster.grid.crs is not None
    with pytest.raises(InputError, match="2 images; name one of Band1, Band2"):
        read(path)
    with pytest.raises(InputError, match="no image 'vv'; it has Band1, Band2"):
        read(f"{path}:vv")


def test_a_single_variable_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "one.nc"
    copy(tif(tmp_path / "a.tif"), path, driver="netCDF", FORMAT="NC4")
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(read(path).data, file.read())


def test_datasets_of_hdf5_are_named_by_their_end(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "gcov.h5", GCOV)
    where = "science/LSAR/GCOV/grids/frequencyA"
    for form in ("{}:HHHH", "{}:frequencyA/HHHH", f"{{}}://{where}/HHHH", f'HDF5:"{{}}"://{where}/HHHH'):
        raster = read(form.format(path))
        assert raster.data[0, :2, :2].tolist() == [[1.0, 1.015625], [1.015625, 1.03125]], form
        assert raster.grid.transform == tuple(T)[:6]
        assert raster.grid.crs is not None
    assert read(f"{path}:HVHV").data[0, 0, 0] == 0.25
    with pytest.raises(InputError, match=r"2 images; name one of .*HHHH, .*HVHV"):
        read(path)


@pytest.mark.parametrize("content", [EXTERNAL, EXTERNAL_NEW, VIEW])
def test_hdf5_that_leads_to_other_files_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL would read the secret's bytes as pixels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"s" * 4096)
    write_hdf5(tmp_path / "gcov.h5", GCOV)
    path = write_hdf5(tmp_path / "lure.h5", content)
    lures = [path, f"{path}:HHHH", f"HDF5:{path}://HHHH", f'NETCDF:"{path}":HHHH']
    disguised = tmp_path / "lure.tif"
    disguised.write_bytes(path.read_bytes())
    for lure in (*lures, disguised):
        with pytest.raises(UnsupportedError, match="data in other files"):
            read(lure)


def test_the_look_for_other_files_is_no_nuisance(tmp_path: Path) -> None:
    """Pixels that look like messages of the header do not point to a heap."""
    path = write_hdf5(tmp_path / "gcov.h5", GCOV)
    noise = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8)
    path.write_bytes(path.read_bytes() + noise.tobytes() + b"\x07\x00\x01\x08\x04\x03" * 500_000)
    assert read(f"{path}:HHHH").data.shape == (1, 64, 64)


@pytest.mark.parametrize(
    "address",
    [
        "NETCDF:/vsicurl/http://example.invalid/a.nc:vv",
        'NETCDF:"http://example.invalid/a.nc":vv',
        "HDF5:/vsizip/a.zip/a.h5://vv",
        "GTIFF_DIR:1:/vsicurl/http://example.invalid/a.tif",
        "https://example.invalid/a.tif:2",
    ],
)
def test_addresses_stay_refused_behind_a_prefix(address: str) -> None:
    with pytest.raises(UnsupportedError, match="not a local file"):
        read(address)


@pytest.mark.parametrize("path", ["NETCDF:missing.nc:vv", "GTIFF_DIR:2:missing.tif", "a\x00b:2", "x" * 5000, "NETCDF:"])
def test_what_is_missing_is_said_in_one_line(path: str) -> None:
    with pytest.raises(ReadError) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_vrt_is_refused_with_the_way_out(pages: Path) -> None:
    copy(str(pages), pages.with_suffix(".vrt"), driver="VRT")
    with pytest.raises(ReadError, match=r"a VRT.*gdal_translate two\.vrt OUT\.tif"):
        read(pages.with_suffix(".vrt"))


# --- RPCs -------------------------------------------------------------------------------------------------------------


def test_rpcs_alone_are_told_and_refused_beside_a_georeference(tmp_path: Path) -> None:
    rpcs = RPC(
        height_off=0.0,
        height_scale=100.0,
        lat_off=34.0,
        lat_scale=0.01,
        line_off=36.0,
        line_scale=36.0,
        long_off=-118.0,
        long_scale=0.01,
        samp_off=36.0,
        samp_scale=36.0,
        line_num_coeff=[0.0, 0.0, -1.0] + [0.0] * 17,
        line_den_coeff=[1.0] + [0.0] * 19,
        samp_num_coeff=[0.0, 1.0] + [0.0] * 18,
        samp_den_coeff=[1.0] + [0.0] * 19,
    )
    raster = read(tif(tmp_path / "rpc.tif", transform=None, crs=None, rpcs=rpcs))
    assert any("placed by RPCs only" in note and "gdalwarp -rpc" in note for note in raster.notes)
    placed = read(tif(tmp_path / "a.tif"))
    with pytest.raises(GeoreferenceError, match=r"rpc\.tif is placed by RPCs only.*gdalwarp -rpc"):
        georeference(placed.grid, raster.grid, ("a.tif", "rpc.tif"))
    assert georeference(raster.grid, raster.grid).is_affine  # two of them are matched by their pixels


# --- products ---------------------------------------------------------------------------------------------------------


def swath_points(size: float = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres and (longitude, latitude) of a descending pass: mirrored and turned."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(0, size, 5), np.linspace(0, size, 4)))
    turn = math.radians(12)
    lon = -118 - 1e-4 * (x * math.cos(turn) + y * math.sin(turn))
    lat = 34 + 1e-4 * (x * math.sin(turn) - y * math.cos(turn))
    return np.stack([x, y], -1) - 0.5, np.stack([lon, lat], -1)


def safe(folder: Path, *names: str) -> Path:
    product = folder / "S1A_IW_GRDH_1SDV_20240101.SAFE"
    for i, name in enumerate(names):
        tif(product / "measurement" / name, 10 * i, transform=None, crs="EPSG:4326", gcps=gdal_points(*swath_points()))
    (product / "manifest.safe").write_text("<xfdu/>")
    return product


GRD = ("s1a-iw-grd-vh-20240101t0-002.tiff", "s1a-iw-grd-vv-20240101t0-001.tiff")


def test_a_sentinel_1_product_is_its_co_polarised_measurement(tmp_path: Path) -> None:
    product = safe(tmp_path, *GRD)
    for path in (product, product / "manifest.safe"):
        raster = read(path)
        assert raster.data.min() == 10
        assert raster.grid.control is not None
        np.testing.assert_allclose(raster.grid.to_map(swath_points()[0]), swath_points()[1], atol=1e-7)
        told = " ".join(raster.notes)
        assert GRD[1] in told
        assert ":vh" in told
        assert "terrain is not modelled" in told
    other = read(f"{product}:vh")
    assert other.data.min() == 0
    assert other.sha256 != raster.sha256
    assert file_behind(f"{product}:vh") == product
    assert read(f"{product}:{GRD[0]}").data.min() == 0


def test_a_product_of_several_swaths_must_be_told(tmp_path: Path) -> None:
    names = [f"s1a-iw{i}-slc-{p}-20240101t0-00{i}.tiff" for i in (1, 2, 3) for p in ("vv", "vh")]
    product = safe(tmp_path, *names)
    with pytest.raises(InputError, match="6 measurements"):
        read(product)
    with pytest.raises(InputError, match="measurements"):
        read(f"{product}:vv")
    assert names[2] in read(f"{product}:iw2-vv").notes[0]


def test_folders_that_are_no_sentinel_1_product(tmp_path: Path) -> None:
    band = tmp_path / "S2A.SAFE/GRANULE/L2A/IMG_DATA/R10m/T11_B04_10m.jp2"
    band.parent.mkdir(parents=True)
    band.touch()
    with pytest.raises(ReadError, match=r"give one of its bands: .*B04_10m"):
        read(tmp_path / "S2A.SAFE")
    with pytest.raises(ReadError, match="is a folder; give a file in it"):
        read(tmp_path)


def dim(folder: Path, *bands: str, placed: bool = False) -> Path:
    """A product of SNAP: bands as ENVI files, with tie-point grids of 4 x 5 nodes."""
    product, data = folder / "S1_ML.dim", folder / "S1_ML.data"
    (data / "tie_point_grids").mkdir(parents=True)
    for i, band in enumerate(bands):
        more = {} if placed else {"transform": None, "crs": None}
        tif(data / f"{band}.img", 10 * i, driver="ENVI", **more)
    lon, lat = swath_points()[1].reshape(4, 5, 2).transpose(2, 0, 1)
    info = ""
    for name, values in (("latitude", lat), ("longitude", lon), ("incident_angle", lon)):
        values.astype(">f4").tofile(data / "tie_point_grids" / f"{name}.img")
        info += (
            f"<Tie_Point_Grid_Info><TIE_POINT_GRID_NAME>{name}</TIE_POINT_GRID_NAME><NCOLS>5</NCOLS><NROWS>4</NROWS>"
            f"<OFFSET_X>0.0</OFFSET_X><OFFSET_Y>0.0</OFFSET_Y><STEP_X>{SIDE / 4}</STEP_X><STEP_Y>{SIDE / 3}</STEP_Y>"
            "</Tie_Point_Grid_Info>\n"
        )
    product.write_text(f"<Dimap_Document>\n<Tie_Point_Grids>{info}</Tie_Point_Grids></Dimap_Document>")
    return product


def test_a_snap_product_is_placed_by_its_tie_point_grids(tmp_path: Path) -> None:
    product = dim(tmp_path, "Amplitude_VH", "Amplitude_VV", "i_VV", "q_VV")
    raster = read(product)
    assert raster.data.min() == 10
    # Tie-point grids are float32: some metres at 118 degrees.
    np.testing.assert_allclose(raster.grid.to_map(swath_points()[0]), swath_points()[1], atol=1e-4)
    told = " ".join(raster.notes)
    assert "Amplitude_VV is read" in told
    assert "S1_ML.dim:Amplitude_VH" in told
    assert "terrain is not modelled" in told
    assert read(f"{product}:Amplitude_VH").data.min() == 0
    with pytest.raises(InputError, match="no image 'Sigma0_VV'; it has Amplitude_VH"):
        read(f"{product}:Sigma0_VV")


def test_a_complex_snap_product_is_no_intensity(tmp_path: Path) -> None:
    product = dim(tmp_path, "i_IW1_VV", "q_IW1_VV", "elevation")
    with pytest.raises(
        InputError, match=r"S1_ML\.dim holds real and imaginary parts \(i_IW1_VV, q_IW1_VV\).*i\*i"
    ) as error:
        read(product)
    assert "\n" not in str(error.value)
    assert read(f"{product}:q_IW1_VV").data.min() == 10


def test_a_terrain_corrected_snap_product_has_its_own_georeference(tmp_path: Path) -> None:
    raster = read(dim(tmp_path, "Gamma0_VV", placed=True))
    assert raster.grid.control is None
    assert raster.grid.transform == pytest.approx(tuple(T)[:6])


def test_damaged_snap_products(tmp_path: Path) -> None:
    product = dim(tmp_path, "Amplitude_VV")
    grid = tmp_path / "S1_ML.data/tie_point_grids/latitude.img"
    grid.write_bytes(grid.read_bytes()[:-4])
    with pytest.raises(ReadError, match="not what the product says"):
        read(product)
    grid.unlink()
    with pytest.raises(ReadError, match="cannot be read"):
        read(product)
    lone = tmp_path / "lone.dim"
    lone.write_text("<Dimap_Document/>")
    with pytest.raises(ReadError, match="no bands beside it"):
        read(lone)
    with pytest.raises(SomaregError):
        named(tmp_path / "missing.dim", "moving")
