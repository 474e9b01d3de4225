"""Checks and the calibrated verdict: it knows when it failed."""

from somareg.quality.calibration import Calibration, Engine, load_calibration
from somareg.quality.measure import Measured, measure
from somareg.quality.support import Support, support_of
from somareg.quality.verdict import Demands, judge

__all__ = [
    "Calibration",
    "Demands",
    "Engine",
    "Measured",
    "Support",
    "judge",
    "load_calibration",
    "measure",
    "support_of",
]
