"""A machine that only trains may lack the raster library: packing, training, exporting and matching go without it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from somareg.soma.weights import load_network, load_weights

ROOT = Path(__file__).resolve().parents[2]
BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rasterio", "osgeo"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run_without_rasterio(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    script = BLOCK + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_the_blocker_blocks() -> None:
    done = run_without_rasterio("import somareg.io.raster")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'rasterio'" in done.stderr


def test_atomic_files_and_folders(tmp_path: Path) -> None:
    code = """
    from pathlib import Path
    from somareg import io
    from somareg.errors import OutputError
    from somareg.io.atomic import atomic_path, output_folder, write_text
    from somareg.io.refusals import output_errors

    here = Path(sys.argv[1])
    assert io.write_text is write_text and io.output_folder is output_folder
    write_text(here / "a.txt", "one")
    try:
        with atomic_path(here / "a.txt", overwrite=True) as part:
            part.write_text("half")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with output_folder(here / "folder") as place:
        (place / "b.txt").write_text("two")
    try:
        with output_errors(here):
            raise OSError(28, "No space left on device")
    except OutputError as error:
        print(error)
    """
    done = run_without_rasterio(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "disk full" in done.stdout
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"a.txt", "folder", "folder/b.txt"}
    assert (tmp_path / "a.txt").read_text() == "one"


def test_what_trains_imports_saves_and_exports(tmp_path: Path) -> None:
    """What is written without the raster library is read back here, where it may be present."""
    code = """
    import somareg.lab.data.augment, somareg.lab.data.pack, somareg.lab.data.samples
    import somareg.lab.evaluate.diagnose
    import somareg.lab.train.engine, somareg.lab.train.judge, somareg.lab.train.validation
    import somareg.matching.engine, somareg.soma.weights
    from pathlib import Path
    import torch
    from somareg.config import to_mapping
    from somareg.lab.train.export import export_checkpoint
    from somareg.lab.train.guard import AtomicCheckpointIO
    from somareg.soma.weights import save_weights
    from tests.small_network import small_network

    here = Path(sys.argv[1])
    network = small_network()
    data = [{"set": "meadow", "role": "train", "pairs": 12, "licence": "CC-BY-4.0"}]
    record = {"minutes": 1.0, "steps": 3, "device": "cpu", "seed": 7, "scores": {}, "data": data}
    card = {"name": "saved", "network": to_mapping(network.cfg), "synthetic_share": 0.0, "licence": "none"}
    save_weights(network.state_dict(), record | card, here / "saved.safetensors")
    checkpoint = {
        "state_dict": {f"network.{name}": tensor for name, tensor in network.state_dict().items()},
        "ema": {},
        "somareg": record | {"config": {"network": to_mapping(network.cfg)}, "synthetic_share": 0.0},
    }
    AtomicCheckpointIO().save_checkpoint(checkpoint, here / "last.ckpt")
    export_checkpoint(here / "last.ckpt", here / "exported.safetensors")
    assert "rasterio" not in sys.modules
    """
    done = run_without_rasterio(code, tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"saved.safetensors", "saved.json", "last.ckpt", "exported.safetensors", "exported.json"}
    saved, exported = (load_weights(tmp_path / f"{name}.safetensors")[0] for name in ("saved", "exported"))
    assert all((saved[name] == tensor).all() for name, tensor in exported.items())
    load_network(tmp_path / "exported.safetensors")
