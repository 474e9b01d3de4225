"""Materials of the ground: per-scene tables with the appearance of every label in each modality.

The optical and the radar look of a label are drawn independently, so that between two neighbours the contrast has the
same sign, the opposite sign or vanishes. What a kind of ground usually is (water dark to the radar, roofs bright) only
shifts the means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.lab.data.synthetic.draws import Draws, lookup

# Reflectances (red, green, blue) relative to their mean: plants, bare soil, water, stone and asphalt.
_TINTS = ((0.80, 1.30, 0.70), (1.25, 0.98, 0.72), (0.60, 1.05, 1.35), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Kind:
    """Typical appearance of labels of one kind.

    Attributes:
        labels: most different labels of the kind in a scene.
        brightness: mean and deviation of the optical brightness on a logarithmic scale (0: that of bare land).
        backscatter: mean and deviation in dB (0: that of bare land).
        tints: chances of plants, soil, water, stone.
        optical_texture: largest deviation of the optical texture (logarithm of the brightness).
        radar_texture: largest deviation of the radar texture, dB.
        rows: chance that a label is planted in rows.
    """

    labels: int
    brightness: tuple[float, float]
    backscatter: tuple[float, float]
    tints: tuple[float, float, float, float] = (0.3, 0.4, 0.0, 0.3)
    optical_texture: float = 0.1
    radar_texture: float = 0.8
    rows: float = 0.0


KINDS: dict[str, Kind] = {
    "land": Kind(6, (0.0, 0.3), (0.0, 3.0), (0.45, 0.45, 0.0, 0.1), 0.25, 2.0),
    "wood": Kind(3, (-0.5, 0.4), (1.0, 2.0), (0.9, 0.1, 0.0, 0.0), 0.35, 1.5),
    "field": Kind(10, (0.05, 0.4), (-0.5, 3.5), (0.55, 0.4, 0.0, 0.05), 0.10, 0.8, 0.45),
    "verge": Kind(3, (-0.1, 0.5), (1.0, 3.5), (0.6, 0.3, 0.05, 0.05), 0.15, 1.0),
    "water": Kind(2, (-0.8, 0.6), (-9.0, 4.0), (0.15, 0.05, 0.7, 0.1), 0.04, 0.5),
    "road": Kind(4, (0.25, 0.6), (-3.0, 4.0), (0.0, 0.25, 0.0, 0.75), 0.05, 0.5),
    "yard": Kind(3, (-0.2, 0.2), (1.0, 2.0), (0.5, 0.2, 0.0, 0.3), 0.30, 2.0),
    "roof": Kind(8, (0.35, 0.6), (2.0, 3.0), (0.0, 0.35, 0.05, 0.6), 0.05, 1.5),
}


def _first_labels() -> dict[str, int]:
    first, total = {}, 0
    for name, kind in KINDS.items():
        first[name], total = total, total + kind.labels
    return first


FIRST_LABEL = _first_labels()
LABELS = sum(kind.labels for kind in KINDS.values())


def label_of(name: str, unit: Tensor) -> Tensor:
    """Labels of a kind from random numbers in 0-1 (any shape), uint8."""
    kind = KINDS[name]
    return (unit * kind.labels + FIRST_LABEL[name]).clamp_max(FIRST_LABEL[name] + kind.labels - 0.5).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Materials:
    """Tables over all labels, one row per scene.

    Attributes:
        colour: (N, 3, K) logarithm of the reflectance per band.
        backscatter: (N, K) dB.
        optical_texture, radar_texture: (N, K) deviation of the texture (log reflectance; dB).
        row_x, row_y: (N, K) wave vector of the planted rows, radians per pixel.
        optical_rows, radar_rows: (N, K) amplitude of the rows (log reflectance; dB), often 0 in one modality.
    """

    colour: Tensor
    backscatter: Tensor
    optical_texture: Tensor
    radar_texture: Tensor
    row_x: Tensor
    row_y: Tensor
    optical_rows: Tensor
    radar_rows: Tensor

    def rows(self, label: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Wave of the planted rows at x (1, 1, F), y (1, F, 1) px: (N, F, F) in -1..1, the same for both sensors."""
        index = label.long()
        return torch.sin(x * lookup(self.row_x, index) + y * lookup(self.row_y, index))


def draw_materials(draws: Draws, contrast: tuple[float, float] = (0.5, 1.2)) -> Materials:
    """Draw the appearance of every label.

    Args:
        draws: random draws for N scenes.
        contrast: range of the factor on the deviation within each kind, drawn per scene and modality.
    """
    bright_mean, bright_spread = _per_label(draws, "brightness")
    back_mean, back_spread = _per_label(draws, "backscatter")
    brightness = bright_mean + draws.log_uniform(*contrast, 1) * bright_spread * draws.normal(LABELS)
    backscatter = back_mean + draws.log_uniform(*contrast, 1) * back_spread * draws.normal(LABELS)
    direction, wave = draws.angle(LABELS), 2 * torch.pi / draws.log_uniform(2.8, 9.0, LABELS)
    planted = draws.uniform(0.0, 1.0, LABELS) < _values(draws, "rows")
    return Materials(
        colour=brightness[:, None] + _tints(draws),
        backscatter=backscatter,
        optical_texture=_values(draws, "optical_texture") * draws.uniform(0.15, 1.0, LABELS),
        radar_texture=_values(draws, "radar_texture") * draws.uniform(0.0, 1.0, LABELS),
        row_x=wave * torch.cos(direction),
        row_y=wave * torch.sin(direction),
        optical_rows=draws.uniform(-0.05, 0.15, LABELS).clamp_min(0.0) * planted,
        radar_rows=draws.uniform(-2.0, 2.0, LABELS).clamp_min(0.0) * planted,
    )


def _values(draws: Draws, attribute: str) -> Tensor:
    values = [getattr(kind, attribute) for kind in KINDS.values() for _ in range(kind.labels)]
    return torch.tensor(values, device=draws.device)


def _per_label(draws: Draws, attribute: str) -> tuple[Tensor, Tensor]:
    mean, deviation = _values(draws, attribute).unbind(-1)
    return mean, deviation


def _tints(draws: Draws) -> Tensor:
    """(N, 3, K) logarithm of each label's tint, mixed towards grey by a random share."""
    chances = _values(draws, "tints").cumsum(-1)  # (K, 4)
    chosen = (draws.uniform(0.0, 0.999, LABELS, 1) > chances).sum(-1).clamp_max(3)
    tints = torch.tensor(_TINTS, device=draws.device).log()[chosen]
    tints = tints * draws.uniform(0.2, 1.0, LABELS, 1) + 0.05 * draws.normal(LABELS, 3)
    return (tints * draws.uniform(0.2, 1.0, 1, 1)).transpose(1, 2)
