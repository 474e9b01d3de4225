"""Roles and sets for judging and calibration only, which are never trained on.

The sets are small, of sensors and modalities that training does not see, and state no licence for more: weights that
learned from them could neither be judged by them nor be shipped.
"""

from __future__ import annotations

from collections.abc import Iterable

from somareg.errors import ConfigError

JUDGED_SETS: frozenset[str] = frozenset({"vhr", "multisensor", "vhrcity", "vhrpublished", "crossmodal"})
_ROLES = ("test", "unlabelled")
_ROLES_BEGIN = "val-"  # val-3px, val-vhr: labels too coarse to learn from


def is_judged(role: str) -> bool:
    """Whether pairs of this role are for scoring only; "val" is not, because its owner decides on held-out data."""
    return role in _ROLES or role.startswith(_ROLES_BEGIN)


def refuse_judged(sets: Iterable[str], roles: Iterable[str] = (), where: str = "") -> None:
    """Refuse data for judging in training.

    Raises:
        ConfigError: a set or a role is; `where` names the file.
    """
    beginning = f"{where}: " if where else ""
    for role in sorted(filter(is_judged, roles)):
        raise ConfigError(f"{beginning}role '{role}' is for scoring only; pack the roles that training may see")
    for name in sorted(JUDGED_SETS & set(sets)):
        raise ConfigError(f"{beginning}set '{name}' is for judging only, never for training; leave it out")
