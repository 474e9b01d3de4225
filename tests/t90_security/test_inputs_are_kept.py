"""No output takes the place of anything that was read, by whatever name it is given."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

import somareg
from somareg.errors import OutputError
from somareg.io.shifts import export_shifts
from somareg.tiepoints.formats import convert_tie_points, write_tie_points
from tests.t80_cli.conftest import Cli

Pair = tuple[Path, Path]
FAST = {"preset": "fast", "model": "orientation"}


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, links followed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(folder: Path, cli: Cli, *arguments: object, mentions: str) -> None:
    before = contents(folder)
    done = cli(*arguments)
    assert done.code == 1, done.out + done.err
    assert "itself" in done.err, done.err
    assert mentions in done.err, done.err
    assert contents(folder) == before


@pytest.mark.parametrize("role", ["moving", "reference"])
@pytest.mark.parametrize("how", ["plain", "link", "hard link", "linked folder"])
@pytest.mark.parametrize("name", ["aligned.tif", "displacement.tif"])
def test_register_into_the_folder_of_an_input(
    cli: Cli, pair: Pair, tmp_path: Path, role: str, how: str, name: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    images = dict(zip(("moving", "reference"), pair, strict=True))
    if how == "link":
        (folder / name).symlink_to(images[role])
    elif how == "hard link":
        os.link(images[role], folder / name)
    else:
        images[role] = images[role].rename(folder / name)
    out = folder
    if how == "linked folder":
        out = tmp_path / "there"
        out.symlink_to(folder, target_is_directory=True)
    both = images["moving"], images["reference"]
    refused(tmp_path, cli, "register", *both, "-o", out, "--overwrite", mentions=f"the {role} image itself")


def test_register_into_the_folder_of_its_other_inputs(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = somareg.register(*pair, **FAST)
    result.save(out, force=True)
    points = out / "tie_points.geojson"
    refused(tmp_path, cli, "register", *pair, "-o", out, "--overwrite", "--tie-points", points, mentions="tie_points")
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": {}, "links": []}
    item["assets"] = {"vv": {"href": str(pair[0]), "type": "image/tiff"}}
    (out / "item.json").write_text(json.dumps(item))  # a name that somareg writes, and removes where it does not
    refused(
        tmp_path, cli, "register", f"{out / 'item.json'}#vv", pair[1], "-o", out, "--overwrite", mentions="STAC Item"
    )


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_save_into_the_folder_of_an_input(pair: Pair, tmp_path: Path, role: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    images = dict(zip(("moving", "reference"), pair, strict=True))
    images[role] = images[role].rename(folder / "aligned.tif")
    before = contents(tmp_path)
    result = somareg.register(images["moving"], images["reference"], **FAST)
    with pytest.raises(OutputError, match=f"the {role} image itself"):
        result.save(folder, overwrite=True, force=True)
    assert contents(tmp_path) == before


def test_a_pair_of_a_batch_keeps_its_inputs(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    """A pair that fails loses what an earlier run left for it, but not what it reads."""
    out = tmp_path / "out"
    (out / "p").mkdir(parents=True)
    moving = shutil.copy(pair[0], out / "p" / "aligned.tif")
    table = tmp_path / "pairs.csv"
    table.write_text(f"name,moving,reference\np,{moving},{pair[1]}\n")
    before = contents(tmp_path)
    done = cli("batch", table, "-o", out, "--overwrite", "--preset", "fast")
    assert done.code == 1
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert "moving image itself" in (out / "summary.csv").read_text()


@pytest.mark.parametrize("name", ["manifest.jsonl", "summary.csv", "summary.json"])
def test_a_batch_keeps_its_table(cli: Cli, pair: Pair, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(f"moving,reference\n{pair[0]},{pair[1]}\n")
    refused(tmp_path, cli, "batch", tmp_path / name, "-o", tmp_path, "--overwrite", mentions="table of pairs")


@pytest.mark.parametrize("name", ["manifest.jsonl", "audit.csv", "audit.json"])
def test_an_audit_keeps_its_list(cli: Cli, pair: Pair, tmp_path: Path, name: str) -> None:
    rows = [{"moving": str(pair[0]), "reference": str(pair[1])}]
    table = f"moving,reference\n{pair[0]},{pair[1]}\n"
    (tmp_path / name).write_text(json.dumps(rows) if name.endswith(".json") else table)
    refused(tmp_path, cli, "audit", tmp_path / name, "-o", tmp_path, "--overwrite", mentions="list of scenes")


def test_an_audit_keeps_its_images_and_what_is_called_like_a_scene(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    """It writes nothing for a scene, and so has nothing to take away for one that fails."""
    out = tmp_path / "out"
    (out / "p").mkdir(parents=True)
    moving = shutil.copy(pair[0], out / "p" / "aligned.tif")
    (out / "p" / "report.json").write_text("mine")
    table = tmp_path / "pairs.csv"
    table.write_text(f"name,moving,reference\np,{moving},{tmp_path / 'gone.tif'}\n")
    before = contents(tmp_path)
    done = cli("audit", table, "-o", out, "--overwrite", "--preset", "fast")
    assert done.code == 1
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before


def test_warp_keeps_raster_estimate_and_item(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    somareg.register(*pair, **FAST).save(out, force=True)
    displacement = out / "displacement.tif"
    refused(tmp_path, cli, "warp", pair[0], out, "-o", displacement, "--overwrite", mentions="estimate")
    refused(tmp_path, cli, "warp", pair[0], out, "-o", pair[0], "--overwrite", mentions="input")
    # Of several, no output may be another one's input, nor the estimate.
    (tmp_path / "deep").mkdir()
    shutil.copy(pair[0], tmp_path / "deep" / "reference.tif")
    both = tmp_path / "deep" / "reference.tif", pair[1]
    refused(tmp_path, cli, "warp", *both, out, "-o", f"{tmp_path}/", "--overwrite", mentions="input")
    shutil.copy(pair[0], tmp_path / "displacement.tif")
    both = tmp_path / "displacement.tif", pair[1]
    refused(tmp_path, cli, "warp", *both, out, "-o", f"{out}/", "--overwrite", mentions="estimate")


def test_other_writers_keep_what_they_read(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = somareg.register(*pair, **FAST)
    result.save(out, force=True)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="estimate itself"):
        export_shifts(out, out / "displacement.tif", overwrite=True)
    images = {"reference": pair[0], "moving": pair[1]}
    with pytest.raises(OutputError, match="input itself"):
        convert_tie_points(out / "gcps.points", out / "gcps.points", **images, overwrite=True)
    for path, role in zip(pair, images, strict=True):
        with pytest.raises(OutputError, match=f"{role} image itself"):
            write_tie_points(path, result.tie_points, **images, overwrite=True)
        with pytest.raises(OutputError, match=f"{role} image itself"):
            convert_tie_points(out / "gcps.points", path, **images, overwrite=True)
    assert contents(tmp_path) == before


def test_export_and_training_keep_what_they_read(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    for name in ("a.ckpt", "a.safetensors"):
        (tmp_path / name).write_bytes(b"precious")
    weights = tmp_path / "a.safetensors"
    refused(
        tmp_path, cli, "export", tmp_path / "a.ckpt", "-o", weights, "--validation", weights, "--overwrite",
        mentions="samples",
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    config = tmp_path / "config.yaml"
    refused(tmp_path, cli, "train", "--config", config, "-o", tmp_path, "--overwrite", mentions="configuration")
