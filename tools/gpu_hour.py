"""Train one plan of configs/gpu from a pack, for so many minutes, without installing somareg: docs/training.md.

python tools/gpu_hour.py runs/gpu/pack.safetensors --plan compact --minutes 9 --out home
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from somareg.lab.train.remote import main  # noqa: E402 - the path comes first

if __name__ == "__main__":
    raise SystemExit(main(plans=ROOT / "configs" / "gpu"))
