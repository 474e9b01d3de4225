"""From a training checkpoint to weights that `register` takes: the network alone, averaged, fp16, with its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from somareg.errors import ReadError, WeightsError
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.train.validation import validate_samples
from somareg.soma.dinov2_files import Dinov2Id, find_dinov2
from somareg.soma.network import Soma
from somareg.soma.weights.card import ModelCard
from somareg.soma.weights.fit import check_state
from somareg.soma.weights.frozen import check_same, check_unused, identity_in
from somareg.soma.weights.store import build_network, save_weights

PREFIX = "network."
NO_LICENCE = "not stated"
_AVERAGED = "averaged weights (EMA)"
_LAST = "weights of the last step"
_NOT_JUDGED = "weights of the last step; the scores are those of the averaged weights"


class TrainingRecord(TypedDict):
    """Training record of a checkpoint, under the key "somareg"; numbers, texts, lists and mappings only.

    Other keys are allowed; of them `synthetic_share`, `licence`, `notes` and `dinov2` (name and sha256 of the frozen
    encoder, where the network has one) go into the card.

    Attributes:
        config: the whole configuration; "network" holds the settings of the network.
        data: one mapping per set: set, role, pairs, licence.
        minutes, steps, device, seed, scores: as in `ModelCard`.
    """

    config: dict[str, Any]
    data: list[dict[str, Any]]
    minutes: float
    steps: int
    device: str
    seed: int
    scores: dict[str, Any]


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    raw: bool = False,
    samples: ProtocolSamples | None = None,
    dinov2: str | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Write the network of a training checkpoint as fp16 safetensors with a card, after checking that it loads.

    The checkpoint is a mapping as Lightning writes it, of which three keys are read: "state_dict" (the network under
    the prefix `network.`), "ema" (name in the network -> averaged tensor, optional) and "somareg" (`TrainingRecord`).
    It is read without executing anything in it.

    Args:
        checkpoint: file that the training engine wrote.
        out: ends in `.safetensors`; the card takes the same name with `.json`.
        name: of the model; the stem of `out` when None.
        licence: of the weights; the checkpoint's, or "not stated", when None.
        raw: export the weights of the last step, not their average.
        samples: measure the exported network on these; its scores replace those of training in the card.
        dinov2: folder or hub name of the DINOv2 that the network learned with; without it that of the training's
            configuration. It is read only where it is given, where `samples` need it, or where the checkpoint has no
            checksum of it.
        overwrite: replace an earlier model.

    Returns:
        The card.

    Raises:
        ReadError: missing or damaged, not a checkpoint of somareg, or holding objects that could run code.
        WeightsError: the weights are not finite, beyond fp16, or do not fit the network of the configuration; or
            DINOv2 is missing or another one than in training.
        ConfigError: the training record or the name is not what a card can hold; or `dinov2` for a network without.
        UnsupportedError: DINOv2 is to be read, and a package that it needs is not installed.
        OutputError: the files exist, or the folder or the disk refuses.
    """
    path = Path(checkpoint)
    content = read_checkpoint(path)
    record = _training_record(content, path)
    averaged = bool(content.get("ema"))
    state = network_state(content, path, raw=raw)
    network = record["config"]["network"]
    built = build_network(network, str(path))
    check_state(built.state_dict(), state, str(path))
    identity = _dinov2_of(built, record, path, dinov2, is_run=samples is not None)
    which = _AVERAGED if averaged and not raw else _LAST
    if averaged and raw and samples is None:
        which = _NOT_JUDGED
    scores: Mapping[str, Any] = record["scores"]
    if samples is not None:
        built.load_state_dict({key: tensor.half().float() for key, tensor in state.items()})
        scores = validate_samples(built.eval(), samples, None, torch.device("cpu"))
    fields = {key: record[key] for key in ("data", "minutes", "steps", "device", "seed")} | {
        "scores": scores,
        "name": name if name is not None else Path(out).stem,
        "network": network,
        "dinov2": None if identity is None else {"name": identity.name, "sha256": identity.sha256},
        "synthetic_share": record.get("synthetic_share"),
        "licence": licence or record.get("licence") or NO_LICENCE,
        "notes": "; ".join(str(text) for text in (which, record.get("notes")) if text),
    }
    return save_weights(state, fields, out, overwrite=overwrite)


def _dinov2_of(
    network: Soma, record: Mapping[str, Any], path: Path, dinov2: str | None, *, is_run: bool
) -> Dinov2Id | None:
    """The DINOv2 that a network learned with, as the card names it; what is given or run is checked to be that."""
    if network.encoder.dinov2 is None:
        check_unused(dinov2, str(path))
        return None
    learned = identity_in(record)
    if learned is not None and dinov2 is None and not is_run:
        return learned
    if dinov2 is not None:
        network.encoder.dinov2.use(find_dinov2(dinov2))
    network.encoder.dinov2.load()  # refuses what is no DINOv2 of this width
    found = network.encoder.dinov2.identity
    check_same(learned, found, str(path))
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The mapping in a checkpoint, tensors on the CPU; pickled objects other than plain ones are refused.

    Raises:
        ReadError: missing, a folder, damaged, or holding objects that could run code.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ReadError(f"{path} {what}; give a checkpoint that 'somareg train' wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ReadError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    except Exception as error:  # reading a damaged pickle can raise any exception
        raise ReadError(
            f"{path} is damaged, or holds Python objects that could run code and are never loaded; "
            "give a checkpoint that 'somareg train' wrote"
        ) from error
    if not isinstance(content, dict):
        raise ReadError(f"{path} holds no checkpoint but a {type(content).__name__}; give one of 'somareg train'")
    return content


def _training_record(content: Mapping[str, Any], path: Path) -> TrainingRecord:
    """The record under "somareg", with all keys that a card needs; the card checks the values."""
    record = content.get("somareg")
    if not isinstance(record, dict):
        raise ReadError(f"{path} has no record 'somareg' of its training; give a checkpoint that 'somareg train' wrote")
    for key in TrainingRecord.__annotations__:
        if key not in record:
            raise ReadError(f"{path}: its training record lacks '{key}'; train again with this version of somareg")
    config = record["config"]
    if not isinstance(config, dict) or not isinstance(config.get("network"), dict):
        raise ReadError(f"{path}: its training record has no config of the network; train again with this version")
    return cast(TrainingRecord, record)


def network_state(content: Mapping[str, Any], path: Path, *, raw: bool = False) -> dict[str, Tensor]:
    """The network's weights in a checkpoint, with averages in place of those that have one.

    Args:
        content: of the checkpoint.
        path: its name in messages.
        raw: the weights of the last step, as where the training kept no averages.

    Raises:
        ReadError: there are none, or they are not tensors by name.
        WeightsError: the averages are those of another network.
    """
    averaged = _tensors(content.get("ema") or {}, "ema", path)
    if raw:
        averaged = {}
    whole = _tensors(content.get("state_dict"), "state_dict", path)
    state = {key.removeprefix(PREFIX): tensor for key, tensor in whole.items() if key.startswith(PREFIX)}
    if not state:
        raise ReadError(f"{path}: no tensor of its state_dict starts with '{PREFIX}'; give one of 'somareg train'")
    # An average of a part of the network only would silently mix two networks.
    lacking = [key for key, tensor in state.items() if tensor.is_floating_point() and key not in averaged]
    strange = [key for key in averaged if key not in state]
    if averaged and (lacking or strange):
        key = (lacking or strange)[0]
        raise WeightsError(
            f"{path}: the averaged weights {'lack' if lacking else 'have an unknown'} {key!r:.100}; "
            "export the weights of the last step with --raw"
        )
    return {key: averaged.get(key, tensor) for key, tensor in state.items()}


def _tensors(value: Any, what: str, path: Path) -> dict[str, Tensor]:
    """`value`, a mapping of names to tensors."""
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    ):
        raise ReadError(f"{path}: its {what} is not a mapping of names to tensors; give one of 'somareg train'")
    return dict(value)
