"""Tensors with a few texts in one safetensors file: written whole or not at all, read without running any code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from somareg.errors import OutputError, ReadError
from somareg.io.atomic import atomic_path
from somareg.io.folders import make_folder

_VERSION = "1"


def write_tensors(path: str | Path, kind: str, tensors: Mapping[str, Tensor], texts: Mapping[str, Any]) -> Path:
    """Write tensors and JSON-ready `texts` as `path`, which appears (or is replaced) in one step.

    Args:
        path: file to write; missing folders are made.
        kind: of content, checked by `read_tensors`.
        tensors: any device; stored as they are.
        texts: kept as JSON in the header.

    Raises:
        OutputError: the folder or the disk refuses.
    """
    final = Path(path)
    header = {"kind": kind, "version": _VERSION, "texts": json.dumps(texts, ensure_ascii=False)}
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    make_folder(final.parent)
    with atomic_path(final, overwrite=True) as part:
        try:
            save_file(content, part, header)
        except SafetensorError as error:  # safetensors reports a full disk by an error of its own
            raise OutputError(f"cannot write {final} ({error}); give another path or make room") from error
    return final


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `write_tensors`, on the CPU.

    Raises:
        ReadError: the file is missing, damaged, not safetensors, or holds something else than `kind`.
    """
    final = Path(path)
    if not final.is_file():
        raise ReadError(f"{final} not found; write one with python -m somareg.lab.data.pack")
    try:
        with safe_open(final, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("kind") != kind or header.get("version") != _VERSION:
                description = f"kind {header.get('kind')!r}, version {header.get('version')!r}"
                raise ReadError(f"{final} holds {description}, not {kind!r} of version {_VERSION}; pack the data again")
            texts = json.loads(header["texts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ReadError(f"{final} is damaged or not a safetensors file ({error}); pack the data again") from error
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{final} cannot be read ({error})") from error
    if not isinstance(texts, dict):
        raise ReadError(f"{final} is damaged: its texts are not a mapping; pack the data again")
    return tensors, texts
