"""Apply an estimate to any raster of the moving image's ground."""

from somareg.warp.engine import apply, apply_to_file

__all__ = ["apply", "apply_to_file"]
