"""A run in a process of its own, to be killed or to be one of several: `worker.py OUT '{"run": ..., "pause": ...}'`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from tests.t77_train import standin


def main() -> None:
    torch.set_num_threads(1)
    options = json.loads(sys.argv[2])

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(options.get("pause", 0.0))
        return standin.objective(*args, **kwargs)

    standin.run(standin.make_cfg(**options["cfg"]), Path(sys.argv[1]), parts=standin.parts(objective=slow))


if __name__ == "__main__":
    main()
