"""Composition of maps: in `moving <- A @ D` the right one is applied first."""

from __future__ import annotations

from dataclasses import dataclass

from somareg.types import FloatArray, Transform


@dataclass(frozen=True, eq=False)
class ComposedTransform:
    """Maps applied from the last to the first, like a product of matrices.

    Attributes:
        parts: the factors, left to right as written: `parts[0] @ parts[1] @ ...`.
    """

    parts: tuple[Transform, ...]

    def __call__(self, xy: FloatArray) -> FloatArray:
        for part in reversed(self.parts):
            xy = part(xy)
        return xy

    @property
    def inverse(self) -> Transform:
        return ComposedTransform(tuple(part.inverse for part in reversed(self.parts)))

    @property
    def is_affine(self) -> bool:
        return all(part.is_affine for part in self.parts)

    def __matmul__(self, first: Transform) -> Transform:
        return compose(self, first)


def compose(*transforms: Transform) -> Transform:
    """`compose(a, b, c)(xy) == a(b(c(xy)))`, with neighbouring affines multiplied out."""
    flat: list[Transform] = []
    for transform in transforms:
        flat.extend(transform.parts if isinstance(transform, ComposedTransform) else (transform,))
    merged: list[Transform] = []
    for transform in flat:
        if merged and hasattr(merged[-1], "matrix") and hasattr(transform, "matrix"):
            merged[-1] = merged[-1] @ transform
        else:
            merged.append(transform)
    return merged[0] if len(merged) == 1 else ComposedTransform(tuple(merged))
