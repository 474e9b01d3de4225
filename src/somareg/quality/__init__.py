"""Checks and the calibrated verdict: it knows when it failed."""

from somareg.quality.calibration import Calibration, load_calibration
from somareg.quality.measure import Measured, measure
from somareg.quality.verdict import judge

__all__ = ["Calibration", "Measured", "judge", "load_calibration", "measure"]
