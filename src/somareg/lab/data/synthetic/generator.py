"""The generator: from a seed through label maps to pairs of images, on any device."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from somareg.errors import InputError
from somareg.lab.data.synthetic.canvas import OVERSAMPLE, SceneCfg
from somareg.lab.data.synthetic.draws import Draws
from somareg.lab.data.synthetic.materials import draw_materials
from somareg.lab.data.synthetic.optical import OpticalCfg, render_optical
from somareg.lab.data.synthetic.radar import RadarCfg, backscatter, draw_echo, draw_view, render_radar
from somareg.lab.data.synthetic.relief import stand
from somareg.lab.data.synthetic.scenes import build_scene
from somareg.lab.data.synthetic.shapes import grid
from somareg.lab.data.tiles import TileSet

MIN_SIZE = 32
CPU_PIXELS = 2 * 256**2  # rendered at once: few, so that maps stay in a processor's cache,
DEVICE_PIXELS = 64 * 256**2  # or many, to fill an accelerator within a few GB


@dataclass(frozen=True)
class SyntheticCfg:
    """Settings of the synthetic generator.

    Attributes:
        scene: of the content.
        optical: the optical sensor.
        radar: the radar.
        contrast: range of the factor on the spread of looks among labels of one kind, drawn per scene and modality.
    """

    scene: SceneCfg = field(default_factory=SceneCfg)
    optical: OpticalCfg = field(default_factory=OpticalCfg)
    radar: RadarCfg = field(default_factory=RadarCfg)
    contrast: tuple[float, float] = (0.5, 1.2)


class SyntheticSource:
    """Generates scenes without reading or keeping anything."""

    def __init__(self, cfg: SyntheticCfg | None = None) -> None:
        """Take the settings; None: the defaults."""
        self.cfg = cfg or SyntheticCfg()

    def scenes(
        self, count: int, size: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> TileSet:
        """Perfectly aligned pairs of `size` x `size` pixels.

        The same generator state gives the same pixels on the same kind of device.

        Args:
            count: number N of scenes.
            size: side S in pixels, at least 32.
            generator: source of all randomness; one on the CPU may drive another device.
            device: where the scenes are made and stay; None means the generator's.

        Returns:
            Tiles that are valid everywhere, their label the identity, each scene a group of its own.

        Raises:
            InputError: `count` below 1 or `size` below 32.
        """
        if count < 1 or size < MIN_SIZE:
            raise InputError(f"synthetic scenes: {count} of {size} px; give at least 1 of at least {MIN_SIZE} px")
        place = generator.device if device is None else torch.device(device)
        step = max(1, (CPU_PIXELS if place.type == "cpu" else DEVICE_PIXELS) // size**2)
        with torch.no_grad():
            parts = [self._render(min(step, count - first), size, generator, place) for first in range(0, count, step)]
        radar, optical = (torch.cat(images) for images in zip(*parts, strict=True))
        tag = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        names = tuple(f"synthetic/{tag:016x}/{i}" for i in range(count))
        return TileSet(
            sar=radar,
            optical=optical,
            valid=torch.ones((count, size, size), dtype=torch.bool, device=place),
            label=torch.eye(2, 3, device=place).repeat(count, 1, 1),
            group=names,
            source=("synthetic",) * count,
            name=names,
        )

    def _render(self, count: int, size: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """SAR (n, S, S) and optical (n, 3, S, S), uint8."""
        cfg, draws = self.cfg, Draws(generator, count, device)
        scene = build_scene(draws, size, cfg.scene)
        materials = draw_materials(draws, cfg.contrast)
        rows = materials.rows(scene.label, *grid(size, OVERSAMPLE, device))
        view = draw_view(draws)
        buildings = stand(scene.layover, size, view.incidence)
        power = backscatter(draw_echo(draws, scene, materials, rows), scene.terrain, buildings, view)
        radar = render_radar(draws, power, buildings, cfg.radar)
        return radar, render_optical(draws, scene, materials, rows, buildings, cfg.optical)
