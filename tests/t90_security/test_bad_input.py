"""Bad input through the command line: one clear line, the file's name in it, exit code 1, nothing left behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.t80_cli.conftest import Answer, Cli
from tests.t90_security.conftest import SIDE, noise, rewrite, tree, write

OWN_TAGS = """
html head meta title link style body a header p strong time h1 h2 h3 span main section div dl dt dd ul ol li fieldset
legend label input button canvas output kbd figure figcaption img table thead tbody tr th td pre details summary footer
script svg g path rect text circle image defs pattern lineargradient stop
"""
Pair = tuple[Path, Path]
Spoil = Callable[[Path], object]

VRT = """<VRTDataset rasterXSize="128" rasterYSize="128"><VRTRasterBand dataType="Byte" band="1"
 subClass="VRTRawRasterBand"><SourceFilename relativetoVRT="0">{secret}</SourceFilename><ImageOffset>0</ImageOffset>
 <PixelOffset>1</PixelOffset><LineOffset>128</LineOffset></VRTRasterBand></VRTDataset>"""


def assert_one_line(done: Answer, *mentions: str, code: int = 1) -> None:
    assert done.code == code, done.err
    assert done.out == ""
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    for text in mentions:
        assert text in lines[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def disguise_vrt(path: Path) -> None:
    secret = path.with_name("secret.bin")
    secret.write_bytes(b"s" * 128 * 128)
    path.write_text(VRT.format(secret=secret))


def sparse_bomb(path: Path) -> None:
    side = 200_000
    profile = {"width": side, "height": side, "count": 1, "dtype": "uint16", "tiled": True, "blockxsize": 2048}
    with rasterio.open(path, "w", driver="GTiff", blockysize=2048, SPARSE_OK=True, BIGTIFF="YES", **profile):
        pass


SPOILT: dict[str, tuple[Spoil, str]] = {
    "missing": (Path.unlink, "does not exist"),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "folder"),
    "text": (lambda p: p.write_text("hello, I am a text file\n" * 40), "cannot be opened"),
    "html": (lambda p: p.write_text("<!doctype html><title>404</title>"), "cannot be opened"),
    "vrt": (disguise_vrt, "cannot be opened"),
    "truncated": (cut, "truncated"),
    "header only": (lambda p: p.write_bytes(p.read_bytes()[:8]), "cannot be opened"),
    "all nodata": (lambda p: rewrite(p, np.zeros_like, nodata=0), "no valid pixel"),
    "all NaN": (lambda p: rewrite(p, lambda d: np.full(d.shape, np.nan, "float32")), "no valid pixel"),
    "too small": (lambda p: rewrite(p, lambda d: d[:, :63, :63]), "64 px"),
    "one row": (lambda p: rewrite(p, lambda d: d[:, :1]), "64 px"),
    "sparse bomb": (sparse_bomb, "max_pixels"),
}


@pytest.mark.parametrize("role", ["moving", "reference"])
@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_file(cli: Cli, pair: Pair, tmp_path: Path, kind: str, role: str) -> None:
    moving, reference = pair
    spoil, mention = SPOILT[kind]
    victim = moving if role == "moving" else reference
    if kind == "sparse bomb":
        victim.unlink()
    spoil(victim)
    before = tree(tmp_path)
    done = cli("register", moving, reference, "-o", tmp_path / "out")
    assert_one_line(done, str(victim), mention)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", ["assess", "warp", "plan"])
def test_every_command_refuses_a_missing_file(cli: Cli, pair: Pair, tmp_path: Path, command: str) -> None:
    _, reference = pair
    missing = tmp_path / "nowhere.tif"
    arguments = {
        "assess": ["assess", missing, reference],
        "warp": ["warp", reference, missing, "-o", tmp_path / "out.tif"],
        "plan": ["register", missing, reference, "--dry-run"],
    }[command]
    before = tree(tmp_path)
    assert_one_line(cli(*arguments), "nowhere.tif")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "address", ["https://example.invalid/a.tif", "/vsicurl/http://example.invalid/a.tif", "/vsizip/a.zip/a.tif"]
)
def test_remote_addresses_are_refused_without_a_call(cli: Cli, pair: Pair, tmp_path: Path, address: str) -> None:
    done = cli("register", address, pair[1], "-o", tmp_path / "out")
    assert_one_line(done, address, "not a local file")
    assert not (tmp_path / "out").exists()


def test_hostile_file_name_stays_on_one_line(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    done = cli("register", tmp_path / "a\n\x1b[31mb.tif", pair[1], "-o", tmp_path / "out")
    assert_one_line(done, "does not exist")
    assert len(done.err.splitlines()) == 1
    assert "\x1b" not in done.err


def test_no_overlap_tells_both_places(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    moving, reference = pair
    with rasterio.open(moving) as file:
        elsewhere = Affine.translation(300_000, 0) @ file.transform
    rewrite(moving, lambda d: d, transform=elsewhere)
    before = tree(tmp_path)
    done = cli("register", moving, reference, "-o", tmp_path / "out")
    assert_one_line(done, str(moving), str(reference))
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", done.err)]
    assert any(abs(n + 117.86) < 0.1 for n in numbers)  # longitude of the reference
    assert any(abs(n + 115.17) < 0.1 for n in numbers)  # longitude of the moving image
    assert any(abs(n - 33.68) < 0.1 for n in numbers)  # latitude of both
    assert tree(tmp_path) == before


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_crs_in_one_only(cli: Cli, pair: Pair, tmp_path: Path, role: str) -> None:
    victim = pair[0] if role == "moving" else pair[1]
    rewrite(victim, lambda d: d, crs=None, transform=Affine.identity())
    before = tree(tmp_path)
    assert_one_line(cli("register", *pair, "-o", tmp_path / "out"), str(victim), "CRS")
    assert tree(tmp_path) == before


def test_output_folder_with_files_is_left_alone(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("three years of work")
    before = tree(tmp_path)
    assert_one_line(cli("register", *pair, "-o", out), str(out), "overwrite")
    assert tree(tmp_path) == before


def test_output_folder_is_a_file(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("a file")
    before = tree(tmp_path)
    assert_one_line(cli("register", *pair, "-o", out), str(out))
    assert tree(tmp_path) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where nobody can make a folder")
def test_output_folder_cannot_be_made(cli: Cli, pair: Pair) -> None:
    assert_one_line(cli("register", *pair, "-o", "/proc/somareg-out"), "/proc/somareg-out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_is_read_only(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    assert_one_line(cli("register", *pair, "-o", out), str(out))


def test_full_disk_is_seen_beforehand(cli: Cli, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    before = tree(tmp_path)
    assert_one_line(cli("register", *pair, "-o", tmp_path / "out"), str(tmp_path / "out"), "disk")
    assert tree(tmp_path) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_write_failure_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    """No file may grow beyond 20 kB: the first output fails while it is being written, as on a disk that fills up."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from somareg.cli.main import main; main(sys.argv[1:])"
    )
    before = tree(tmp_path)
    arguments = ["register", *map(str, pair), "-o", str(tmp_path / "out"), "--preset", "fast", "--force"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert_one_line(Answer(done.returncode, done.stdout, done.stderr), str(tmp_path / "out"))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_constant_image_is_a_no_go(cli: Cli, pair: Pair, tmp_path: Path, role: str) -> None:
    rewrite(pair[0] if role == "moving" else pair[1], lambda d: np.full_like(d, 90))
    done = cli("register", *pair, "-o", tmp_path / "out")
    assert (done.code, done.err) == (4, "")
    assert "aligned.tif was not written" in done.out
    assert not (tmp_path / "out" / "aligned.tif").exists()
    assert (tmp_path / "out" / "report.html").is_file()


def test_nan_and_inf_pixels_are_masked(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    def poke(data: np.ndarray) -> np.ndarray:
        data = data.astype("float32")
        data[:, 40:90, 60:110] = np.nan
        data[:, 200, 10] = np.inf
        data[:, 201, 10] = -np.inf
        return data

    rewrite(pair[0], poke)
    done = cli("register", *pair, "-o", tmp_path / "out", "--force")
    assert done.code in {0, 3}, done.out + done.err
    with rasterio.open(tmp_path / "out" / "displacement.tif") as file:
        assert np.isfinite(file.read([1, 2, 3])).all()  # sigma is NaN where nothing was seen
    with rasterio.open(tmp_path / "out" / "aligned.tif") as file:
        values, valid = file.read(1), file.read_masks(1) > 0
    assert np.isfinite(values[valid]).all()
    assert 0.02 < 1 - valid.mean() < 0.25  # the hole and the rim, not more


def test_images_without_georeference_work_in_pixels(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    for path in pair:
        rewrite(path, lambda d: d, crs=None, transform=Affine.identity())
    done = cli("register", *pair, "-o", tmp_path / "out", "--json")
    assert done.code in {0, 3}, done.out + done.err
    assert '"crs": null' in done.out


def test_max_pixels_refuses_before_reading(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    done = cli("register", *pair, "-o", tmp_path / "out", "--max-pixels", SIDE * SIDE - 1)
    assert_one_line(done, str(pair[0]), "max_pixels")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not an estimate", b"{}", b'{"schema_version": "99.0"}'])
def test_warp_refuses_what_is_no_estimate(cli: Cli, pair: Pair, tmp_path: Path, content: bytes) -> None:
    for name in ("estimate.json", "estimate.tif"):
        (tmp_path / name).write_bytes(content)
        before = tree(tmp_path)
        done = cli("warp", pair[0], tmp_path / name, "-o", tmp_path / "warped.tif")
        assert_one_line(done, name)
        assert tree(tmp_path) == before


def test_unrelated_noise_never_gets_go(cli: Cli, tmp_path: Path) -> None:
    moving = write(tmp_path / "moving.tif", noise(0))
    reference = write(tmp_path / "reference.tif", noise(1))
    assert cli("register", moving, reference, "-o", tmp_path / "out", "-q").code in {3, 4}


@pytest.mark.parametrize(("extra", "mention"), [(["--speed", "9"], "--speed"), (["--preset", "fst"], "'fast'")])
def test_unknown_option_or_preset(cli: Cli, pair: Pair, tmp_path: Path, extra: list[str], mention: str) -> None:
    before = tree(tmp_path)
    assert_one_line(cli("register", *pair, "-o", tmp_path / "out", *extra), mention, code=2)
    assert tree(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such file names")
def test_names_that_are_markup_stay_names_on_the_page(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    name = "\"'><svg onload=alert(1)><image href=x><style>{{7*7}}&amp;.tif"
    moving = pair[0].rename(tmp_path / name)
    with rasterio.open(moving, "r+") as file:
        file.descriptions = tuple("</svg><script>alert(2)</script>" for _ in file.descriptions)
    cli("register", moving, pair[1], "-o", tmp_path / "out", "--force")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(page)
    kinds = [tag for tag, _ in tags]
    assert kinds.count("script") == kinds.count("style") == 1
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    links = [a[key] or "" for tag, a in tags for key in ("href", "src", "xlink:href") if key in a]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert set(kinds) <= set(OWN_TAGS.split())
    assert page.count("{{7*7}}") >= 2 and "&lt;svg onload=alert(1)&gt;" in page and "<svg onload" not in page
