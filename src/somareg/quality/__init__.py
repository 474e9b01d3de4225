"""Quality checks and the calibrated verdict."""

from somareg.quality.calibration import Calibration, Engine, load_calibration
from somareg.quality.error_map import LocalModel
from somareg.quality.measure import Measured, measure
from somareg.quality.places import Places, worst_place
from somareg.quality.support import Support, agreement_in_words, support_of
from somareg.quality.verdict import Demands, judge, judge_as_it_stands
from somareg.quality.worst import worst_places

__all__ = [
    "Calibration",
    "Demands",
    "Engine",
    "LocalModel",
    "Measured",
    "Places",
    "Support",
    "agreement_in_words",
    "judge",
    "judge_as_it_stands",
    "load_calibration",
    "measure",
    "support_of",
    "worst_place",
    "worst_places",
]
