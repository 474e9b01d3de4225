"""The files of an evaluation: one JSON per method, a cell for each set, role and level."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import cv2

from somareg.io.atomic import write_text
from somareg.lab.evaluate.peers import Method
from somareg.lab.evaluate.protocol import PROTOCOL_VERSION
from somareg.report.plain import plain
from somareg.runtime.version import __version__


def machine() -> dict[str, Any]:
    """Description of the machine, for the times."""
    torch = sys.modules.get("torch")
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads_opencv": cv2.getNumThreads(),
        "threads_torch": torch.get_num_threads() if torch else None,
        "python": platform.python_version(),
        "opencv": cv2.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_cell(path: Path, method: Method, seed: int, cell: dict[str, Any]) -> None:
    """Put a cell into a method's file, whole or not at all; infinite errors become null."""
    made_of = {key: getattr(method, key, None) for key in ("weights", "function")}
    head = {"method": method.name, **made_of, "protocol": PROTOCOL_VERSION, "seed": seed}
    cells = [old for old in _earlier_cells(path, head) if _key(old) != _key(cell)]
    content = {
        **head,
        "somareg": __version__,
        "preset": getattr(method, "preset", None),
        "parameters": getattr(method, "parameters", 0),
        "machine": machine(),
        "cells": [*cells, cell],
    }
    write_text(path, by_lines(plain(content)), overwrite=True)


def by_lines(content: dict[str, Any]) -> str:
    """JSON with one record per line, so that files stay small and a diff shows changed pairs."""
    cells = [
        _text({key: value for key, value in cell.items() if key != "records"})[:-1]
        + ', "records": [\n'
        + ",\n".join(_text(record) for record in cell["records"])
        + "\n]}"
        for cell in content["cells"]
    ]
    head = json.dumps({key: value for key, value in content.items() if key != "cells"}, indent=1, allow_nan=False)
    return head.removesuffix("\n}") + ',\n "cells": [\n' + ",\n".join(cells) + "\n]}\n"


def _text(content: Any) -> str:
    return json.dumps(content, allow_nan=False)


def _earlier_cells(path: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = all(content.get(key) == value for key, value in head.items())
        return list(content["cells"]) if same else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[key] for key in ("set", "role", "level"))
