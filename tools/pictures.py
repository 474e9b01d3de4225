"""Make the pictures of the demo pair again: docs/images/report-*.png of the report, and the swipe of the README.

    python tools/pictures.py          all; needs Chromium (or CHROMIUM=/path/to/it)
    python tools/pictures.py swipe    docs/images/swipe.gif alone, without a browser

Needs pillow, which the extra `test` brings. Run it when the report changes, or the alignment of the demo pair.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from PIL import Image, ImageChops, ImageDraw, ImageFont

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


LEFT, TOP, WIDTH, HEIGHT = 405, 225, 195, 165  # a motorway, and a canal that runs north under it
ZOOM, GAP, STEPS, COLOURS = 2, 8, 15, 95
PAUSE_MS, STEP_MS = 1400, 90


def main(asked: list[str]) -> None:
    if asked not in ([], ["swipe"]):
        sys.exit("error: say nothing, or 'swipe'")
    with tempfile.TemporaryDirectory() as folder:
        somareg.register(*sample_pair()).save(Path(folder) / "demo")
        target = IMAGES / "swipe.gif"
        target.write_bytes(swipe(*sample_pair(), Path(folder) / "demo" / "aligned.tif"))
        print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")
        if asked:
            return
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


def swipe(before: Path, reference: Path, after: Path) -> bytes:
    """A GIF in which a divider moves down and up over two panels: reference above it, the moving image below it.

    Args:
        before: the moving image as it came, on the grid of the reference.
        reference: the other image, red, green, blue.
        after: the moving image as it was aligned.
    """
    optical, *radar = (_panel(path) for path in (reference, before, after))
    down = [round(optical.height * (0.15 + 0.7 * step / (STEPS - 1))) for step in range(STEPS)]
    rows = down + down[-2:0:-1]
    frames = [_frame(optical, radar, row) for row in rows]
    palette = Image.new("RGB", (frames[0].width, 2 * frames[0].height))
    palette.paste(_frame(optical, radar, 0), (0, 0))
    palette.paste(_frame(optical, radar, optical.height), (0, frames[0].height))
    palette = palette.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    stream = io.BytesIO()
    # Rests at both ends and where the canal is cut; between two frames only the rows in between are stored.
    rests = {0, STEPS // 2, STEPS - 1, len(rows) - STEPS // 2}
    durations = [PAUSE_MS if index in rests else STEP_MS for index in range(len(rows))]
    few[0].save(stream, "GIF", save_all=True, append_images=few[1:], duration=durations, loop=0, disposal=1)
    return stream.getvalue()


def _panel(path: Path) -> Image.Image:
    """The part that is shown; one band is freed of speckle and stretched, for the eye."""
    with rasterio.open(path) as file:
        pixels: Any = file.read()
    if len(pixels) == 1:
        values = cv2.GaussianBlur(pixels[0], (0, 0), 1.2).astype(float)
        low, high = np.percentile(values, (2, 98))
        pixels = np.repeat((np.clip((values - low) / (high - low), 0, 1) ** 0.8 * 255).astype("uint8")[None], 3, 0)
    part = np.ascontiguousarray(np.moveaxis(pixels[:, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH], 0, 2))
    return Image.fromarray(part).resize((ZOOM * WIDTH, ZOOM * HEIGHT), Image.Resampling.BICUBIC)


def _frame(optical: Image.Image, radar: list[Image.Image], row: int) -> Image.Image:
    """Both panels side by side, cut at one row."""
    font = ImageFont.load_default(18)
    whole = Image.new("RGB", (2 * optical.width + GAP, optical.height), "white")
    for index, (image, words) in enumerate(zip(radar, ("before", "after"), strict=True)):
        panel = optical.copy()
        panel.paste(image.crop((0, row, image.width, image.height)), (0, row))
        draw = ImageDraw.Draw(panel)
        draw.line([(0, row), (panel.width, row)], fill="white", width=2)
        draw.rectangle([6, 6, 18 + draw.textlength(words, font=font), 32], fill="black")
        draw.text((12, 8), words, font=font, fill="white")
        whole.paste(panel, (index * (optical.width + GAP), 0))
    return whole


if __name__ == "__main__":
    main(sys.argv[1:])
