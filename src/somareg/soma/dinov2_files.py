"""The files of DINOv2: find them, identify the encoder by a checksum, and load the ViT from them.

Nothing here goes online: a name on the hub is looked up in the local cache only. An encoder is read once per
process and device, and everything that needs it shares it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from somareg.errors import ConfigError, UnsupportedError, WeightsError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
NAMED_BY: Final = "--dinov2 PATH (in Python dinov2=, in training network.encoder.dinov2.folder)"
"""The options that name DINOv2, for messages."""
PUBLISHED: Final = tuple(
    f"facebook/dinov2-{kind}{size}" for kind in ("with-registers-", "") for size in ("small", "base", "large", "giant")
)
"""Names on the hub under which DINOv2 is published."""

_CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
# Settings that change the features while all tensors stay the same.
_COMPUTED_BY = ("model_type", "patch_size", "num_attention_heads", "hidden_act", "layer_norm_eps", "use_swiglu_ffn")
_READING = threading.Lock()  # if several threads need one encoder, only one reads it


@dataclass(frozen=True)
class Dinov2Id:
    """Identity of an encoder, as a card and a result record it.

    Attributes:
        name: on the hub, or the folder's name without its path.
        sha256: see `Dinov2Files.identity`.
    """

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12]}...)"


@dataclass(frozen=True)
class Dinov2Files:
    """The files of an encoder in their present state.

    Attributes:
        name: see `Dinov2Id`.
        folder: absolute, holds the files.
        marks: name, size in bytes and time of change of each file; changed files count as another encoder.
    """

    name: str
    folder: Path
    marks: tuple[tuple[str, int, int], ...]

    @property
    def tensors(self) -> tuple[Path, ...]:
        """The files of tensors."""
        return tuple(self.folder / name for name, *_ in self.marks if name.endswith(".safetensors"))

    def identity(self) -> Dinov2Id:
        """Name and checksum, computed once per process.

        The checksum covers the tensors (name, shape, values as float32), sorted by name, and the settings that
        change the features. It is not the checksum of a file: the number of files, their headers and the order of
        tensors have no effect. The names are those in the files, because those in memory differ between versions of
        `transformers`. The mask token is used in pretraining only and is left out.

        Raises:
            UnsupportedError, WeightsError: see `load_vit`.
        """
        with _READING:
            return Dinov2Id(self.name, _sha256(self))


def in_folder(folder: str | Path) -> Dinov2Files:
    """The encoder in a folder.

    Raises:
        WeightsError: it is not there, or a file is missing.
    """
    whole = Path(folder).expanduser().resolve()
    if not whole.is_dir():
        raise WeightsError(f"no DINOv2 in {folder}: it is no folder; {_way_out()}")
    return _files(whole.name or "dinov2", whole)


def in_cache(name: str) -> Dinov2Files:
    """The encoder of a name on the hub, such as "facebook/dinov2-with-registers-large", in the local cache.

    Raises:
        UnsupportedError: `transformers` with its cache is not installed.
        WeightsError: it is not there, or a file is missing.
    """
    if not _HUB_NAME.fullmatch(name):
        raise WeightsError(f"no DINOv2 in {name}: it is neither a folder nor a name of the hub; {_way_out()}")
    cached = _import("huggingface_hub").try_to_load_from_cache(name, CONFIG)
    if not isinstance(cached, str):
        fetch = f"fetch it once with `hf download {name} {CONFIG} {WEIGHTS}`, or " if "/" in name else ""
        raise WeightsError(f"no DINOv2 named {name} in the local cache: {fetch}{_way_out()}")
    return _files(name, Path(cached).parent)


def find_dinov2(source: str) -> Dinov2Files:
    """The encoder that a user named: a folder, or a name on the hub in the local cache; a folder comes first.

    Raises:
        UnsupportedError, WeightsError: see `in_folder` and `in_cache`.
    """
    return in_folder(source) if Path(source).expanduser().is_dir() else in_cache(source)


def cached_dinov2() -> tuple[Dinov2Files, ...]:
    """The encoders of `PUBLISHED` that are complete in the local cache.

    Raises:
        UnsupportedError: `transformers` with its cache is not installed.
    """
    found = []
    for name in PUBLISHED:
        try:
            found.append(in_cache(name))
        except WeightsError:
            continue
    return tuple(found)


def load_vit(files: Dinov2Files, channels: int, device: torch.device | str = "cpu") -> nn.Module:
    """The ViT on a device in evaluation mode, in float32, without gradients; read once per process.

    Args:
        files: of the encoder.
        channels: hidden size that the network expects.
        device: where it runs.

    Raises:
        UnsupportedError: `transformers` is not installed, or the files hold another model than DINOv2.
        WeightsError: files are damaged or incomplete.
        ConfigError: `channels` is not the hidden size of the weights.
    """
    with _READING:
        hidden = _settings(files).hidden_size
        if hidden != channels:
            raise ConfigError(
                f"DINOv2 in {files.folder} gives {hidden} channels, not the {channels} of "
                "network.encoder.dinov2.channels: "
                f"choose another DINOv2, or train with channels {hidden}"
            )
        return _vit(files, str(torch.device(device)))


def _files(name: str, folder: Path) -> Dinov2Files:
    try:
        wanted = [WEIGHTS]
        if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():  # a large encoder in several files
            shards = set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values())
            if not all(isinstance(shard, str) and Path(shard).name == shard for shard in shards):
                raise ValueError("a file outside the folder")
            wanted = [INDEX, *sorted(shards)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"damaged {folder / INDEX}: fetch {CONFIG} and {WEIGHTS} again") from error
    marks = []
    for file in (CONFIG, *wanted):
        try:
            stat = (folder / file).stat()
        except OSError as error:
            raise WeightsError(f"no {file} of DINOv2 in {folder}: {_way_out()}") from error
        marks.append((file, stat.st_size, stat.st_mtime_ns))
    return Dinov2Files(name, folder, tuple(marks))


def _way_out() -> str:
    return f"put {CONFIG} and {WEIGHTS} into a folder and name it by {NAMED_BY}"


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnsupportedError("DINOv2 needs the package transformers: pip install 'somareg[dinov2]'") from error


def _damaged(files: Dinov2Files) -> WeightsError:
    return WeightsError(f"damaged DINOv2 in {files.folder}: fetch {CONFIG} and {WEIGHTS} again")


def _settings(files: Dinov2Files) -> Any:
    """The configuration of the ViT, with defaults for what its file leaves out."""
    transformers = _import("transformers")
    try:
        content, _ = transformers.PretrainedConfig.get_config_dict(str(files.folder), local_files_only=True)
        kind = content.get("model_type")
        if kind not in _CLASSES:
            raise UnsupportedError(
                f"{files.folder} is a model of type {kind!r}: choose one of type {' or '.join(_CLASSES)}"
            )
        return getattr(transformers, _CLASSES[kind]).config_class.from_dict(content)
    except UnsupportedError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise _damaged(files) from error


@lru_cache(maxsize=8)
def _sha256(files: Dinov2Files) -> str:
    safetensors = _import("safetensors")
    settings = _settings(files)
    digest = hashlib.sha256(json.dumps({key: getattr(settings, key, None) for key in _COMPUTED_BY}).encode())
    try:
        where: dict[str, Path] = {}
        for path in files.tensors:
            with safetensors.safe_open(path, framework="pt") as stored:
                where |= dict.fromkeys(stored.keys(), path)
        for name, path in sorted(where.items()):
            if name.endswith("mask_token"):
                continue
            with safetensors.safe_open(path, framework="pt") as stored:
                values = stored.get_tensor(name).to(torch.float32).contiguous()
            digest.update(json.dumps([name, list(values.shape)]).encode())
            digest.update(values.numpy().astype("<f4", copy=False).tobytes())
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise _damaged(files) from error
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _vit(files: Dinov2Files, device: str) -> nn.Module:
    transformers, safetensors = _import("transformers"), _import("safetensors")
    model_class = getattr(transformers, _CLASSES[_settings(files).model_type])
    try:
        vit, report = model_class.from_pretrained(
            str(files.folder), use_safetensors=True, output_loading_info=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise _damaged(files) from error
    # The ViT works without a mask token. Any other missing tensor would silently stay random.
    absent = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    if absent:
        raise WeightsError(f"{files.folder} lacks {len(absent)} tensors of DINOv2, such as {absent[0]}: fetch it again")
    model: nn.Module = vit.float().eval().requires_grad_(False).to(torch.device(device))
    return model
