"""Plane geometry: affine maps, displacement fields, robust fits and the half-pixel rule. No raster I/O, no torch."""

from somareg.geometry.affine import AffineTransform
from somareg.geometry.compose import ComposedTransform, compose
from somareg.geometry.field import FieldTransform

__all__ = ["AffineTransform", "ComposedTransform", "FieldTransform", "compose"]
