"""The options of a command as parameters of Processing, and what was chosen as arguments of the command.

`options.json` beside this file is made from the command itself (`make options`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)

_FIRST = {"moving_modality", "reference_modality", "preset", "resampling", "reports"}
"""Shown at once; all others are advanced."""


def table(command: str) -> dict[str, Any]:
    """Summary and options of a command."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("options.json").read_text(encoding="utf-8"))
    return content[command]


def parameter_name(option: Mapping[str, Any]) -> str:
    """What Processing calls an option."""
    return str(option["name"]).upper()


def parameter(option: Mapping[str, Any]) -> Any:
    """The parameter of one option."""
    name, label, default = parameter_name(option), _label(option), option["default"]
    kind = option["kind"]
    if kind == "switch":
        made = QgsProcessingParameterBoolean(name, label, default)
    elif kind == "choice":
        made = QgsProcessingParameterEnum(name, label, option["choices"], False, default, False, True)
    elif kind in ("whole", "number"):
        numbers = QgsProcessingParameterNumber
        type_of = numbers.Integer if kind == "whole" else numbers.Double
        made = numbers(name, label, type_of, default, True)
    elif kind == "file":
        made = QgsProcessingParameterFile(name, label, QgsProcessingParameterFile.File, "", default, True)
    else:
        made = QgsProcessingParameterString(name, label, default, False, True)
    made.setHelp(str(option["help"]))
    if option["name"] not in _FIRST:
        made.setFlags(made.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
    return made


def arguments(algorithm: Any, options: list[dict[str, Any]], parameters: Any, context: Any) -> Iterator[str]:
    """What was chosen otherwise than the command does by itself, as arguments."""
    for option in options:
        value = _value(algorithm, option, parameters, context)
        if value is None or value == option["default"]:
            continue
        if option["kind"] == "switch":
            yield option["flag"] if value else option["off"]
        else:
            # One argument, so that a value that begins with a dash is none of the flags.
            yield f"{option['flag']}={value}"


def _value(algorithm: Any, option: Mapping[str, Any], parameters: Any, context: Any) -> Any:
    name, kind = parameter_name(option), option["kind"]
    if parameters.get(name) is None:
        return None
    if kind == "switch":
        return algorithm.parameterAsBool(parameters, name, context)
    if kind == "choice":
        return algorithm.parameterAsEnumString(parameters, name, context) or None
    if kind == "whole":
        return _whole(parameters[name])
    if kind == "number":
        return algorithm.parameterAsDouble(parameters, name, context)
    return algorithm.parameterAsString(parameters, name, context).strip() or None


def _whole(value: Any) -> int:
    """Of any size: those of Processing have 32 bits."""
    return int(float(value)) if not isinstance(value, int) else value


def _label(option: Mapping[str, Any]) -> str:
    words = str(option["name"]).replace("_", " ")
    return words[:1].upper() + words[1:]
