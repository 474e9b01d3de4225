"""`somareg doctor`: checks the machine and the installation."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import typer

from somareg.cli import options as o
from somareg.cli.failures import one_line
from somareg.cli.session import Session, session
from somareg.runtime.version import __version__

PACKAGES = (
    *("numpy", "torch", "safetensors", "rasterio", "opencv-python-headless"),
    *("pydantic", "typer", "rich", "jinja2"),
)
DRIVERS = ("GTiff", "COG", "PNG", "JPEG", "JP2OpenJPEG", "ENVI")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor: what was looked at, whether it is fine, what was found."""

    name: str
    ok: bool
    found: str


def doctor(as_json: o.Json = False, verbose: o.Verbose = False, quiet: o.Quiet = False) -> None:
    """Check versions, device, memory and formats, and register the demo pair as a self-test."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        with ui.working():
            checks = [examine(name, look, ui) for name, look in CHECKS.items()]
        healthy = all(check.ok for check in checks)
        if as_json:
            ui.emit({"healthy": healthy, "checks": {c.name: {"ok": c.ok, "found": c.found} for c in checks}})
        elif ui.wants_text:
            _print(ui, checks)
        raise typer.Exit(0 if healthy else 1)


def examine(name: str, look: Callable[[], str], ui: Session) -> Check:
    """Run one check; an exception makes it fail, with the message as what was found."""
    ui.progress(name, 0.0)
    try:
        return Check(name, True, look())
    except Exception as error:  # a doctor that dies of what it finds helps nobody
        return Check(name, False, one_line(f"{type(error).__name__}: {error}"))


def _versions() -> str:
    found = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"somareg {__version__}", *found])


def _system() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name(0)}"
    if torch.backends.mps.is_available():
        return "mps (Apple GPU)"
    return "cpu (no GPU that torch can use)"


def _threads() -> str:
    import torch

    return f"{torch.get_num_threads()} used by torch, {os.cpu_count()} in the machine"


def _memory() -> str:
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    if not page:
        return "unknown on this system"
    total = page * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = Path("/proc/meminfo").read_text().splitlines() if sys.platform == "linux" else []
    free = [int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable:")]
    return f"{total:.1f} GiB" + (f", {free[0]:.1f} GiB available" if free else "")


def _formats() -> str:
    import rasterio

    with rasterio.Env() as env:
        known = env.drivers()
    missing = [name for name in ("GTiff", "COG") if name not in known]
    if missing:
        raise RuntimeError(f"GDAL lacks {', '.join(missing)}; reinstall rasterio from its wheel")
    return f"GDAL {rasterio.__gdal_version__}: {', '.join(name for name in DRIVERS if name in known)}"


def _weights() -> str:
    from somareg.soma.weights import embedded, load_network, read_card

    found = []
    for name, path in embedded().items():
        load_network(path)
        card = read_card(path)
        found.append(
            f"{name}: version {card.name} of {card.created:%Y-%m-%d}, {card.parameters:,} parameters, "
            f"licence {card.licence}, sha256 {card.sha256}"
            + (f", with DINOv2 {card.dinov2.name}, sha256 {card.dinov2.sha256}" if card.dinov2 else "")
        )
    return one_line("; ".join(found)) or "none in this installation; model='auto' matches without weights"


def _dinov2() -> str:
    from somareg.errors import UnsupportedError
    from somareg.soma.dinov2_files import cached_dinov2

    try:
        encoders = [files.identity() for files in cached_dinov2()]
    except UnsupportedError:
        return "not installed; only models that were trained with it need it: pip install 'somareg[dinov2]'"
    found = [f"{encoder.name}, sha256 {encoder.sha256}" for encoder in encoders]
    return one_line("in the local cache: " + "; ".join(found)) if found else "none in the local cache (docs/dinov2.md)"


def _sample() -> str:
    import rasterio

    from somareg.cli.sample import sample_pair

    sizes = []
    for path in sample_pair():
        with rasterio.open(path, driver="GTiff") as file:
            file.read()
            sizes.append(f"{path.name} {file.width} x {file.height}")
    return ", ".join(sizes)


def _self_test() -> str:
    from somareg.cli.sample import sample_pair
    from somareg.register import api

    moving, reference = sample_pair()
    start = time.perf_counter()
    result = api.register(moving, reference, preset="fast", device="cpu")
    seconds = time.perf_counter() - start
    if result.verdict.decision != "go":
        raise RuntimeError(f"the demo pair got {result.verdict.decision}: {result.verdict.reasons[0]}")
    quality = result.quality
    before, after = quality.shift_before_px, quality.predicted_rmse_px
    by = f"by {result.settings['model_used']} in {seconds:.1f} s"
    return f"demo pair aligned {by}: {before:.2f} px before, {after:.2f} px predicted after"


CHECKS: dict[str, Callable[[], str]] = {
    "system": _system,
    "versions": _versions,
    "device": _device,
    "threads": _threads,
    "memory": _memory,
    "formats": _formats,
    "weights": _weights,
    "dinov2": _dinov2,
    "sample": _sample,
    "self-test": _self_test,
}


def _print(ui: Session, checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FAIL", style="bold red")
        table.add_row(mark, Text(check.name), Text(check.found))
    ui.out.print(table)
