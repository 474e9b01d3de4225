"""Window correlation of one pair: warp the moving image, compute its features, correlate them with the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.geometry import AffineTransform
from somareg.matching.describe import Describe, Levels
from somareg.matching.pair import Pair
from somareg.matching.warping import cell_grid, map_grid, sample_cells, warp_to_reference
from somareg.matching.windows import (
    MIN_COVERAGE,
    WindowCfg,
    WindowCorrelation,
    correlate_all,
    coverage,
    window_grid,
)
from somareg.runtime.threads import Submit, at_once
from somareg.types import Transform

ROOM_PX = 32  # kept features reach at least this far beyond the reference, so that wider margins can reuse them


@dataclass(frozen=True, eq=False)
class _Kept:
    """Features of the moving image warped by an affine onto the reference grid, enlarged by `pad` pixels."""

    base: Transform
    pad: int
    levels: Levels


class Matcher:
    """Correlates windows of a pair at one resolution; features are reused where possible.

    Args:
        pair: the two images.
        describe: their features.
        reuse_px: moving features that were computed under another affine are resampled, not computed anew, if the two
            affines differ by less than this on the reference; 0 computes them every time.
        submit: runs the computation of the reference's features, at once or in parallel to the caller.
    """

    def __init__(self, pair: Pair, describe: Describe, reuse_px: float = 0.0, submit: Submit = at_once) -> None:
        self.pair, self.describe, self.reuse_px = pair, describe, reuse_px
        self._reference_levels = submit(lambda: describe(pair.reference, pair.reference_mask, pair.modalities[0]))
        self._kept: _Kept | None = None
        self._reduced: dict[int, Matcher] = {}

    def reduced(self, factor: int) -> Matcher:
        """The matcher of both images averaged over `factor` x `factor` pixels; kept per factor, and itself for 1."""
        if factor == 1:
            return self
        if factor not in self._reduced:
            self._reduced[factor] = Matcher(self.pair.reduced(factor), self.describe, self.reuse_px)
        return self._reduced[factor]

    @property
    def reference_levels(self) -> Levels:
        """Features of the reference."""
        return self._reference_levels()

    @property
    def finest(self) -> int:
        """The smallest stride."""
        return self.describe.strides[0]

    def cells(self, stride: int | None = None) -> tuple[int, int]:
        """(height, width) of the reference in cells."""
        features = self.reference_levels[stride or self.finest][0]
        return features.shape[-2], features.shape[-1]

    def correlate(
        self, transform: Transform, window: WindowCfg, stride: int | None = None, reuse_px: float | None = None
    ) -> WindowCorrelation:
        """Correlation of all windows after warping the moving image by `transform`, on the CPU.

        Args:
            transform: reference pixels -> moving pixels.
            window: in cells of `stride`.
            stride: level; the finest if not given.
            reuse_px: overrides the matcher's own.
        """
        stride = stride or self.finest
        moving = self._moved(transform, window.margin, stride, reuse_px)
        return self._told(correlate_all(*self.reference_levels[stride], *moving, window), stride)[0]

    def correlate_all(
        self, transforms: Sequence[AffineTransform], window: WindowCfg, stride: int | None = None
    ) -> list[WindowCorrelation]:
        """`correlate` for several affines, whose features are computed together; nothing is kept."""
        stride = stride or self.finest
        pad = self._whole(window.margin * stride)
        warped = [
            warp_to_reference(self.pair.moving, self.pair.moving_mask, transform, self.pair.shape, pad)
            for transform in transforms
        ]
        images, seen = (torch.cat(part) for part in zip(*warped, strict=True))
        levels = self.describe(images, seen, self.pair.modalities[1])
        moving = self._inner(levels, pad, window.margin, stride)
        return self._told(correlate_all(*self.reference_levels[stride], *moving, window), stride)

    def correlate_back(self, transform: Transform, window: WindowCfg, stride: int | None = None) -> WindowCorrelation:
        """`correlate` with windows that are cut from the warped moving image and searched for in the reference.

        Displacements are on the reference grid too; they lead from the moving image's windows to the reference.
        """
        stride = stride or self.finest
        moving = self._moved(transform, 0, stride)
        reference, reference_valid = (F.pad(part, [window.margin] * 4) for part in self.reference_levels[stride])
        return self._told(correlate_all(*moving, reference, reference_valid, window), stride)[0]

    def window_count(self, window: WindowCfg) -> int:
        """Number of windows of the finest features with enough valid cells in the reference."""
        grid = window_grid(self.cells(), window)
        return int((coverage(self.reference_levels[self.finest][1], grid) > MIN_COVERAGE).sum())

    def _told(self, found: list[WindowCorrelation], stride: int) -> list[WindowCorrelation]:
        """Correlations in main memory, with the temperature of their features."""
        temperature = self.describe.temperature(stride)
        return [replace(one.cpu(), temperature=temperature) for one in found]

    def _whole(self, pad: int) -> int:
        """`pad` pixels, rounded up to whole cells of every level."""
        coarsest = self.describe.strides[-1]
        return -(-pad // coarsest) * coarsest

    def _inner(self, levels: Levels, pad: int, margin: int, stride: int) -> tuple[Tensor, Tensor]:
        """Features on the reference's cells with `margin` cells around, cut from features with `pad` pixels around."""
        skip, (height, width) = pad // stride - margin, self.cells(stride)
        rows, columns = slice(skip, skip + height + 2 * margin), slice(skip, skip + width + 2 * margin)
        features, valid = levels[stride]
        return features[..., rows, columns], valid[..., rows, columns]

    def _moved(
        self, transform: Transform, margin: int, stride: int, reuse_px: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Moving features on the reference's cells, with `margin` cells around."""
        kept = self._keep(transform, margin * stride, self.reuse_px if reuse_px is None else reuse_px)
        if kept.base is transform:
            return self._inner(kept.levels, kept.pad, margin, stride)
        assert isinstance(kept.base, AffineTransform)  # only affines are kept
        features, valid = kept.levels[stride]
        cells = cell_grid(self.cells(stride), margin, stride, features.device)
        points = map_grid(map_grid(cells, transform), kept.base.inverse) + kept.pad
        return sample_cells(features, valid, points[None], stride)

    def _keep(self, transform: Transform, pad: int, reuse_px: float) -> _Kept:
        """Kept features of an affine near `transform`, or new ones under `transform` itself."""
        kept = self._kept
        if self.reuse_px:  # room for resampling: the displacement and a neighbour for interpolation
            pad += self.describe.strides[-1] + int(self.reuse_px)
        if kept is not None and kept.pad >= pad and self._apart(kept.base, transform) < reuse_px:
            return kept
        pad = self._whole(max(pad, ROOM_PX if self.reuse_px else 0))
        image, seen = warp_to_reference(self.pair.moving, self.pair.moving_mask, transform, self.pair.shape, pad)
        new = _Kept(transform, pad, self.describe(image, seen, self.pair.modalities[1]))
        if self.reuse_px and isinstance(transform, AffineTransform):
            self._kept = new
        return new

    def _apart(self, base: Transform, transform: Transform) -> float:
        """Largest distance of the two maps over the reference, in its pixels."""
        if base is transform:
            return 0.0
        assert isinstance(base, AffineTransform)
        height, width = self.pair.shape
        y, x = torch.linspace(0, height - 1, 5), torch.linspace(0, width - 1, 5)
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        points = torch.stack([xx, yy], dim=-1).reshape(-1, 2).double().numpy()
        back = base.inverse(transform(points))
        return float(np.linalg.norm(back - points, axis=1).max())
