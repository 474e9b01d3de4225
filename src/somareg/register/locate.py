"""Where both images show the same ground: by their georeferences, or by looking for a small image in a large one."""

from __future__ import annotations

from somareg.config import RegisterConfig
from somareg.given import Given, reach_px
from somareg.register.choose import search_radius
from somareg.register.ground import Ground, common_ground
from somareg.register.images import Images


def known_ground(images: Images, cfg: RegisterConfig, given: Given | None = None) -> Ground:
    """The common ground as far as it is known without a look at pixels."""
    here, there = images.reference.grid, images.moving.grid
    more = reach_px(given.affine, here.shape) if given else 0.0
    return common_ground(here, there, images.georef, lambda longest: search_radius(cfg, here, longest), more)


def find_ground(images: Images, cfg: RegisterConfig, given: Given | None) -> Ground:
    """The common ground."""
    return known_ground(images, cfg, given)
