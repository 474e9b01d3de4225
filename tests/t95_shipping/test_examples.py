"""What the README and the tutorial tell people to type works, on the pair that ships."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.windows import Window

from somareg.cli.sample import sample_pair
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.data.tiles import TileSet
from somareg.report.checks import CHECKS
from tests.t95_shipping.pages import ROOT, Shell, blocks_in, blocks_of, tool

README_SKIPPED = {
    "make demo": "builds a virtual environment; `somareg demo` is run instead",
    "make test": "is what runs this test",
    "make docs": "builds a virtual environment; test_site.py builds the site",
    "uv pip install --torch-backend cpu .": "fetches PyTorch from its own index",
    "pip install .": "`make smoke` installs the wheel into a clean environment",
}
README_CODES = {"somareg assess sentinel1.tif sentinel2.tif": 3}  # the pair is off: that is what `register` is for

PAGES_SKIPPED = {
    "uv pip install --torch-backend cpu .": "fetches PyTorch from its own index",
    "pip install .": "`make smoke` installs the wheel into a clean environment",
    "pip install --require-hashes -r requirements.lock": "installs PyTorch once more",
    "pip install --no-deps .": "needs the line before it",
    "somareg --install-completion": "changes the shell of whoever runs the tests; see t80_cli/test_light.py",
    "somareg --show-completion": "needs a shell as its parent",
    "docker build -t somareg .": "needs Docker; test_container.py reads the Dockerfile",
    'docker run --rm --network none -v "$PWD":/data --user "$(id -u):$(id -g)" somareg register sar.tif optical.tif '
    "-o aligned": "needs Docker",
}

TUTORIAL_SKIPPED = {"pip install .": "`make smoke` installs the wheel into a clean environment"}
TUTORIAL_CODES = {"somareg assess sar.tif optical.tif": 3}


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the README's examples speak of, cut small from the pair that ships."""
    folder = tmp_path_factory.mktemp("crops")
    window = Window(140, 140, 384, 384)
    for source, names in zip(
        sample_pair(), (("sentinel1.tif", "a.tif", "other_bands.tif"), ("sentinel2.tif", "b.tif")), strict=True
    ):
        with rasterio.open(source) as file:
            profile = file.profile | {"width": 384, "height": 384, "transform": file.window_transform(window)}
            pixels = file.read(window=window)
        for name in names:
            with rasterio.open(folder / name, "w", **profile) as file:
                file.write(pixels)
    (folder / "pairs.csv").write_text("moving,reference\nsentinel1.tif,sentinel2.tif\n")
    return folder


def test_readme(crops: Path, tmp_path: Path) -> None:
    """Every block by itself, in a folder with the files it speaks of."""
    shell = Shell(README_SKIPPED, README_CODES)
    for number, block in enumerate(blocks_of("README.md")):
        folder = shutil.copytree(crops, tmp_path / str(number))
        shell.names = {"points": np.array([[10.0, 20.0], [100.0, 50.0]])}
        with contextlib.chdir(folder):
            shell.run(block, "README.md")
        if block.kind == "python":
            assert shell.names["result"].verdict.decision == "go"
            assert (folder / "aligned" / "aligned.tif").is_file()
            assert (folder / "other_bands_aligned.tif").is_file()
    assert set(README_SKIPPED) <= set(shell.met), "an entry of README_SKIPPED is no longer in the README"
    assert len(shell.met) - len(README_SKIPPED) == 4


def test_pages_beside_the_readme(crops: Path, tmp_path: Path) -> None:
    """What docs/install.md and docs/options.md tell people to type."""
    shell = Shell(PAGES_SKIPPED)
    for page in ("docs/install.md", "docs/options.md"):
        folder = shutil.copytree(crops, tmp_path / Path(page).stem)
        with contextlib.chdir(folder):
            for block in blocks_of(page):
                shell.run(block, page)
    assert set(PAGES_SKIPPED) <= set(shell.met)
    assert len(shell.met) - len(PAGES_SKIPPED) == 3


def test_the_first_screen_of_the_readme() -> None:
    """A stranger sees without turning the wheel: what it is, one picture, how good it is, what it cannot do."""
    blocks_of("README.md")  # skips where there are no pages
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    order = ["How good is it?", "Limits", "Install", "Three commands", "Python", "Developers", "Licence"]
    assert heads == order
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert pictures == ["docs/images/swipe.gif"] and text.index("swipe.gif") < text.index("## How good")
    assert len(text.partition("## How good is it?")[2].partition("\n## ")[0].split("\n* ")) - 1 == 3
    assert len(text.partition("\n## Install")[0].splitlines()) < 50
    assert len(text) < 8000


def test_the_figures_of_the_first_screen_are_those_of_the_results() -> None:
    blocks_of("README.md")  # skips where there are no pages
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("* **Error.**")[2].partition("\n* ")[0]
    first, _, second = text.partition("Mutual information:")
    ours, theirs = re.findall(r"(\d+) %", first), re.findall(r"\d+", second)
    for method, told in (("ours", ours), ("mattes_mi", theirs)):
        results = json.loads((ROOT / "benchmarks" / "results" / f"{method}.json").read_text(encoding="utf-8"))
        cells = {(cell["set"], cell["level"]): cell["summary"] for cell in results["cells"]}
        measured = [cells[name, "H"]["cmr"]["2"] for name in ("sih", "ombria", "sen12")]
        assert [int(figure) for figure in told] == [int(100 * share + 1e-9) for share in measured], method


def test_the_picture_of_the_readme(workshop: tuple[Path, Shell]) -> None:
    """It is small, moves, and shows what an alignment of the pair gives now."""
    picture = ROOT / "docs" / "images" / "swipe.gif"
    assert picture.stat().st_size < 600e3
    pictures = tool("pictures")
    made = pictures.swipe(*sample_pair(), workshop[0] / "aligned" / "aligned.tif")
    assert made == pictures.swipe(*sample_pair(), workshop[0] / "aligned" / "aligned.tif")
    with Image.open(picture) as shown, Image.open(io.BytesIO(made)) as now:
        assert shown.n_frames == now.n_frames > 20 and shown.size == now.size
        assert shown.width < 900 and shown.info["loop"] == 0
        for number in range(shown.n_frames):
            shown.seek(number)
            now.seek(number)
            was, new = (np.asarray(each.convert("RGB"), dtype=float) for each in (shown, now))
            assert np.abs(was - new).mean() < 5
            before, after = was[:, : was.shape[1] // 2 - 4], was[:, was.shape[1] // 2 + 4 :]
            assert np.abs(before - after).mean() > 5  # not twice the same
    caption = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n*")[2].partition("*\n")[0]
    report = json.loads((workshop[0] / "aligned" / "report.json").read_text(encoding="utf-8"))["figures"]
    told = re.findall(r"(\d+(?:\.\d+)?) (?:px|m)\b", caption)
    apart, left = report["misregistration_before"], report["predicted_rmse"]
    for words, now in zip(told, (apart["px"], apart["m"], left["px"]), strict=True):
        assert abs(float(words) - now) < 0.8 * 10.0 ** -len(words.partition(".")[2]), caption


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Shell]]:
    """The folder and the names that somebody has who followed the tutorial to its end."""
    folder = tmp_path_factory.mktemp("tutorial")
    shell = Shell(TUTORIAL_SKIPPED, TUTORIAL_CODES)
    with contextlib.chdir(folder):
        for block in blocks_of("docs/tutorial.md"):
            shell.run(block, "tutorial.md")
    yield folder, shell


def test_tutorial(workshop: tuple[Path, Shell]) -> None:
    folder, shell = workshop
    assert set(TUTORIAL_SKIPPED) <= set(shell.met)
    assert len(shell.met) - len(TUTORIAL_SKIPPED) == 5
    names = shell.names
    np.testing.assert_allclose(names["moving_xy"][0], [200 + names["dx"], 100 + names["dy"]], atol=1e-3)
    assert (folder / "aligned-by-python" / "aligned.tif").is_file()
    with rasterio.open(folder / "bright_aligned.tif") as mask, rasterio.open(folder / "optical.tif") as optical:
        assert mask.transform == optical.transform
        assert set(np.unique(mask.read())) == {0, 1}


def test_the_displacement_is_what_the_conventions_say(workshop: tuple[Path, Shell]) -> None:
    """The example of the page samples the aligned image by hand."""
    folder, _ = workshop
    shell = Shell()
    with contextlib.chdir(folder):
        for block in blocks_of("docs/conventions.md"):
            if block.kind == "python":
                shell.run(block, "conventions.md")
    with rasterio.open(folder / "aligned" / "aligned.tif") as file:
        written, valid = file.read(1).astype(float), file.dataset_mask() > 0
    inside = np.s_[20:-20, 20:-20]
    by_hand, before = shell.names["by_hand"][inside], shell.names["moving"][inside]
    assert valid[inside].all()
    # Two cubic kernels differ by a few of 255 grey levels; a wrong sign or half a pixel by far more.
    difference = np.abs(by_hand.clip(0, 255) - written[inside]).mean()
    assert difference < 2.5
    assert np.abs(before - written[inside]).mean() > 8 * difference


def test_the_examples_of_the_report_page(workshop: tuple[Path, Shell]) -> None:
    shell = Shell()
    blocks = blocks_of("docs/report.md")
    with contextlib.chdir(workshop[0]):
        for block in blocks:
            shell.run(block, "report.md")
    report = shell.names["report"]
    assert report["figures"]["predicted_rmse"] == pytest.approx({"px": 0.4, "m": 3.3}, rel=0.5)


def test_pairs_of_ones_own_become_tiles_and_samples(workshop: tuple[Path, Shell], tmp_path: Path) -> None:
    """The section of docs/training.md, from the tutorial's aligned pair to what `somareg train` reads."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8") if blocks_of("docs/training.md") else ""
    section = page[page.index("## Your own pairs") : page.index("## A long run")]
    python = [block.text for block in blocks_in(section) if block.kind == "python"]
    commands = [line for block in blocks_in(section) for line in block.commands]
    names: dict[str, Any] = {}
    shutil.copytree(workshop[0], tmp_path / "work")
    with contextlib.chdir(tmp_path / "work"):
        exec(compile(python[0], "training.md", "exec"), names)
        for command in commands[1:3]:
            module, *arguments = shlex.split(command.removeprefix("python -m "))
            with contextlib.redirect_stdout(io.StringIO()):
                assert importlib.import_module(module).main(arguments) == 0, command
        exec(compile(python[1].replace('"val": 100', '"val": 3'), "training.md", "exec"), names)
        tiles = TileSet.load("tiles/mine-measured")
        samples = ProtocolSamples.load("tiles/mine-val.safetensors")
    assert set(tiles.group) == {"irvine"}
    # The pair was aligned, so measuring its labels again moves them by less than half a pixel.
    assert tiles.label[:, :, 2].abs().max() < 0.5
    assert [(len(stack), set(stack.group)) for stack in samples.stacks] == [(3, {"elsewhere"})]
    assert commands[0].startswith("somareg batch pairs.csv")  # see docs/batch.md
    assert commands[3:] == [
        "somareg train --config configs/base.yaml -o runs/mine --data tiles/mine-measured "
        "--validation tiles/mine-val.safetensors",
        "somareg train --config configs/compact.yaml -o runs/mine --data tiles/mine-measured "
        "--validation tiles/mine-val.safetensors --max-minutes 20 --set initial=compact --set optimiser.lr=1e-3",
    ]  # trains for hours; see t77_train/test_train_cli.py


def test_the_report_page_knows_every_check() -> None:
    blocks_of("docs/report.md")  # skips where there are no pages
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    table = page[page.index("| check |") : page.index("## Below")]
    told = {name.strip() for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in row.split(",")}
    assert {check.label for check in CHECKS} == told - {"check", "---"}
