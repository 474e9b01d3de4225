"""The card beside a file of weights: the network they fit, their training data, and their scores."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from somareg.errors import ConfigError, UnsupportedError, WeightsError
from somareg.runtime.version import __version__

FORMAT_VERSION: Final = 1
MAX_CARD_BYTES = 1024 * 1024


def _measured(value: Any) -> Any:
    """Scores for JSON, which has no NaN or infinity: those become None."""
    if isinstance(value, Mapping):
        return {str(key): _measured(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_measured(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataUse(_Model):
    """One set of pairs that the weights learned from."""

    set: str
    role: str = Field(description="what the pairs served for, such as train or val")
    pairs: int = Field(ge=0)
    licence: str


class FrozenPart(_Model):
    """An encoder that the network needs and the file of weights does not hold."""

    # No path of a folder, because a card is read on other machines than the one that wrote it.
    name: str = Field(
        pattern=r"^[^/\\\x00-\x1f]{1,100}(/[^/\\\x00-\x1f]{1,100})?$", description="on the hub, or of its folder"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of its tensors and settings")


class ModelCard(_Model):
    """Everything a user must know about a file of weights; JSON beside it."""

    format_version: Literal[1] = FORMAT_VERSION
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="letters, digits, '.', '_', '-'")
    created: AwareDatetime
    somareg_version: str
    network: dict[str, JsonValue] = Field(description="settings of the network, nested names and values")
    parameters: int = Field(ge=1, description="floating-point numbers stored, buffers included")
    data: tuple[DataUse, ...]
    synthetic_share: float | None = Field(ge=0, le=1, description="of the training pairs; null if not recorded")
    minutes: float = Field(ge=0, description="of training")
    device: str
    seed: int
    steps: int = Field(ge=0)
    scores: Annotated[dict[str, JsonValue], BeforeValidator(_measured)]
    licence: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file of weights")
    notes: str = ""
    dinov2: FrozenPart | None = Field(default=None, description="the frozen DINOv2, only where the network has one")

    @property
    def dinov2_settings(self) -> dict[str, Any] | None:
        """Settings of the frozen DINOv2 in `network`, None where the network has none."""
        return dinov2_settings(self.network)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; the card of a network without DINOv2 omits its field, like cards of earlier versions."""
        return self.model_dump(mode="json", exclude={"dinov2"} if self.dinov2 is None else None)

    def to_json(self) -> str:
        """Indented ASCII JSON ending with a newline."""
        return json.dumps(self.as_json(), indent=2, allow_nan=False) + "\n"


def dinov2_settings(network: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of the frozen DINOv2 in those of a network, None where it has none; they are not checked."""
    encoder = network.get("encoder")
    if not isinstance(encoder, Mapping) or encoder.get("coarse") != "dinov2":
        return None
    settings = encoder.get("dinov2", {})
    return dict(settings) if isinstance(settings, Mapping) else {}


def make_card(fields: Mapping[str, Any], *, parameters: int, sha256: str) -> ModelCard:
    """A card of weights that are being written now.

    Args:
        fields: name, network, data, synthetic_share, minutes, device, seed, steps, scores, licence and notes, as in
            `ModelCard`, and dinov2 for a network with DINOv2; format, version and time are added here. The folder of
            DINOv2 is removed from the settings of the network.
        parameters: floating-point numbers in the file.
        sha256: of the file.

    Raises:
        ConfigError: a field is missing, unknown or out of its range.
    """
    made: dict[str, Any] = {"created": datetime.now(UTC).replace(microsecond=0), "somareg_version": __version__}
    settings = dinov2_settings(fields.get("network", {}))
    if (settings is None) != (fields.get("dinov2") is None):
        raise ConfigError(
            "model card: a network with DINOv2, and no other, has the field 'dinov2' with its name and sha256; "
            "see `FrozenDinov2.identity`"
        )
    if settings is not None:
        frozen = settings | {"name": fields["dinov2"]["name"], "folder": None}
        made["network"] = {**fields["network"], "encoder": {**fields["network"]["encoder"], "dinov2": frozen}}
    try:
        return ModelCard.model_validate({**fields, **made, "parameters": parameters, "sha256": sha256})
    except ValidationError as error:
        raise ConfigError(f"model card: {_first(error)}; mend it where the training is described") from error


def card_path(weights: Path) -> Path:
    """`model.safetensors` -> `model.json`, in the same folder."""
    return weights.with_suffix(".json")


def read_card(weights: str | Path) -> ModelCard:
    """The card that lies beside a file of weights.

    Raises:
        WeightsError: it is missing, too large, not JSON, or a field is missing, unknown or out of its range.
        UnsupportedError: a later format.
    """
    path = card_path(Path(weights))
    data = read_file(path, MAX_CARD_BYTES, "the card of a model lies beside its weights; export the checkpoint again")
    try:
        content = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON ({error}); export the checkpoint again") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise WeightsError(f"{path} is not a model card: it has no format_version; export the checkpoint again")
    if content["format_version"] != FORMAT_VERSION:
        raise UnsupportedError(
            f"{path} has card format {content['format_version']!r:.40}; somareg {__version__} reads {FORMAT_VERSION}. "
            "Use the somareg version that wrote it, or export the checkpoint again."
        )
    try:
        return ModelCard.model_validate(content)
    except ValidationError as error:
        raise WeightsError(f"{path} is not a valid model card: {_first(error)}; export it again") from error


def read_file(path: Path, limit: int, hint: str) -> bytes:
    """A whole regular file of at most `limit` bytes; its size is checked before it is opened.

    Args:
        path: links are followed.
        limit: bytes.
        hint: advice in the message if the file is missing.

    Raises:
        WeightsError: missing, a folder, a device, too large, or not readable.
    """
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise WeightsError(f"{path} is a folder; give a file")
        if not stat.S_ISREG(info.st_mode):  # reading a pipe would block for ever
            raise WeightsError(f"{path} is not a regular file; give a file on the disk")
        if info.st_size <= limit:
            with path.open("rb") as stream:
                data = stream.read(limit + 1)
            if len(data) <= limit:
                return data
        size = max(info.st_size, limit + 1)
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist; {hint}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} cannot be read ({reason}); check the path and its permissions") from error
    raise WeightsError(
        f"{path} has {size} bytes, more than the limit of {limit}; give a smaller file, or raise max_bytes if trusted"
    )


def _first(error: ValidationError) -> str:
    """The first thing wrong, as `field: what`."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])!r:.80}: {first['msg']}"
