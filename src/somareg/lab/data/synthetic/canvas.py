"""Label maps under construction, and the settings of their content."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from somareg.lab.data.synthetic.draws import Draws, choose, spread, where
from somareg.lab.data.synthetic.materials import FIRST_LABEL, KINDS, label_of
from somareg.lab.data.synthetic.noise import fractal, top_share

OVERSAMPLE = 2  # cells of the label maps per pixel of the image


@dataclass(frozen=True)
class SceneCfg:
    """Content of scenes; probabilities are per scene.

    Attributes:
        hidden: chance that a layer of the scene is seen by one modality only.
        towns, hills: chances that a scene has any.
        halls: most free-standing large buildings in a scene.
    """

    hidden: float = 0.12
    towns: float = 0.5
    hills: float = 0.4
    halls: int = 6


class Canvas:
    """Label maps under construction.

    Attributes:
        draws: random draws for N scenes.
        cfg: settings.
        side: F, cells along a side of the maps.
        half: pixels from the image's centre to its edge.
        label, optical, radar: (N, F, F) uint8 labels: true, as the optical sensor and as the radar sees them.
    """

    def __init__(self, draws: Draws, ground: Tensor, cfg: SceneCfg) -> None:
        self.draws, self.cfg, self.side = draws, cfg, ground.shape[-1]
        self.half = self.side / (2 * OVERSAMPLE)
        self.label = self.optical = self.radar = ground

    def paint(self, cover: Tensor, label: Tensor) -> None:
        """Cover cells (N, F, F) with a label (N, F, F) or (N, 1, 1), perhaps unseen by one modality."""
        unseen, by_radar = self.draws.chance(self.cfg.hidden), self.draws.chance(0.5)
        self.label = choose(cover, label, self.label)
        self.optical = choose(cover * where(spread(~unseen | by_radar)), label, self.optical)
        self.radar = choose(cover * where(spread(~(unseen & by_radar))), label, self.radar)

    def paint_roofs(self, cover: Tensor, label: Tensor) -> None:
        """Cover cells in the optical image only; radar images show buildings displaced."""
        self.label = choose(cover, label, self.label)
        self.optical = choose(cover, label, self.optical)

    def free_of(self, kind: str) -> Tensor:
        """(N, F, F) bytes, 0 where a kind lies on top."""
        # Bytes wrap around: labels before the kind's first count as large.
        return where(self.label - FIRST_LABEL[kind] >= KINDS[kind].labels)

    def any_label(self, kind: str) -> Tensor:
        """(N, 1, 1) one random label of a kind per scene."""
        return label_of(kind, self.draws.uniform(0.0, 1.0, 1, 1))


def patches(draws: Draws, fine: int, wave: tuple[float, float], share: Tensor) -> Tensor:
    """Blobs, (N, F, F) bytes, that cover about `share` (N,) of each scene (0 none, 1 all).

    Args:
        draws: random draws.
        fine: side F of the label maps.
        wave: range of the blobs' wavelength, pixels.
        share: (N,) 0-1.
    """
    longest = draws.log_uniform(*wave) * OVERSAMPLE
    return top_share(fractal(draws, fine, longest, draws.uniform(0.6, 1.4), 4.0), share)


def anywhere(*amounts: Tensor) -> bool:
    """True if any scene of the batch has the feature, so that it must be drawn."""
    return any(bool((amount > 0).any()) for amount in amounts)
