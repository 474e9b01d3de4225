"""Weights as files: fp16 safetensors with a card, written whole or not at all, and checked on every load.

Nothing here can run code from a file: safetensors holds numbers only, the card is JSON, and pickled formats are
refused by name before they are opened.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from somareg.config import did_you_mean, from_mapping
from somareg.errors import ConfigError, OutputError, UnsupportedError, WeightsError
from somareg.io.atomic import output_folder
from somareg.runtime.version import __version__
from somareg.soma.dinov2_files import Dinov2Files
from somareg.soma.weights.card import ModelCard, card_path, make_card, read_card, read_file
from somareg.soma.weights.fit import check_state
from somareg.soma.weights.frozen import check_same, files_for

if TYPE_CHECKING:
    from somareg.soma.network import Soma

SUFFIX = ".safetensors"
MAX_BYTES = 256 * 1024 * 1024  # the published configuration has 112 MiB
DEFAULT_WEIGHTS = "compact"  # file beside this one that "auto" takes; its card says which version it is
NO_WEIGHTS = ("auto", "orientation")  # names that `register` accepts besides those of weights

_PICKLED = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"})
_BUILDING = threading.Lock()
_FP16_MAX = torch.finfo(torch.float16).max


def save_weights(
    state: Mapping[str, Tensor], fields: Mapping[str, Any], path: str | Path, *, overwrite: bool = False
) -> ModelCard:
    """Write a state dict as fp16 safetensors and its card beside it: both, or nothing.

    Args:
        state: name -> tensor, any device and float type; integers and booleans are stored unchanged.
        fields: fields of the card, see `make_card`.
        path: ends in `.safetensors`; the card takes the same name with `.json`.
        overwrite: replace an earlier model.

    Returns:
        The card, with the hash of the file.

    Raises:
        WeightsError: a value that is not finite or does not fit fp16, naming the tensor; or nothing to save.
        ConfigError: a field of the card is missing, unknown or out of its range.
        OutputError: the files exist already, or cannot be written.
    """
    final = Path(path)
    tensors = {name: _half(name, tensor) for name, tensor in state.items()}
    parameters = _count(tensors)
    if parameters == 0:
        raise WeightsError("the state dict holds no weights; give that of a trained network")
    data = save(tensors, metadata={"format": "pt"})
    card = make_card(fields, parameters=parameters, sha256=hashlib.sha256(data).hexdigest())
    _check_target(final, overwrite)
    with output_folder(final.parent, overwrite=True) as folder:
        (folder / final.name).write_bytes(data)
        (folder / card_path(final).name).write_text(card.to_json(), encoding="ascii", newline="\n")
    return card


def load_weights(path: str | Path, *, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Tensor], ModelCard]:
    """Read weights and their card, and check both.

    Args:
        path: a `.safetensors` file with its card beside it.
        max_bytes: larger files are refused before they are read.

    Returns:
        name -> tensor on the CPU, float32 (integers and booleans as stored); the card.

    Raises:
        WeightsError: missing, of a pickled format, too large, damaged, not finite, or different from the card.
        UnsupportedError: the card has a later format.
    """
    final = Path(path)
    data = _read(final, max_bytes)
    card = read_card(final)
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise WeightsError(f"{final} is not the file that its card describes (sha256 differs); fetch both again")
    try:
        stored = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise WeightsError(f"{final} is damaged or not a safetensors file ({error!s:.120}); fetch it again") from error
    state = {name: _single(name, tensor, final) for name, tensor in stored.items()}
    if (found := _count(state)) != card.parameters:
        raise WeightsError(f"{final} holds {found} numbers, its card says {card.parameters}; fetch both again")
    return state, card


def embedded() -> dict[str, Path]:
    """Name -> file of the weights that ship with the package, sorted by name."""
    folder = files("somareg.soma.weights")
    paths = [entry for entry in folder.iterdir() if isinstance(entry, Path) and entry.suffix == SUFFIX]
    return {path.stem: path for path in sorted(paths)}


def resolve(model: str) -> Path:
    """The file of weights for a name or a path; an embedded name comes first.

    Raises:
        ConfigError: neither a name nor a file; the message suggests the nearest name.
        WeightsError: the default weights, if this installation was built without them.
    """
    known = embedded()
    if model in known:
        return known[model]
    if model == DEFAULT_WEIGHTS:
        raise WeightsError(
            f"the weights '{model}' are not in this installation; install somareg again, or use model='orientation'"
        )
    path = Path(model)
    looks_like_path = path.suffix.lower() in {SUFFIX, *_PICKLED} or any(s in model for s in (os.sep, "/"))
    if looks_like_path or os.path.lexists(model):
        return path
    raise ConfigError(f"unknown model '{model}'.{did_you_mean(model, (*NO_WEIGHTS, *known))}")


def build_network(settings: Mapping[str, Any], where: str) -> Soma:
    """The network that a card describes, with untrained weights, on the CPU.

    Args:
        settings: `ModelCard.network`.
        where: the file, for messages.

    Raises:
        WeightsError: this version has no such network, or a frozen part's weights are missing.
        UnsupportedError: an extra that the network needs is not installed.
    """
    from somareg.soma.network import NetworkCfg, Soma

    try:
        return Soma(from_mapping(NetworkCfg, settings, "network"))
    except (WeightsError, UnsupportedError):  # of a frozen part; the message already names what to fetch or install
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise WeightsError(
            f"{where}: somareg {__version__} cannot build the network of its card ({error!s:.200}); "
            "use the version that wrote it, or export the checkpoint again"
        ) from error


def load_network(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    dinov2: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Soma:
    """The trained network on a device, in evaluation mode.

    The last four networks are cached, so that a batch of pairs, or a comparison of a few models, builds each once; a
    changed file or card is loaded anew. Callers share the module: do not change it.

    Args:
        path: as for `load_weights`.
        device: where it runs.
        dinov2: folder or hub name of the DINOv2 that the network needs; None for the card's, from the local cache.
        max_bytes: as for `load_weights`.

    Raises:
        WeightsError: as `load_weights`; or the weights do not fit the network that the card describes; or DINOv2 is
            missing or not the one that the card names.
        ConfigError: `dinov2` is given for a network without DINOv2.
        UnsupportedError: the card has a later format, or DINOv2 needs a package that is not installed.
    """
    final = Path(path)
    digest = hashlib.sha256(_read(final, max_bytes)).hexdigest()
    card = read_card(final)
    frozen = files_for(card, str(path), dinov2)
    return _network(final.absolute(), digest, card.to_json(), str(torch.device(device)), max_bytes, frozen)


@lru_cache(maxsize=4)
def _network(path: Path, digest: str, card_text: str, device: str, max_bytes: int, frozen: Dinov2Files | None) -> Soma:
    """`digest` and `card_text` only serve the cache as keys: if they differ, so does the network."""
    state, card = load_weights(path, max_bytes=max_bytes)
    with _BUILDING, torch.random.fork_rng(devices=[]):  # initial weights must not use the caller's generator
        network = build_network(card.network, str(path))
    check_state(network.state_dict(), state, str(path))
    network.load_state_dict(state, strict=True)
    if frozen is not None and network.encoder.dinov2 is not None:
        check_same(card.dinov2, frozen.identity(), str(path))
        network.encoder.dinov2.use(frozen)
        network.encoder.dinov2.load(device)
    return network.requires_grad_(False).eval().to(torch.device(device))


def _read(path: Path, max_bytes: int) -> bytes:
    """The bytes of a `.safetensors` file; other kinds are refused unopened."""
    if path.suffix.lower() in _PICKLED:
        raise WeightsError(
            f"{path} is a pickled checkpoint, which could run code and is never loaded; "
            f"run 'somareg export {path} -o {path.stem}{SUFFIX}' and use that file"
        )
    if path.suffix != SUFFIX and not path.is_dir():
        raise WeightsError(f"{path} is not a {SUFFIX} file; give one that 'somareg export' wrote")
    return read_file(path, max_bytes, "give a file that 'somareg export' wrote, or the name of a model")


def _half(name: str, tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU: floating point as fp16, anything else unchanged."""
    copy = tensor.detach().to(device="cpu", copy=True, memory_format=torch.contiguous_format)
    if copy.is_complex():
        raise WeightsError(f"{name!r} holds complex numbers, which are not stored; keep them out of the state dict")
    if not copy.is_floating_point():
        return copy
    if not bool(torch.isfinite(copy).all()):
        raise WeightsError(
            f"{name!r} holds NaN or infinite values: the training diverged; export an earlier checkpoint"
        )
    half = copy.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        largest = float(copy.abs().max())
        raise WeightsError(f"{name!r} reaches {largest:.4g}, beyond fp16 ({_FP16_MAX:g}); train with more weight decay")
    return half


def _single(name: str, tensor: Tensor, path: Path) -> Tensor:
    """Floating point as float32, checked to be finite; integers and booleans unchanged."""
    if tensor.is_complex():
        raise WeightsError(f"{path}: {name!r:.80} holds complex numbers; export the checkpoint again")
    if not tensor.is_floating_point():
        return tensor
    single = tensor.to(torch.float32)
    if not bool(torch.isfinite(single).all()):
        raise WeightsError(f"{path}: {name!r:.80} holds NaN or infinite values; export another checkpoint")
    return single


def _check_target(path: Path, overwrite: bool) -> None:
    """Refuse a wrong name, a folder, another program's file, and, without `overwrite`, any existing file."""
    if path.suffix != SUFFIX:
        raise OutputError(f"output {path} must end in {SUFFIX}; give such a name")
    for place in (path, card_path(path)):
        if place.is_dir():
            raise OutputError(f"output {place} is a folder; give another name")
        if place.exists() and not overwrite:
            raise OutputError(f"output {place} exists; give another name or allow replacing with --overwrite")
    if card_path(path).exists():
        try:
            read_card(path)
        except (WeightsError, ValueError) as error:
            # Another program's settings may have the same name and must not be replaced.
            raise OutputError(f"output {card_path(path)} is there and is no model card; move it away") from error


def _count(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())
