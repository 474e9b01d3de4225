"""QGIS opens what somareg writes: layers, places, colours, arrows. Skipped where there is no QGIS."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

from somareg.types import Result
from tests.t82_qgis.conftest import Look, environment, layers


def picture_of(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def test_the_project_opens(look: Look, saved: Path, tmp_path: Path) -> None:
    seen = look(saved / "aligned.qgz", tmp_path / "map.png")
    assert seen["opened"] and not seen["error"] and not seen["errors"]
    assert set(layers(seen)) == {"points", "error", "aligned", "moving", "reference"}
    assert [key.split("_")[1] for key in seen["order"]] == ["points", "error", "aligned", "moving", "reference"]
    with rasterio.open(saved / "aligned.tif") as file:
        bounds = [file.bounds.left, file.bounds.bottom, file.bounds.right, file.bounds.top]
        assert seen["crs"] == f"EPSG:{file.crs.to_epsg()}"
    np.testing.assert_allclose(seen["view"], bounds)
    for key in ("error", "aligned", "reference"):
        np.testing.assert_allclose(seen["layers"][key]["extent"], bounds)
        assert seen["layers"][key]["crs"] == seen["crs"]
    assert seen["layers"]["points"]["renderer"] == "RuleRenderer"
    assert seen["layers"]["points"]["features"] > 50
    assert seen["layers"]["error"]["renderer"] == "singlebandpseudocolor"
    assert seen["layers"]["error"]["bands"] == [4]


def test_themes(look: Look, saved: Path, tmp_path: Path) -> None:
    """Each is a map of its own, and none is empty."""
    pictures = []
    for theme in ("Before", "After", "Expected error"):
        seen = look(saved / "aligned.qgz", tmp_path / "map.png", theme)
        assert theme in seen["themes"] and not seen["errors"]
        pictures.append(picture_of(tmp_path / "map.png"))
        assert pictures[-1].std() > 20
    before, after, error = pictures
    assert np.abs(before.astype(int) - after).mean() > 5
    saturation = [cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 1].mean() for image in (after, error)]
    assert saturation[1] > saturation[0] + 50  # SAR is grey, the error map is not


def test_arrows_are_drawn(look: Look, saved: Path, tmp_path: Path) -> None:
    """Over the grey SAR image, whatever has a colour belongs to the points: far more than the dots alone."""
    look(saved / "aligned.qgz", tmp_path / "map.png")
    inner = picture_of(tmp_path / "map.png")[60:-60, 60:-60]
    coloured = cv2.cvtColor(inner, cv2.COLOR_BGR2HSV)[..., 1] > 80
    points = look(saved / "aligned.qgz", tmp_path / "map.png")["layers"]["points"]["features"]
    assert coloured.sum() > 45 * points  # a dot of 1.6 mm has 28 pixels, and some points lie outside


def test_what_lies_beside_the_ends_of_the_aligned_image_is_seen_through(
    look: Look, saved: Path, tmp_path: Path
) -> None:
    """Its mask is no band of the file, but one of the layer."""
    look(saved / "aligned.qgz", tmp_path / "map.png", "After")
    with rasterio.open(saved / "aligned.tif") as file:
        mask = file.dataset_mask()
    assert (mask == 0).any()
    columns = np.flatnonzero((mask == 0).all(axis=0))
    assert len(columns), "the demo's aligned image ends before the reference does"
    left, right = (int(c * 900 / mask.shape[1]) for c in (columns.min(), columns.max() + 1))
    strip = picture_of(tmp_path / "map.png")[:, left + 1 : right - 1]
    assert strip.mean() > 20 and cv2.cvtColor(strip, cv2.COLOR_BGR2HSV)[..., 1].mean() > 10  # colours of the reference


def test_a_folder_that_moved_with_its_inputs(look: Look, saved: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(saved.parent, tmp_path / saved.parent.name)
    shutil.copytree(pair[0].parent, tmp_path / pair[0].parent.name)
    seen = look(tmp_path / saved.parent.name / "out" / "aligned.qgz", tmp_path / "map.png")
    assert len(layers(seen)) == 5
    assert all(str(tmp_path) in layer["source"] for layer in seen["layers"].values())


def test_a_missing_input_breaks_no_other_layer(look: Look, saved: Path, tmp_path: Path) -> None:
    alone = tmp_path / "far" / "away" / "out"
    shutil.copytree(saved, alone)
    seen = look(alone / "aligned.qgz", tmp_path / "map.png")
    assert seen["opened"]
    assert set(layers(seen)) == {"points", "error", "aligned"}
    assert set(seen["layers"]) == {"points", "error", "aligned", "moving", "reference"}


@pytest.mark.parametrize("name", ["a <b> & \"c\" 'd' ]]>.tif", "ü {{ 7 * 7 }} %20 #1 ?x=y.tif"])
def test_hostile_names_are_found(
    look: Look, result: Result, pair: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    moving = Path(shutil.copy(pair[0], tmp_path / name))
    other = replace(result, moving=replace(result.moving, path=moving, name=str(moving)))
    seen = look(other.save(tmp_path / "out <&> #", reports="none") / "aligned.qgz", tmp_path / "map.png")
    assert len(layers(seen)) == 5, seen
    assert seen["layers"]["moving"]["name"] == f"Before: {name}"


def test_the_displacement_alone_has_its_style(qgis_python: str, qgis_home: Path, saved: Path) -> None:
    """QGIS takes the style that lies beside the file: no false colour."""
    program = (
        "import os, sys\n"
        "from qgis.core import QgsApplication, QgsRasterLayer\n"
        "app = QgsApplication([], False)\n"
        "app.initQgis()\n"
        "layer = QgsRasterLayer(sys.argv[1], 'displacement')\n"
        "print(layer.renderer().type(), layer.renderer().usesBands(), layer.opacity(), flush=True)\n"
        "os._exit(0)\n"
    )
    command = [qgis_python, "-c", program, str(saved / "displacement.tif")]
    done = subprocess.run(command, env=environment(qgis_home), capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("singlebandpseudocolor [4]"), done.stdout + done.stderr
