"""Make the pictures of docs/report.md again, from the report of the demo pair: docs/images/report-*.png.

    python tools/pictures.py

Needs Chromium (or CHROMIUM=/path/to/it) and pillow, which the extra `test` brings. Run it when the report changes.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

import somareg
from somareg.cli.sample import sample_pair

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars --virtual-time-budget=5000"
)


@dataclass(frozen=True)
class Shot:
    """One picture: a part of the page.

    Attributes:
        name: of the file, report-NAME.png.
        style: CSS that leaves this part of the page alone.
        size: of the window; empty margins are cut off afterwards.
        colours: of the palette.
    """

    name: str
    style: str
    size: tuple[int, int]
    colours: int


def only(section: str) -> str:
    return f"body > *:not(main), main > *:not(:has(#{section})) {{ display: none !important }}"


WHERE = "body > *:not(main), main > *:not(.where-off, .look) { display: none !important }"
MAPS = ".figures > :not(#figure-arrows, #figure-points) { display: none }"
RESIDUALS = ".figures > :not(#figure-histogram, #figure-scatter) { display: none }"
SHOTS = (
    Shot("verdict", "footer, .compare ~ section, .compare ~ .columns { display: none }", (1280, 800), 256),
    Shot("where", WHERE, (1280, 1000), 256),
    Shot("compare", only("compare-title"), (760, 620), 192),
    Shot("maps", only("figures-title") + "h2, .figures + .hint { display: none }" + MAPS, (1000, 900), 256),
    Shot("residuals", only("figures-title") + "h2, .figures + .hint { display: none }" + RESIDUALS, (1000, 900), 64),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        somareg.register(*sample_pair()).save(Path(folder) / "demo")
        page = (Path(folder) / "demo" / "report.html").read_text(encoding="utf-8")
        for shot in SHOTS:
            picture = take(page, shot, Path(folder))
            target = IMAGES / f"report-{shot.name}.png"
            picture.save(target, optimize=True)
            print(f"{target}: {picture.width} x {picture.height} px, {target.stat().st_size / 1e3:.0f} kB")


def take(page: str, shot: Shot, folder: Path) -> Image.Image:
    """The picture, without empty margins, with a small palette."""
    # The page forbids any style but its own.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    html, png = folder / f"{shot.name}.html", folder / f"{shot.name}.png"
    html.write_text(page.replace("</head>", f"<style>{shot.style}</style></head>"), encoding="utf-8")
    width, height = shot.size
    command = [os.environ.get("CHROMIUM", "chromium"), *FLAGS.split(), f"--user-data-dir={folder / 'profile'}"]
    command += [f"--window-size={width},{height}", f"--screenshot={png}", html.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(png) as image:
        whole = image.convert("RGB")
    ground = Image.new("RGB", whole.size, whole.getpixel((1, height - 2)))
    left, top, right, bottom = ImageChops.difference(whole, ground).getbbox() or (0, 0, width, height)
    box = max(left - 8, 0), max(top - 8, 0), min(right + 8, width), min(bottom + 8, height)
    # Few pixels have the colours that marks are told apart by; what counts pixels would drop them.
    return whole.crop(box).quantize(shot.colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
