"""Warping a raster of any size takes the same memory."""

import subprocess
import sys

import pytest
import rasterio

UTM = rasterio.CRS.from_epsg(32632).to_wkt()


CHILD = """
import resource, sys
from somareg.geometry import AffineTransform
from somareg.types import Estimate, Grid
from somareg.warp import apply_to_file
utm = "EPSG:32632"
n = int(sys.argv[2])
reference = Grid(n, n, (10, 0, 500000, 0, -10, 5000000), utm)
turn = AffineTransform.from_parameters(rotation_deg=10, centre=(n / 2, n / 2))
apply_to_file(sys.argv[1], Estimate(turn, reference, reference), sys.argv[1] + ".out.tif", resampling="bilinear")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_does_not_grow_with_the_scene(tmp_path):
    peaks = []
    for n in (1500, 6000):
        path = tmp_path / f"{n}.tif"
        profile = {"width": n, "height": n, "count": 1, "dtype": "float64", "tiled": True, "sparse_ok": True}
        place = {"crs": UTM, "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
        with rasterio.open(path, "w", driver="GTiff", **profile, **place):
            pass
        run = subprocess.run([sys.executable, "-c", CHILD, path, str(n)], capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout))
    # 16 times the pixels (288 MB as float64, twice that with coordinates) fill GDAL's cache and nothing else.
    assert peaks[1] - peaks[0] < 250
